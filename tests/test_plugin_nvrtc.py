"""The plugin library without a CUDA toolkit: NVRTC's code in it, loaded by a fake driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from centermask_edge.cli import main
from centermask_edge.errors import KernelError
from centermask_edge.kernels.build import build
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.nvrtc import find_nvrtc
from centermask_edge.kernels.plugin import nvrtc_plugin_recipe
from centermask_edge.kernels.toolchain import find_host_compiler
from centermask_edge.resources import project_file

pytestmark = [
    pytest.mark.skipif(find_host_compiler() is None, reason="no C++ compiler"),
    pytest.mark.skipif(find_nvrtc() is None, reason="no NVRTC"),
]

# In a process of its own, because the loader remembers which libcuda it found.
PROGRAM = """
import ctypes, sys
from pathlib import Path
import numpy as np
held = ctypes.CDLL(sys.argv[1])  # as a registry does; the harness closes what it opens
from plugin_driver import drive, tensor
x, w = np.ones((2, 8, 4, 4), np.float32), np.ones((1, 2, 3, 3), np.float32)
y = tensor(x.shape, data=x.ctypes.data)
for _ in range(2):
    inputs = [y, tensor(w.shape, data=w.ctypes.data)]
    outcome = drive(Path(sys.argv[1]), "CMSpatialAttention", {}, inputs, [y])
    print(outcome.step, outcome.heard.strip())
"""


@pytest.fixture(scope="module")
def library(cache: Path) -> Path:
    return build(nvrtc_plugin_recipe((89,)))


def run(library: Path, folder: Path, **extra: str) -> list[str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), **extra}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    command = [sys.executable, "-c", PROGRAM, str(library)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    compiler = find_host_compiler()
    assert compiler is not None
    source = project_file("kernels", "tests", "fake_driver.c")
    command = ["-x", "c", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([compiler.path, *command, "-o", tmp_path / "libcuda.so.1", source], check=True)
    return tmp_path


def test_a_context_loads_the_code_and_launches_by_name(library: Path, driver: Path) -> None:
    log = driver / "log"
    assert run(library, driver, FAKE_DRIVER_LOG=str(log)) == ["done ", "done "]
    lines = log.read_text().splitlines()
    assert sum(line.startswith("load ELF") for line in lines) == 1
    launches = [line.split()[1] for line in lines if line.startswith("launch")]
    assert launches == ["cm_spatial_attention_held_f32"] * 2


def test_a_driver_without_a_gpu_is_told(library: Path, driver: Path) -> None:
    found = run(library, driver, FAKE_DRIVER_BROKEN="1", FAKE_DRIVER_LOG=os.devnull)
    assert found[0].startswith("attach centermask: CMSpatialAttention 'node': its kernels cannot")
    assert "code 100: no CUDA-capable device is detected; build the library" in found[0]


def test_the_command_builds_it(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "build", "--plugin", "--nvrtc", "--arch", "89"]) == 0
    assert str(library) in capsys.readouterr().out


def test_it_is_for_one_gpu(cache: Path) -> None:
    with pytest.raises(KernelError, match="2 architectures were named, and NVRTC builds the plug"):
        nvrtc_plugin_recipe((86, 89))
    if find_gpu() is None:
        with pytest.raises(KernelError, match="no GPU was found, and NVRTC builds the plugins"):
            nvrtc_plugin_recipe()
