"""From words to an engine: sizes, targets, memory, and every error before anything is built."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_model
from onnx import numpy_helper
from test_trt_api import request as build_request
from trt_cases import people
from trt_fake import fake_tensorrt

from centermask_edge import cli
from centermask_edge.engines.tensorrt import build as build_module
from centermask_edge.engines.tensorrt import child, memory, targets
from centermask_edge.engines.tensorrt.api import Api, Flavor
from centermask_edge.engines.tensorrt.manifest import Precision, Range
from centermask_edge.engines.tensorrt.memory import Estimate, check, estimate
from centermask_edge.engines.tensorrt.plugins import kernels_key
from centermask_edge.engines.tensorrt.prepared import at_precision, load_model
from centermask_edge.engines.tensorrt.shapes import parse_batch, parse_size
from centermask_edge.engines.tensorrt.targets import choose_target, parse_targets
from centermask_edge.errors import ConfigError, KernelError, ModelFileError
from centermask_edge.graph.sizes import Footprint
from centermask_edge.kernels.device import Gpu
from centermask_edge.resources import shipped_model

ONE = Range(min=1, opt=1, max=1)
ORIN, ADA = Gpu("Orin", 87, "12.6"), Gpu("RTX 4090", 89, "13.0")


def api(flavor: Flavor) -> Api:
    if flavor is Flavor.TENSORRT:
        return Api(flavor, fake_tensorrt("10.3.0")[0], "10.3.0")
    known = SimpleNamespace(SM86=0, SM89=1, SM120=2, CURRENT=3, NONE=4)
    return Api(flavor, SimpleNamespace(ComputeCapability=known), "1.7.1")


# --- shapes ---


def test_batches() -> None:
    assert parse_batch("4") == Range(min=4, opt=4, max=4)
    assert parse_batch(" 1, 2 ,8") == Range(min=1, opt=2, max=8)


@pytest.mark.parametrize("text", ["", "0", "1,2", "a", "4,2,8", "1,2,65", "-1", "1,2,3,4"])
def test_impossible_batches(text: str) -> None:
    with pytest.raises(ConfigError, match="--batch"):
        parse_batch(text)


@pytest.mark.parametrize(
    ("text", "height", "width", "short", "long"),
    [
        (None, (64, 64, 64), (128, 128, 128), 64, 128),
        ("64", (64, 64, 64), (128, 128, 128), 64, 128),
        ("128", (128, 128, 128), (256, 256, 256), 128, 256),
        ("100x200", (128, 128, 128), (224, 224, 224), 128, 224),
        ("200X100", (224, 224, 224), (128, 128, 128), 128, 224),
        ("64x128", (64, 64, 64), (128, 128, 128), 64, 128),
        ("64,96,128", (64, 96, 128), (128, 192, 256), 96, 192),
        ("64x64,64x128,96x128", (64, 64, 96), (64, 128, 128), 64, 128),
    ],
)
def test_sizes(
    text: str | None, height: tuple[int, ...], width: tuple[int, ...], short: int, long: int
) -> None:
    shapes, metadata = parse_size(text, ONE, tiny_model.metadata())
    assert (shapes.height.min, shapes.height.opt, shapes.height.max) == height
    assert (shapes.width.min, shapes.width.opt, shapes.width.max) == width
    preprocess = metadata.preprocess
    assert (preprocess.short_side, preprocess.long_side) == (short, long)
    assert shapes.fixed == (height[0] == height[2] and width[0] == width[2])


def test_without_a_size_the_record_stays_as_it_is() -> None:
    assert parse_size(None, ONE, tiny_model.metadata())[1] == tiny_model.metadata()


@pytest.mark.parametrize(
    "text", ["", "x", "64x", "64,96", "16", "8192x64", "96,64,128", "1e3", "-64"]
)
def test_impossible_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="--size"):
        parse_size(text, ONE, tiny_model.metadata())


# --- targets ---


def test_target_names() -> None:
    assert parse_targets(None) == parse_targets("this") == ()
    assert parse_targets("sm120, SM_86,89,86") == (86, 89, 120)
    for text in ("", "ada", "sm8", "sm86;sm89", "sm86,"):
        with pytest.raises(ConfigError, match="--target"):
            parse_targets(text)


def test_this_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "find_gpu", lambda: ORIN)
    found = choose_target(api(Flavor.TENSORRT), ())
    assert (found.capabilities, found.gpu, found.driver) == ((87,), "Orin", "12.6")
    assert found.on_this_gpu and choose_target(api(Flavor.TENSORRT), (87,)) == found
    with pytest.raises(ConfigError, match="for the GPU of this machine only"):
        choose_target(api(Flavor.TENSORRT), (89,))
    with pytest.raises(ConfigError, match=r"does not run on Orin \(sm_87\).*--flavor tensorrt"):
        choose_target(api(Flavor.RTX), ())
    monkeypatch.setattr(targets, "find_gpu", lambda: ADA)
    assert choose_target(api(Flavor.RTX), ()).capabilities == (89,)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "find_gpu", lambda: None)
    with pytest.raises(ConfigError, match=r"no GPU with a driver was found.*--flavor rtx --target"):
        choose_target(api(Flavor.TENSORRT), ())
    with pytest.raises(ConfigError, match="--target sm86,sm89,sm120"):
        choose_target(api(Flavor.RTX), ())
    ahead = choose_target(api(Flavor.RTX), (86, 120))
    assert ahead.capabilities == (86, 120) and not ahead.on_this_gpu
    with pytest.raises(ConfigError, match="cannot build for sm87; it knows sm86, sm89, sm120"):
        choose_target(api(Flavor.RTX), (86, 87))


# --- memory ---


def test_an_estimate_has_parts() -> None:
    found = estimate(Flavor.RTX, Footprint(weights=10 << 20, activations=100 << 20), 256)
    assert found == Estimate(memory.BASE_MIB[Flavor.RTX], 40, 200, 256)
    assert found.total == sum((found.base, 40, 200, 256))


def test_a_build_that_will_not_fit_says_what_to_lower() -> None:
    check(Estimate(100, 1, 1, 1), 103)
    check(Estimate(100, 1, 1, 1), None)
    with pytest.raises(ConfigError, match=r"about 1601 MiB .* 1000 MiB are free.*lower --batch"):
        check(Estimate(100, 1, 1000, 500), 1000)
    with pytest.raises(ConfigError, match="lower --workspace"):
        check(Estimate(100, 1, 10, 5000), 1000)


def test_free_memory_with_swap_and_a_containers_limit(tmp_path: Path) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 9999 kB\nMemAvailable:  2048000 kB\nSwapFree: 1024000 kB\n")
    assert memory._meminfo(info) == 3000
    assert memory._meminfo(tmp_path / "none") is None
    (tmp_path / "memory.max").write_text("1073741824\n")
    (tmp_path / "memory.current").write_text("73741824\n")
    assert memory._container_limit(tmp_path) == 953
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._container_limit(tmp_path) is None
    found = memory.free_memory_mib()
    assert found is None or found > 0


# --- the model ---


def test_int8_needs_a_quantized_model_and_others_must_not_be(tmp_path: Path) -> None:
    path = tiny_model.save(tmp_path / "tiny.onnx")
    model, metadata = load_model(path)
    assert metadata == tiny_model.metadata()
    with pytest.raises(ModelFileError, match=r"no QuantizeLinear.*centermask-edge quantize tiny"):
        at_precision(model, Precision.INT8, path)
    assert at_precision(model, Precision.FP32, path) is model
    quantize = onnx.helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"], "q")
    model.graph.node.append(quantize)
    with pytest.raises(ModelFileError, match="is quantized and --precision fp16 would not change"):
        at_precision(model, Precision.FP16, path)


def test_the_kernels_key_is_of_the_sources_alone() -> None:
    assert kernels_key() == kernels_key() and len(kernels_key()) == 16


# --- the child, without TensorRT ---


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Another module in the child's place."""
    (folder / "stand_in.py").write_text(code)
    monkeypatch.setattr(child, "MODULE", "stand_in")
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("import sys; sys.exit(3)", ModelFileError, "ended with exit code 3 before"),
        ("import os; os.abort()", ModelFileError, r"crashed inside TensorRT \(SIGABRT\)"),
        ("import os; os.kill(os.getpid(), 9)", ModelFileError, r"killed \(SIGKILL\).*memory ran"),
        ('print(\'{"event": "done"\', end="")', ModelFileError, "exit code 0 before the engine"),
        (
            'import sys; print(\'{"event": "error", "kind": "KernelError", "message": "m"}\');'
            "sys.exit(2)",
            KernelError,
            "^m; the whole log is in",
        ),
        (
            'import sys; print(\'{"event": "error", "kind": "require", "message": "m"}\')',
            ModelFileError,
            "^m",
        ),
    ],
)
def test_however_the_child_ends(
    code: str, kind: type, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, tmp_path, code)
    wanted = build_request(tmp_path)
    Path(wanted.log).touch()
    with pytest.raises(kind, match=message) as caught:
        child.run(wanted)
    assert wanted.log in str(caught.value)


