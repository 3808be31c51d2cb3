"""What the figures belong to: the GPU, the versions, the build and what ptxas made of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from centermask_edge.errors import KernelError
from centermask_edge.kernels.build import cuda_recipe
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.library import Library, load_cuda
from centermask_edge.kernels.nvrtc import prefers_nvrtc
from centermask_edge.kernels.toolchain import find_nvcc

Result = dict[str, Any]
_FUNCTION = re.compile(
    r"Function (cm_\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", re.MULTILINE
)


def load_native() -> Library:
    """The kernels for the present GPU alone, which builds in seconds; for all it may be, if not.

    Raises:
        KernelError: there is no compiler, or it refuses.
    """
    gpu = find_gpu()
    if gpu is not None:
        try:
            return load_cuda((gpu.capability,))
        except KernelError as error:  # a GPU newer than this nvcc takes the PTX of the fat build
            sys.stderr.write(f"not built for this GPU alone: {error}\n")
    return load_cuda()


def environment(library: Library, loaded_s: float) -> Result:
    """Names and versions; None where something is not there."""
    gpu, nvcc = find_gpu(), find_nvcc()
    version = re.search(r"V(\d[\d.]+)", nvcc.signature) if nvcc else None
    return {
        "gpu": library.device_name(),
        "capability": library.capability(),
        "driver": _driver(),
        "driver_cuda": gpu.driver if gpu else None,
        "nvcc": version[1] if version else None,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "kernels": library.path.name,
        "kernels_loaded_s": round(loaded_s, 1),  # built and loaded; next to nothing from the cache
    }


def _driver() -> str | None:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    words = done.stdout.split()
    return words[0] if words else None


def fat_build(limit_s: float) -> Result:
    """Seconds that nvcc takes for all architectures, in a folder of its own."""
    if limit_s < 60:
        return {"skipped": "no time left"}
    if prefers_nvrtc():
        return {"skipped": "there is no nvcc"}
    try:
        recipe = cuda_recipe()
        with tempfile.TemporaryDirectory() as folder:
            output, start = Path(folder) / "fat.so", time.monotonic()
            subprocess.run(recipe.command(output), capture_output=True, timeout=limit_s, check=True)
            seconds = round(time.monotonic() - start, 1)
            return {"seconds": seconds, "bytes": output.stat().st_size}
    except (KernelError, OSError, subprocess.SubprocessError) as fault:
        return {"skipped": f"{type(fault).__name__}: {str(fault)[:200]}"}


def resources(library: Path) -> Result:
    """Registers and memory of each kernel, from cuobjdump where it is installed."""
    program = shutil.which("cuobjdump") or shutil.which("cuobjdump", path="/usr/local/cuda/bin")
    if program is None:
        return {"skipped": "cuobjdump is not installed"}
    try:
        done = subprocess.run(
            [program, "--dump-resource-usage", str(library)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as fault:
        return {"skipped": f"{type(fault).__name__}: {str(fault)[:200]}"}
    return parse_resources(done.stdout) or {"skipped": "cuobjdump names no kernel"}


def parse_resources(text: str) -> Result:
    """Per kernel: registers a thread, bytes of stack, static shared and local memory."""
    keys = ("registers", "stack", "shared", "local")
    return {
        name: dict(zip(keys, map(int, numbers), strict=True))
        for name, *numbers in _FUNCTION.findall(text)
    }
