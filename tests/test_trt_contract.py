"""What we call of TensorRT and of cuda-bindings exists there, in every version we support.

The wheels of TensorRT's bindings install without the libraries (``make test`` puts them into
``.venv/contract/VERSION``). They need nine functions of those libraries to load and none to be
looked at, so a child process loads them against stubs and lists what they have.
"""

from __future__ import annotations

import ast
import enum
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import fake_cuda
import fake_tensorrt
import pytest

from centermask_edge.kernels.toolchain import find_host_compiler
from centermask_edge.resources import cache_dir

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "centermask_edge" / "engines" / "tensorrt"
VERSIONS = ("10.3.0", "10.16.1.11", "11.4.0.106")
RTX = "1.7.1.116"
ALL = [*VERSIONS, f"rtx-{RTX}"]

STUB = """
#define STUB(name) void *name(void) { return 0; }
STUB(createInferBuilder_INTERNAL) STUB(createInferRefitter_INTERNAL)
STUB(createInferRuntime_INTERNAL) STUB(createNvOnnxParserRefitter_INTERNAL)
STUB(createNvOnnxParser_INTERNAL) STUB(getBuilderPluginRegistry) STUB(getNvOnnxParserVersion)
STUB(getPluginRegistry) STUB(initLibNvInferPlugins)
"""
LISTING = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
def entry(value):
    if not isinstance(value, type):
        return {"doc": value.__doc__ or ""}
    names = [n for n in dir(value) if not n.startswith("__") or n == "__init__"]
    members = {n: (getattr(value, n).__doc__ or "") for n in names}
    numbers = {n: int(getattr(value, n)) for n in names if isinstance(getattr(value, n), value)}
    return {"doc": value.__doc__ or "", "members": members, "numbers": numbers}
content = {n: entry(getattr(trt, n)) for n in dir(trt) if not n.startswith("_")}
print(json.dumps({"version": trt.__version__, "names": content}))
"""

# Which TensorRT class a variable of ours holds, by file. A file that uses the bindings and is not
# here fails test_every_file_that_uses_the_bindings_is_known.
HOLDS: dict[str, dict[str, str]] = {
    "api.py": {},
    "network.py": {"_engine": "ICudaEngine", "engine": "ICudaEngine", "_runtime": "Runtime",
                   "context": "IExecutionContext"},
    "targets.py": {},
    "lane.py": {"_context": "IExecutionContext"},
    "builder_process.py": {
        "builder": "Builder", "network": "INetworkDefinition", "config": "IBuilderConfig",
        "parser": "OnnxParser", "profile": "IOptimizationProfile", "engine": "ICudaEngine",
        "inspector": "EngineInspector",
    },
}  # fmt: skip

# Where the first exists, the others do: TensorRT-RTX only.
COMPANIONS = {"num_compute_capabilities": {"ComputeCapability", "set_compute_capability"}}
# Used after the flavour was asked for.
RTX_ONLY = {("targets.py", "ComputeCapability")}
# Called with so many arguments, in places that the table above does not see.
CALLED = (
    ("Runtime", "__init__", 1),
    ("Runtime", "deserialize_cuda_engine", 1),
    ("Builder", "__init__", 1),
    ("OnnxParser", "__init__", 2),
    ("ILogger", "__init__", 0),
    ("IPluginRegistry", "load_library", 1),
    ("ParserError", "desc", 0),
    ("ITimingCache", "serialize", 0),
)
# Gone in TensorRT 11; a build that uses one of them works until then.
REMOVED = {
    "BuilderFlag": {"FP16", "BF16", "FP8", "INT8", "INT4", "OBEY_PRECISION_CONSTRAINTS"},
    "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH"},
    "ILayer": {"precision", "set_output_type"},
    "ITensor": {"dynamic_range", "set_dynamic_range"},
    "IPluginRegistry": {"get_plugin_creator"},
    "OnnxParser": {"supports_model"},
}
REMOVED_CLASSES = {"IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator", "QuantizationFlag"}


@cache
def stubs() -> Path:
    """A folder with libraries that TensorRT's bindings load, all empty."""
    compiler = find_host_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = cache_dir() / "stubs"  # of the tests, which goes with them
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        for major in (10, 11):
            name = f"lib{part}.so.{major}"
            command = [str(compiler.path), "-x", "c", "-", "-shared", "-fPIC"]
            command += [f"-Wl,-soname,{name}", "-o", str(folder / name)]
            subprocess.run(command, input=STUB, text=True, check=True)
    return folder