def test_a_builder_that_fails_in_python_leaves_a_traceback_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import sys
from types import ModuleType
module = ModuleType("tensorrt")
module.__version__, module.ILogger = "10.9.0", object
module.Builder = lambda logger: 1 / 0
sys.modules["tensorrt"] = module
from centermask_edge.engines.tensorrt.builder_process import main
sys.exit(main())
"""
    stand_in(monkeypatch, tmp_path, code)
    wanted = build_request(tmp_path)
    with pytest.raises(ModelFileError, match="failed with ZeroDivisionError: division by zero"):
        child.run(wanted)
    assert "Traceback" in Path(wanted.log).read_text()


def test_a_finished_child_reports_progress_and_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import json, sys
json.loads(sys.stdin.read())["model"]
print(json.dumps({"event": "progress", "phase": "p", "step": 1, "steps": 2}), flush=True)
print("no json")
print(json.dumps({"event": "done", "seconds": 1.5, "weight_bytes": 7, "more": 1}))
"""
    stand_in(monkeypatch, tmp_path, code)
    seen: list[tuple[str, int, int]] = []
    answer = child.run(build_request(tmp_path), lambda *step: seen.append(step))
    assert answer == child.Answer(1.5, 0, 7) and seen == [("p", 1, 2)]


def test_the_child_imports_neither_onnx_nor_torch() -> None:
    import subprocess

    code = (
        "import sys, centermask_edge.engines.tensorrt.builder_process;"
        "print(sorted({'onnx', 'torch', 'tensorrt', 'tensorrt_rtx_bindings'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the command ---


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["build", *words]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1, text
    return text


def test_wrong_words_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = str(tiny_model.save(tmp_path / "tiny.onnx"))
    (tmp_path / "text.onnx").write_text("no model")
    assert "model file not found" in fails(capsys, "none.onnx")
    assert "not a valid ONNX file" in fails(capsys, "text.onnx")
    assert "--workspace 0: wanted 1" in fails(capsys, tiny, "--workspace", "0")
    assert "--flavor" in fails(capsys, tiny, "--flavor", "directml")
    assert "--precision" in fails(capsys, tiny, "--precision", "fp8")
    assert "--target 'ada'" in fails(capsys, tiny, "--target", "ada")
    assert "--batch '0'" in fails(capsys, tiny, "--batch", "0")
    calibrate = ("--calibrate", "nowhere")
    assert "wanted a folder" in fails(capsys, tiny, *calibrate)
    assert "makes int8" in fails(capsys, tiny, "--precision", "fp16", *calibrate)
    assert "quantize it first" in fails(capsys, tiny, "--precision", "int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.onnx", "tiny.onnx"]


def test_too_little_memory_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_model.save(tmp_path / "tiny.onnx")
    monkeypatch.setattr(build_module, "find_api", lambda flavor: api(Flavor.RTX))
    monkeypatch.setattr(memory, "free_memory_mib", lambda: 100)
    words = (str(tiny), "--target", "sm86", "--workspace", "2000")
    text = fails(capsys, *words)
    assert "100 MiB are free" in text and "--ignore-memory" in text
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]

    def reached(*arguments: Any, **keywords: Any) -> None:
        raise KernelError("the plugins were asked for")

    monkeypatch.setattr(build_module, "find_plugins", reached)
    assert "the plugins were asked for" in fails(capsys, *words, "--ignore-memory")


