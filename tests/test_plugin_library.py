"""The plugin library as a file: its name, its symbols, and what else it needs to be loaded."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from centermask_edge.cli import main
from centermask_edge.errors import KernelError
from centermask_edge.kernels.build import build
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.plugin import plugin_recipe, rtx_alias
from centermask_edge.kernels.toolchain import NVCC_VARIABLE, find_host_compiler, find_nvcc
from centermask_edge.resources import project_file

pytestmark = pytest.mark.skipif(find_host_compiler() is None, reason="no C++ compiler")
needs_nvcc = pytest.mark.skipif(find_nvcc() is None, reason="no nvcc")
needs_nm = pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")

# The C interface of the kernels, which C++ programs may call, and what TensorRT looks for.
EXPORTED = {
    "getCreators",
    "setLoggerFinder",
    "cm_abi",
    "cm_decode_nms",
    "cm_decode_nms_params_size",
    "cm_decode_nms_workspace",
    "cm_device_capability",
    "cm_device_name",
    "cm_error_text",
    "cm_host_configure",
    "cm_mask_overlay",
    "cm_mask_overlay_params_size",
    "cm_memory_alloc",
    "cm_memory_download",
    "cm_memory_free",
    "cm_memory_upload",
    "cm_preprocess",
    "cm_preprocess_fill_tables",
    "cm_preprocess_params_size",
    "cm_preprocess_table_bytes",
    "cm_roi_align",
    "cm_roi_align_params_size",
    "cm_spatial_attention",
    "cm_spatial_attention_params_size",
    "cm_synchronize",
}
SYSTEM = {"libc", "libm", "libstdc++", "libgcc_s", "libdl", "libpthread", "librt"}


def _symbols(path: Path, which: str) -> set[str]:
    done = subprocess.run(["nm", "-D", which, path], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in done.stdout.splitlines()}


def _needed(path: Path) -> set[str]:
    done = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if "(NEEDED)" in line]
    return {line.split("[")[1].split("]")[0] for line in lines}


@pytest.fixture(scope="module", params=["host", pytest.param("cuda", marks=needs_nvcc)])
def library(request: pytest.FixtureRequest, cache: Path) -> Path:
    if request.param == "host":
        return build(plugin_recipe(host=True))
    return build(plugin_recipe(architectures=(86,)))


@needs_nm
def test_it_exports_what_is_meant_and_nothing_else(library: Path) -> None:
    assert _symbols(library, "--defined-only") == EXPORTED


@needs_nm
def test_it_needs_the_system_and_nothing_of_nvidia(library: Path) -> None:
    names = {name.split(".so")[0] for name in _needed(library) if not name.startswith("ld-linux")}
    assert names <= SYSTEM
    missing = {
        name
        for name in _symbols(library, "--undefined-only")
        if "@" not in name and not name.startswith(("_ITM_", "__gmon_start__"))
    }
    assert missing == set()  # all others have a version, and the linker was told to want them


def test_the_kernels_are_in_it(library: Path) -> None:
    assert Library(library).path == library  # its interface is the one expected


def test_it_registers_three_creators(library: Path) -> None:
    handle = ctypes.CDLL(str(library))
    handle.getCreators.restype = ctypes.POINTER(ctypes.c_void_p)
    count = ctypes.c_int32()
    creators = handle.getCreators(ctypes.byref(count))
    assert count.value == 3
    assert all(creators[i] for i in range(3))


def test_its_name_follows_the_plugins_and_the_kernels(tmp_path: Path) -> None:
    shutil.copytree(project_file("kernels"), tmp_path / "kernels")
    keys = {plugin_recipe(host=True, sources=tmp_path / "kernels").key}
    for name in ("plugin/exports.cpp", "plugin/exports.map", "src/roi_align.cu"):
        with (tmp_path / "kernels" / name).open("a") as file:
            file.write("\n")
        keys.add(plugin_recipe(host=True, sources=tmp_path / "kernels").key)
    assert len(keys) == 4


def test_the_command_builds_it(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "build", "--host", "--plugin"]) == 0
    path = plugin_recipe(host=True).path
    assert str(path) in capsys.readouterr().out
    assert path.is_file()
    assert main(["kernels", "status"]) == 0
    assert any(path.name in s and "current" in s for s in capsys.readouterr().out.splitlines())


def test_without_nvcc_the_command_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(NVCC_VARIABLE, "/nowhere/nvcc")
    assert main(["kernels", "build", "--plugin"]) == 2
    said = capsys.readouterr().err
    assert "the TensorRT plugins need one: install the CUDA toolkit" in said
    assert "--host" in said


@needs_nvcc
def test_headers_of_tensorrt_that_are_named_and_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CENTERMASK_EDGE_TENSORRT_INCLUDE", str(tmp_path))
    with pytest.raises(KernelError, match=r"has no NvInferRuntime.h; name the folder"):
        plugin_recipe(architectures=(86,))


@needs_nvcc
def test_headers_that_are_there_replace_our_declaration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """NVIDIA's headers are not here: a stand-in shows that nothing else is reached for."""
    ours = project_file("kernels", "plugin", "trt_interface.h").read_text(encoding="utf-8")
    (tmp_path / "NvInferRuntime.h").write_text(ours, encoding="utf-8")
    monkeypatch.setenv("CENTERMASK_EDGE_TENSORRT_INCLUDE", str(tmp_path))
    shutil.copytree(project_file("kernels"), tmp_path / "kernels")
    (tmp_path / "kernels" / "plugin" / "trt_interface.h").write_text("#error not this one\n")
    recipe = plugin_recipe(architectures=(86,), sources=tmp_path / "kernels")
    assert recipe.flags[-3:] == ("-DCM_NVIDIA_HEADERS", "-isystem", str(tmp_path))
    compiler = plugin_recipe(host=True).compiler.path
    options = ["-std=c++17", "-fsyntax-only", f"-I{tmp_path}/kernels/include", *recipe.flags[-3:]]
    files = [tmp_path / "kernels" / name for name in recipe.others]
    subprocess.run([compiler, *options, *files], check=True)
    without = [o for o in options if o != "-DCM_NVIDIA_HEADERS"]
    refused = subprocess.run([compiler, *without, *files], capture_output=True, text=True)
    assert "not this one" in refused.stderr


