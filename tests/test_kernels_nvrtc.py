"""The route without a CUDA toolkit: NVRTC's machine code, and launches through a fake driver."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from centermask_edge.errors import KernelError
from centermask_edge.kernels.nvrtc import OPTIONS, Nvrtc, cubin, find_nvrtc
from centermask_edge.kernels.toolchain import find_host_compiler
from centermask_edge.resources import project_file

# What a program sees that launches on a GPU without nvcc; run in a process of its own, because
# the loader remembers which libcuda it found.
PROGRAM = """
import ctypes, os, sys
os.environ["PATH"] = os.environ["PATH_WITHOUT_NVCC"]
from centermask_edge.kernels import toolchain
toolchain._USUAL_PLACES = ()
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.library import load_cuda
from centermask_edge.kernels.spatial_attention import spatial_attention
from centermask_edge.errors import KernelError
import numpy as np
print(find_gpu())
try:
    library = load_cuda()
except KernelError as error:
    sys.exit(str(error))
print(library.device_name(), library.capability())
x = np.ones((3, 128, 14, 14), np.float32)
spatial_attention(library, x, np.ones((1, 2, 3, 3), np.float32))
spatial_attention(library, x.astype(np.float16), np.ones((1, 2, 3, 3), np.float32), pack=128)
"""


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    found = find_nvrtc()
    if found is None:
        pytest.skip("no NVRTC")
    return found


@pytest.fixture
def driver(tmp_path: Path, cache: Path, nvrtc: Nvrtc) -> dict[str, str]:
    """Environment of a machine with a GPU driver, a C++ compiler and no nvcc.

    The machine code is in the cache already: NVRTC itself asks the driver, and the fake one has
    no answers for it.
    """
    cubin(nvrtc, 89)
    compiler = find_host_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path / "libcuda.so.1"
    source = project_file("kernels", "tests", "fake_driver.c")
    command = ["-x", "c", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library)]
    subprocess.run([compiler.path, *command, source], check=True)
    return {
        "LD_LIBRARY_PATH": str(tmp_path),
        "FAKE_DRIVER_LOG": str(tmp_path / "log"),
        "CENTERMASK_EDGE_CACHE": str(cache),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PATH_WITHOUT_NVCC": "/usr/bin:/bin",
        "CXX": str(compiler.path),
    }


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_launches_go_to_the_driver_by_name(driver: dict[str, str]) -> None:
    done = run(driver)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Gpu(name='Fake GPU', capability=89, driver='13.0')",
        "Fake GPU 89",
    ]
    log = Path(driver["FAKE_DRIVER_LOG"]).read_text().splitlines()
    assert "load ELF" in " ".join(log)
    launches = [line.split() for line in log if line.startswith("launch")]
    assert [line[1] for line in launches] == [
        # fp32 needs 98 KiB and the maps beside it, more than this GPU's 99 KiB.
        "cm_spatial_attention_twice_f32",
        "cm_spatial_attention_held_f16",
    ]
    assert [line[2:8] for line in launches] == [["3", "1", "1", "512", "1", "1"]] * 2
    held = int(launches[1][8])
    assert held > 128 * 14 * 14 * 2
    assert f"attribute cm_spatial_attention_held_f16 8 {held}" in log
    assert all(line[-1] == "1" for line in launches)


def test_a_machine_without_a_gpu_is_told_so(driver: dict[str, str]) -> None:
    done = run({**driver, "FAKE_DRIVER_BROKEN": "1"})
    assert done.returncode == 1
    assert done.stdout == "None\n"
    assert "no CUDA-capable device is detected" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_machine_without_a_driver_is_told_so(driver: dict[str, str], tmp_path: Path) -> None:
    done = run({**driver, "LD_LIBRARY_PATH": str(tmp_path / "nowhere")})
    if done.stdout != "None\n":
        pytest.skip("this machine has a driver")
    assert done.returncode == 1
    assert "libcuda.so.1) is missing" in done.stderr


@pytest.mark.parametrize("architecture", [75, 90, 120])
def test_every_kernel_is_in_the_machine_code(nvrtc: Nvrtc, architecture: int) -> None:
    path = cubin(nvrtc, architecture)
    code = path.read_bytes()
    assert code[:4] == b"\x7fELF"
    launched = set()
    for source in project_file("kernels", "src").glob("*.cu"):
        text = re.sub(r"//[^\n]*|#define[^\n]*(\\\n[^\n]*)*", "", source.read_text())
        launched |= set(re.findall(r"CM_LAUNCH\(\s*(\w+)", text))
    assert len(launched) >= 14
    assert [name for name in launched if name.encode() not in code] == []
    before = path.stat().st_mtime_ns
    assert cubin(nvrtc, architecture).stat().st_mtime_ns == before


def test_a_source_that_does_not_compile_is_one_line(nvrtc: Nvrtc, tmp_path: Path) -> None:
    source = tmp_path / "broken.cu"
    source.write_text('extern "C" __global__ void f() { nonsense; }')
    with pytest.raises(KernelError, match=r"cannot build the kernels: broken.cu\(1\): error") as e:
        nvrtc.compile(source, ["-arch=sm_90", *OPTIONS])
    assert "\n" not in str(e.value)


def test_an_unknown_architecture_is_one_line(nvrtc: Nvrtc) -> None:
    with pytest.raises(KernelError, match="gpu-architecture"):
        cubin(nvrtc, 1)