def test_a_probe_names_the_activation_that_leaves_fp16(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "pictures").mkdir()
    image.fromarray(people()[1][..., ::-1]).save(tmp_path / "pictures" / "people.png")
    model = onnx.load(shipped_model())
    stem = next(node for node in model.graph.node if node.name.endswith("stem/conv/Conv"))
    bias = next(t for t in model.graph.initializer if t.name == stem.input[2])
    # Two of them together pass the limit, which no weight alone does.
    values = np.full(tuple(bias.dims), 65500, np.float32)
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, tmp_path / "loud.onnx")
    words = (str(tmp_path / "loud.onnx"), "--target", "sm86")
    text = fails(capsys, *words, "--probe", str(tmp_path / "pictures"))
    assert "leave the range of fp16 (65504)" in text and stem.output[0] in text
    assert "wanted a folder" in fails(capsys, *words, "--probe", "nowhere")
    assert not list(tmp_path.glob("*.engine"))


def test_inspect_of_nothing_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["inspect", str(tmp_path / "a.engine")]) == 2
    assert "engine not found" in capsys.readouterr().err
    (tmp_path / "a.engine").touch()
    assert cli.main(["inspect", str(tmp_path / "a.engine")]) == 2
    assert "has no manifest" in capsys.readouterr().err