@cache
def listing(version: str) -> dict[str, Any]:
    """Names, members and signatures of one version's bindings."""
    environment = dict(os.environ)
    if version.startswith("rtx-"):
        module = "tensorrt_rtx_bindings"
        pytest.importorskip(module, reason="TensorRT-RTX is not installed (dev extra, x86-64)")
    else:
        module = "tensorrt_bindings"
        folder = ROOT / ".venv" / "contract" / version
        if not (folder / module).is_dir():
            pytest.skip(f"the bindings of TensorRT {version} are not in {folder.name}: make test")
        environment |= {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(stubs())}
    done = subprocess.run(
        [sys.executable, "-c", LISTING, module], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["version"] == version.removeprefix("rtx-")
    names: dict[str, Any] = found["names"]
    return names


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCES.glob("*.py")):
        yield path.name, ast.parse(path.read_text(encoding="utf-8"))


def is_bindings(node: ast.AST) -> bool:
    """``trt``, ``api.trt`` or ``self._trt``."""
    return (isinstance(node, ast.Name) and node.id == "trt") or (
        isinstance(node, ast.Attribute) and node.attr in ("trt", "_trt")
    )


def guarded(tree: ast.Module) -> set[str]:
    """Names that a file asks for before it uses them, and what comes with these."""
    asked = {
        call.args[1].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("hasattr", "getattr")
        and isinstance(call.args[1], ast.Constant)
        and isinstance(call.args[1].value, str)
    }
    return asked.union(*(COMPANIONS.get(name, set()) for name in asked))


