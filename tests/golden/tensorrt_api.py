"""Writes what the Python bindings of some TensorRT versions offer: every class and its names.

    python tests/golden/tensorrt_api.py WHEEL...

The wheels (``tensorrt-cu12-bindings``, for this Python) lack TensorRT's libraries. Importing
the bindings calls none of their functions, so libraries that only have the names are enough. The
names are facts about an interface; nothing of NVIDIA's is in the files written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FUNCTIONS = (
    "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL "
    "createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getBuilderPluginRegistry "
    "getNvOnnxParserVersion getPluginRegistry initLibNvInferPlugins"
).split()
ASK = """
import json, sys
import tensorrt_bindings as trt
classes = {
    name: sorted(n for n in dir(value) if not n.startswith("_"))
    for name, value in vars(trt).items()
    if isinstance(value, type) and not name.startswith("_")
}
names = sorted(n for n in dir(trt) if not n.startswith("_"))
print(json.dumps({"version": trt.__version__, "names": names, "classes": classes}))
"""


def recorded(wheel: Path) -> dict[str, object]:
    """The names of one wheel."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zipfile.ZipFile(wheel).extractall(folder)
        major = wheel.name.split("-")[1].split(".")[0]
        source = "".join(f"void* {function}(void) {{ return 0; }}\n" for function in FUNCTIONS)
        (folder / "stub.c").write_text(source)
        for library in ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin"):
            target = folder / f"{library}.so.{major}"
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{target.name}"]
            subprocess.run([*command, "-o", target, folder / "stub.c"], check=True)
        environment = {"PYTHONPATH": name, "LD_LIBRARY_PATH": name}
        done = subprocess.run(
            [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
        )
    return dict(json.loads(done.stdout))


def main() -> None:
    """Writes one file a wheel beside this script."""
    for argument in sys.argv[1:]:
        content = recorded(Path(argument))
        path = Path(__file__).with_name(f"tensorrt-{content['version']}.json")
        path.write_text(json.dumps(content, sort_keys=True) + "\n", encoding="utf-8")
        sys.stdout.write(f"{path.name}: {len(str(content))} characters\n")


if __name__ == "__main__":
    main()
