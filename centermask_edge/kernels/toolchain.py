"""The compilers on this machine that can build the kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from centermask_edge.errors import KernelError

NVCC_VARIABLE = "CENTERMASK_EDGE_NVCC"
_CUDA_HOMES = ("CUDA_HOME", "CUDA_PATH")
_USUAL_PLACES = ("/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda")


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler and what tells it apart from every other version of itself.

    Attributes:
        path: of the executable.
        signature: last lines of what ``--version`` prints.
    """

    path: Path
    signature: str


@cache
def _signature(path: Path) -> str:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return " ".join(done.stdout.split())


def _first_working(candidates: list[str | None]) -> Compiler | None:
    for candidate in candidates:
        found = shutil.which(candidate) if candidate else None
        if found and (signature := _signature(Path(found))):
            return Compiler(Path(found), signature)
    return None


def find_nvcc() -> Compiler | None:
    """NVIDIA's compiler: ``CENTERMASK_EDGE_NVCC``, the CUDA folders, then the search path."""
    chosen = os.environ.get(NVCC_VARIABLE)
    if chosen:
        return _first_working([chosen])
    homes = [os.environ[name] for name in _CUDA_HOMES if os.environ.get(name)]
    places = [str(Path(home) / "bin" / "nvcc") for home in (*homes, *_USUAL_PLACES)]
    return _first_working([*places[: len(homes)], "nvcc", *places[len(homes) :]])


@cache
def supported_architectures(nvcc: Compiler) -> frozenset[int]:
    """Compute capabilities, as 10 * major + minor, for which this nvcc makes machine code."""
    done = subprocess.run(
        [nvcc.path, "--list-gpu-code"], capture_output=True, text=True, timeout=60, check=False
    )
    names = (line.strip().removeprefix("sm_") for line in done.stdout.split())
    return frozenset(int(name) for name in names if name.isdigit())


def find_host_compiler() -> Compiler | None:
    """A C++17 compiler: ``CXX``, then c++, g++ and clang++."""
    chosen = os.environ.get("CXX")
    if chosen:
        return _first_working([chosen])
    return _first_working(["c++", "g++", "clang++"])


def require_nvcc() -> Compiler:
    """As :func:`find_nvcc`.

    Raises:
        KernelError: there is none.
    """
    compiler = find_nvcc()
    if compiler is None:
        named = os.environ.get(NVCC_VARIABLE)
        found = f"{NVCC_VARIABLE}={named} does not run" if named else "no nvcc was found"
        raise KernelError(
            f"{found}, and the CUDA kernels need one: install the CUDA toolkit 12 or newer "
            f"(JetPack has it in /usr/local/cuda), name it with {NVCC_VARIABLE}=/path/to/nvcc, or "
            "do without it: pip install 'centermask-edge[nvrtc]'"
        )
    return compiler


def require_host_compiler() -> Compiler:
    """As :func:`find_host_compiler`.

    Raises:
        KernelError: there is none.
    """
    compiler = find_host_compiler()
    if compiler is None:
        named = os.environ.get("CXX")
        found = f"CXX={named} does not run" if named else "no C++ compiler was found"
        raise KernelError(
            f"{found}, and the host build of the kernels needs one with C++17: install g++ "
            "(Debian, Ubuntu: apt install g++) or name it with CXX=/path/to/c++"
        )
    return compiler