@needs_nm
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_cmake_builds_the_same(tmp_path: Path) -> None:
    source = str(project_file("kernels"))
    options = ["-DCM_HOST=ON", "-DCMAKE_BUILD_TYPE=Debug"]
    quiet = {"check": True, "capture_output": True}
    subprocess.run(["cmake", "-S", source, "-B", str(tmp_path), *options], **quiet)  # type: ignore[call-overload]
    subprocess.run(["cmake", "--build", str(tmp_path)], **quiet)  # type: ignore[call-overload]
    made = tmp_path / "libcentermask_plugin.so"
    assert _symbols(made, "--defined-only") == EXPORTED
    assert Library(made).device_name() == "host"


def test_the_alias_needs_the_library_and_has_its_unversioned_name(tmp_path: Path) -> None:
    real = tmp_path / "libtensorrt_rtx.so.1"
    command = ["c++", "-shared", "-fPIC", "-x", "c++", os.devnull, "-o", str(real)]
    subprocess.run([*command, "-Wl,-soname,libtensorrt_rtx.so.1"], check=True)
    alias = rtx_alias(real)
    assert rtx_alias(real) == alias
    assert "libtensorrt_rtx.so.1" in _needed(alias)
    dump = subprocess.run(["readelf", "-d", alias], capture_output=True, text=True, check=True)
    assert "soname: [libtensorrt_rtx.so]" in dump.stdout


def test_an_alias_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"does not exist, and TensorRT-RTX needs it; install"):
        rtx_alias(tmp_path / "libtensorrt_rtx.so.1")
