from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from centermask_edge.errors import KernelError
from centermask_edge.kernels import toolchain
from centermask_edge.kernels.arrays import Arena
from centermask_edge.kernels.build import (
    ARCHITECTURES,
    Recipe,
    build,
    cuda_recipe,
    gencode,
    host_recipe,
    source_files,
)
from centermask_edge.kernels.library import Library
from centermask_edge.resources import CACHE_VARIABLE, project_file

needs_nvcc = pytest.mark.skipif(toolchain.find_nvcc() is None, reason="no nvcc")


@pytest.fixture
def small(tmp_path: Path, host: Library, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A host build of nothing but the runtime, in a cache and from sources of its own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    shutil.copytree(project_file("kernels"), tmp_path / "kernels")
    made = host_recipe(tmp_path / "kernels")
    return replace(made, main="src/runtime.cu")


def test_the_second_build_is_the_first(small: Recipe) -> None:
    path = build(small)
    before = path.stat().st_mtime_ns
    assert build(small) == path
    assert path.stat().st_mtime_ns == before
    assert list(path.parent.iterdir()) == [path]


def test_the_name_follows_sources_flags_and_compiler(small: Recipe) -> None:
    keys = {small.key}
    keys.add(replace(small, flags=(*small.flags, "-g")).key)
    keys.add(replace(small, compiler=replace(small.compiler, signature="another")).key)
    keys.add(replace(small, main="src/all.cu").key)
    header = small.sources / "include" / "centermask" / "types.h"
    header.write_text(header.read_text() + "\n")
    keys.add(small.key)
    assert len(keys) == 5


def test_every_source_is_in_the_name(small: Recipe) -> None:
    names = {path.name for path in source_files(small.sources)}
    assert {"types.h", "roi_align.cu", "host_shim.h"} <= names


def test_a_compiler_error_is_one_line_and_leaves_only_the_log(small: Recipe) -> None:
    (small.sources / "src" / "runtime.cu").write_text("int f( { return 1; }\n")
    with pytest.raises(KernelError, match=r"cannot build the kernels: .*runtime.cu.*error") as e:
        build(small)
    assert "\n" not in str(e.value)
    (log,) = small.path.parent.iterdir()
    assert log.suffix == ".log"
    assert str(log) in str(e.value)
    assert "runtime.cu" in log.read_text()


def test_an_interrupted_build_leaves_no_library(
    small: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(small)
    assert list(small.path.parent.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(KernelError, match=r"cannot write the kernels' cache .*name another folder"):
        build(small)


def test_two_builders_at_once_both_get_the_library(small: Recipe) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from dataclasses import replace\n"
        "from centermask_edge.kernels.build import build, host_recipe\n"
        "print(build(replace(host_recipe(Path(sys.argv[1])), main='src/runtime.cu')))"
    )
    command = [sys.executable, "-c", code, str(small.sources)]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate()[0].strip() for process in pair]
    assert answers == [str(small.path)] * 2
    assert list(small.path.parent.iterdir()) == [small.path]


@needs_nvcc
def test_nvcc_builds_every_architecture_without_a_warning(host: Library) -> None:
    recipe = cuda_recipe(ARCHITECTURES)
    command = recipe.command(Path("library.so"))
    assert [a for a in ARCHITECTURES if f"arch=compute_{a}" not in " ".join(command)] == []
    path = build(recipe)  # fails on the first warning
    code = path.read_bytes()
    assert b"cm_roi_align_linear_f16" in code
    library = Library(path)
    with pytest.raises(KernelError, match=r"roi_align failed|device|driver"):
        library.device_name()
        pytest.skip("this machine has a GPU")


@needs_nvcc
def test_nvcc_refuses_what_would_warn(tmp_path: Path, host: Library) -> None:
    shutil.copytree(project_file("kernels"), tmp_path / "kernels")
    source = tmp_path / "kernels" / "src" / "runtime.cu"
    source.write_text(source.read_text() + "\nstatic int nobody_calls_this() { return 1; }\n")
    recipe = replace(cuda_recipe((90,), tmp_path / "kernels"), main="src/runtime.cu")
    with pytest.raises(KernelError, match="nobody_calls_this"):
        build(recipe)


@needs_nvcc
def test_an_architecture_nvcc_does_not_know_is_named() -> None:
    with pytest.raises(KernelError, match=r"no architecture \[42\]; it knows \[.*90"):
        cuda_recipe((42, 90))


def test_machine_code_for_each_and_ptx_for_the_newest() -> None:
    assert gencode((90, 75)) == (
        "-gencode",
        "arch=compute_75,code=sm_75",
        "-gencode",
        "arch=compute_90,code=[sm_90,compute_90]",
    )


@pytest.mark.parametrize(
    ("variable", "find", "message"),
    [
        ("CXX", toolchain.require_host_compiler, "CXX=/nowhere/cc does not run.*apt install g"),
        (toolchain.NVCC_VARIABLE, toolchain.require_nvcc, "NVCC=/nowhere/cc does not run.*nvrtc"),
    ],
)
def test_a_compiler_that_does_not_run_is_named(
    variable: str, find: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "/nowhere/cc")
    assert callable(find)
    with pytest.raises(KernelError, match=message):
        find()


def test_no_compiler_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CXX", "CUDA_HOME", "CUDA_PATH", toolchain.NVCC_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(toolchain, "_USUAL_PLACES", ())
    assert toolchain.find_nvcc() is None
    assert toolchain.find_host_compiler() is None
    with pytest.raises(KernelError, match="no nvcc was found"):
        toolchain.require_nvcc()
    with pytest.raises(KernelError, match="no C\\+\\+ compiler was found"):
        toolchain.require_host_compiler()


def test_the_cuda_folder_comes_before_the_search_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "nvcc"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.6, V12.6.1'\n")
    fake.chmod(0o755)
    monkeypatch.delenv(toolchain.NVCC_VARIABLE, raising=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    found = toolchain.find_nvcc()
    assert found is not None
    assert found.path == fake
    assert "12.6" in found.signature


def test_what_is_no_library_is_told(tmp_path: Path, host: Library) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    with pytest.raises(KernelError, match=r"not a library of these kernels.*kernels build"):
        Library(broken)


def test_another_interface_is_told(small: Recipe) -> None:
    header = small.sources / "include" / "centermask" / "types.h"
    header.write_text(header.read_text().replace("#define CM_ABI 1", "#define CM_ABI 99"))
    with pytest.raises(KernelError, match="has kernel interface 99, 1 is wanted"):
        Library(build(small))


def test_the_device_is_the_host(host: Library) -> None:
    assert (host.device_name(), host.capability()) == ("host", 0)


def test_a_fence_notices_a_stray_write(host: Library) -> None:
    value = np.arange(4, dtype=np.float32)
    one = np.ones(1, np.float32)
    for offset, message in ((-1, "before the start"), (4, "beyond the end")):
        with Arena(host) as arena:
            address = arena.put(value)
            host.upload(address + 4 * offset, one.ctypes.data, 4)
            with pytest.raises(KernelError, match=message):
                arena.get(address, (4,), np.float32)


def test_an_output_starts_as_nan(host: Library) -> None:
    with Arena(host) as arena:
        assert np.isnan(arena.get(arena.new((3, 2), np.float16), (3, 2), np.float16)).all()


def test_the_cache_is_the_tests_own(host: Library) -> None:
    assert str(host.path).startswith(os.environ[CACHE_VARIABLE])