def used_names(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    """``trt.A`` as (A, None) and ``trt.A.B`` as (A, B)."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        if is_bindings(node.value):
            yield node.attr, None
        elif isinstance(node.value, ast.Attribute) and is_bindings(node.value.value):
            yield node.value.attr, node.attr


def used_members(file: str, tree: ast.Module) -> Iterator[tuple[str, str, int | None]]:
    """Class, member and, for a call, the number of its arguments; -1 where it is unpacked."""
    calls = {id(n.func): n for n in ast.walk(tree) if isinstance(n, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        holder = node.value
        name = holder.id if isinstance(holder, ast.Name) else getattr(holder, "attr", "")
        own = isinstance(holder, ast.Attribute) and isinstance(holder.value, ast.Name)
        if (isinstance(holder, ast.Name) or own) and name in HOLDS.get(file, {}):
            call = calls.get(id(node))
            count = None
            if call is not None:
                unpacked = any(isinstance(a, ast.Starred) for a in call.args)
                count = -1 if unpacked else len(call.args) + len(call.keywords)
            yield HOLDS[file][name], node.attr, count


def accepts(doc: str, count: int) -> bool:
    """Whether one of the overloads in a docstring of pybind11 takes so many arguments."""
    for line in doc.splitlines():
        match = re.match(r"(?:\d+\. )?\w+\(self(?:: [^,)]*)?(?:, )?(.*)\) -> ", line.strip())
        if match is None:
            continue
        depth, parts = 0, [""]
        for character in match[1]:
            depth += {"[": 1, "(": 1, "<": 1, "]": -1, ")": -1, ">": -1}.get(character, 0)
            if character == "," and depth == 0:
                parts.append("")
            else:
                parts[-1] += character
        parts = [p for p in parts if p.strip() and p.strip() not in ("*", "/")]
        if any(p.strip().startswith("*") for p in parts):
            continue
        if len([p for p in parts if "=" not in p]) <= count <= len(parts):
            return True
    return False


@pytest.mark.parametrize("version", ALL)
def test_every_name_of_the_bindings_exists(version: str) -> None:
    names = listing(version)
    missing = []
    for file, tree in sources():
        asked = guarded(tree)
        for name, member in used_names(tree):
            if {name, member} & asked or ((file, name) in RTX_ONLY and "rtx" not in version):
                continue
            if name not in names or (member and member not in names[name].get("members", ())):
                missing.append(f"{file}: trt.{name}" + (f".{member}" if member else ""))
    assert missing == []


def test_every_guarded_name_exists_somewhere() -> None:
    everywhere: set[str] = set()
    for version in ALL:
        for name, entry in listing(version).items():
            everywhere |= {name, *entry.get("members", ())}
    for file, tree in sources():
        used = {n for pair in used_names(tree) for n in pair if n}
        unknown = (guarded(tree) & used) - everywhere
        assert unknown == set(), file


@pytest.mark.parametrize("version", ALL)
def test_every_method_exists_and_takes_our_arguments(version: str) -> None:
    names = listing(version)
    wrong, checked = [], set()
    for file, tree in sources():
        asked = guarded(tree)
        for kind, member, count in used_members(file, tree):
            checked.add((kind, member))
            members = names[kind]["members"]
            if member in asked:
                continue
            if member not in members:
                wrong.append(f"{file}: {kind}.{member} does not exist")
            elif count is not None and count >= 0 and not accepts(members[member], count):
                wrong.append(f"{file}: {kind}.{member} with {count} arguments")
    assert wrong == []
    assert {
        ("IExecutionContext", "execute_async_v3"),
        ("ICudaEngine", "get_tensor_name"),
    } <= checked
    for kind, member, count in CALLED:
        assert accepts(names[kind]["members"][member], count), f"{kind}.{member}({count})"


def test_every_file_that_uses_the_bindings_is_known() -> None:
    for file, tree in sources():
        if any(used_names(tree)):
            assert file in HOLDS, file


@pytest.mark.parametrize("version", ALL)
def test_the_fake_has_nothing_that_the_bindings_have_not(version: str) -> None:
    names = listing(version)
    classes = ("DataType", "TensorIOMode", "TensorLocation", "ILogger", "Runtime", "ICudaEngine",
               "IExecutionContext")  # fmt: skip
    for name in classes:
        fake = getattr(fake_tensorrt, name)
        own = {n for n, v in vars(fake).items() if callable(v) or isinstance(v, property)}
        own |= {m.name for m in fake} if issubclass(fake, enum.Enum) else set()
        public = {n for n in own if not n.startswith("_")}
        assert public <= set(names[name]["members"]), name
        for member in public & set(names[name]["numbers"]):
            assert getattr(fake, member).value == names[name]["numbers"][member], (name, member)


def test_what_tensorrt_11_removed_is_gone_there_and_not_used() -> None:
    newest, oldest = listing("11.4.0.106"), listing("10.3.0")
    for kind, members in REMOVED.items():
        assert members & set(newest[kind]["members"]) == set(), kind
        assert members & set(oldest[kind]["members"]), kind
    assert REMOVED_CLASSES & set(newest) == set() and set(oldest) >= REMOVED_CLASSES
    for file, tree in sources():
        for name, member in used_names(tree):
            assert name not in REMOVED_CLASSES, file
            assert member not in REMOVED.get(name, set()), file
        for kind, member, _ in used_members(file, tree):
            assert member not in REMOVED.get(kind, set()), file


@pytest.mark.parametrize("version", VERSIONS)
def test_a_network_with_our_plugins_can_be_built(version: str) -> None:
    """What a user calls who does without the ONNX parser: creator, fields, add_plugin_v3."""
    names = listing(version)
    for kind, member, count in (
        ("IPluginRegistry", "load_library", 1),
        ("IPluginRegistry", "get_creator", 3),
        ("IPluginCreatorV3One", "create_plugin", 3),
        ("PluginField", "__init__", 3),
        ("PluginFieldCollection", "__init__", 1),
        ("INetworkDefinition", "add_plugin_v3", 3),
        ("INetworkDefinition", "mark_output", 1),
        ("Builder", "create_network", 1),
        ("Builder", "build_serialized_network", 2),
    ):
        assert accepts(names[kind]["members"][member], count), f"{kind}.{member}({count})"
    assert "BUILD" in names["TensorRTPhase"]["members"]


def driver() -> Any:
    return pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")


def parameters(function: Any) -> list[str]:
    """Names of the parameters, from the docstring's first line."""
    match = re.match(r"\w+\((.*)\)", function.__doc__.splitlines()[0])
    assert match is not None, function
    parts = [p.split(":")[0].split() for p in match[1].split(",") if p.strip()]
    return [words[-1].lstrip("*") for words in parts]


def test_every_call_of_the_driver_exists_with_our_arguments() -> None:
    found = driver()
    tree = ast.parse((SOURCES / "cuda.py").read_text(encoding="utf-8"))
    called = {}
    for node in ast.walk(tree):
        function = node.func if isinstance(node, ast.Call) else None
        if isinstance(function, ast.Attribute) and function.attr.startswith("cu"):
            assert isinstance(node, ast.Call)
            called[function.attr] = len(node.args)
    assert len(called) > 25
    for name, count in called.items():
        assert len(parameters(getattr(found, name))) == count, name
    for node in ast.walk(tree):
        enumeration = node.value if isinstance(node, ast.Attribute) else None
        if isinstance(enumeration, ast.Attribute) and enumeration.attr.startswith("CU"):
            assert isinstance(node, ast.Attribute)
            assert hasattr(getattr(found, enumeration.attr), node.attr), node.attr
    assert set(called) <= set(vars(fake_cuda.Driver)), "the fake has them all"


def test_the_fake_driver_is_like_the_real_one() -> None:
    found = driver()
    for name, function in vars(fake_cuda.Driver).items():
        if name.startswith("cu") and callable(function):
            ours = list(inspect.signature(function).parameters)[1:]
            theirs = parameters(getattr(found, name))
            assert ours == theirs, name
    for name in ("CUresult", "CUstream_flags", "CUevent_flags", "CUstreamCaptureMode"):
        for member in getattr(fake_cuda, name):
            assert int(getattr(getattr(found, name), member.name)) == member.value, member


def test_the_real_driver_says_that_there_is_no_gpu() -> None:
    """Also what the binding raises where there is no libcuda at all."""
    from centermask_edge.engines.tensorrt.cuda import Gpu, GpuError
    from centermask_edge.kernels.device import find_gpu

    driver()
    if find_gpu() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(GpuError, match=r"no NVIDIA GPU.*--engine openvino"):
        Gpu()


def test_the_checks_see_what_is_wrong() -> None:
    doc = "f(*args)\n\n1. f(self: m.T, a: list[int, int], b: int = <A.B: 1>) -> bool\n"
    assert [accepts(doc, n) for n in range(4)] == [False, True, True, False]
    tree = ast.parse("def f(api):\n    api.trt.BuilderFlag.FP16\n    trt.Nothing\n")
    assert set(used_names(tree)) == {
        ("BuilderFlag", None), ("BuilderFlag", "FP16"), ("Nothing", None)
    }  # fmt: skip
    tree = ast.parse("self._context.execute_v9(1, 2)")
    assert list(used_members("lane.py", tree)) == [("IExecutionContext", "execute_v9", 2)]
