"""Device code without a CUDA toolkit: NVIDIA's run-time compiler, loaded from its wheel.

The extra ``nvrtc`` installs it (``nvidia-cuda-nvrtc``, and the headers in
``nvidia-cuda-runtime``). It needs no driver, and compiles for one architecture at a time.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from centermask_edge.errors import KernelError
from centermask_edge.kernels.build import content_key, publish
from centermask_edge.kernels.toolchain import NVCC_VARIABLE, find_nvcc
from centermask_edge.resources import cache_dir, project_file

OPTIONS = ("--std=c++17", "-default-device", "-lineinfo")
_HEADER = "cuda_fp16.h"
_LIBRARY = "libnvrtc.so"


def _package_folders() -> Iterator[Path]:
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(root).iterdir(), reverse=True)


def _libraries() -> Iterator[str]:
    for folder in _package_folders():
        found = sorted(folder.glob(f"lib/{_LIBRARY}*"))
        yield from (str(p) for p in found)
    for home in ("/usr/local/cuda", "/opt/cuda"):
        yield from (str(p) for p in sorted(Path(home).glob(f"lib64/{_LIBRARY}*")))
    if named := ctypes.util.find_library("nvrtc"):
        yield named


def _include_folder() -> Path | None:
    places = [folder / "include" for folder in _package_folders()]
    places += [Path("/usr/local/cuda/include"), Path("/opt/cuda/include")]
    return next((place for place in places if (place / _HEADER).is_file()), None)


class Nvrtc:
    """The run-time compiler.

    Args:
        handle: the loaded library.
        include: folder with ``cuda_fp16.h``.
    """

    def __init__(self, handle: ctypes.CDLL, include: Path) -> None:
        self._handle = handle
        self.include = include
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def _check(self, name: str, *arguments: Any) -> None:
        code = getattr(self._handle, name)(*arguments)
        if code != 0:
            self._handle.nvrtcGetErrorString.restype = ctypes.c_char_p
            text = self._handle.nvrtcGetErrorString(code).decode()
            raise KernelError(f"NVRTC {self.version}: {name} answered {text}")

    def compile(self, source: Path, options: Sequence[str]) -> bytes:
        """Machine code (a cubin) of a source file.

        Raises:
            KernelError: NVRTC refuses the source or the options.
        """
        program = ctypes.c_void_p()
        text = ctypes.c_char_p(source.read_bytes())
        name = ctypes.c_char_p(source.name.encode())
        self._check("nvrtcCreateProgram", ctypes.byref(program), text, name, 0, None, None)
        try:
            words = [option.encode() for option in options]
            array = (ctypes.c_char_p * len(words))(*words)
            if self._handle.nvrtcCompileProgram(program, len(words), array) != 0:
                log = self._bytes("nvrtcGetProgramLog", program).decode(errors="replace")
                lines = [line for line in log.splitlines() if "error:" in line] or [log.strip()]
                raise KernelError(f"NVRTC {self.version} cannot build the kernels: {lines[0]}")
            return self._bytes("nvrtcGetCUBIN", program)
        finally:
            self._handle.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, name: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._check(f"{name}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(name, program, buffer)
        return buffer.raw


def find_nvrtc() -> Nvrtc | None:
    """The first NVRTC that loads and has its headers: of the wheels, then of the system."""
    include = _include_folder()
    if include is None:
        return None
    for name in _libraries():
        try:
            # NVRTC opens this one by its bare name; loaded already, it is found anywhere.
            for builtins in sorted(Path(name).parent.glob("libnvrtc-builtins.so.*")):
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            return Nvrtc(ctypes.CDLL(name), include)
        except (OSError, AttributeError):
            continue
    return None


def prefers_nvrtc() -> bool:
    """Whether NVRTC is the way: there is no nvcc, none was named, and NVRTC is there."""
    named = os.environ.get(NVCC_VARIABLE)
    return not named and find_nvcc() is None and find_nvrtc() is not None


def cubin(nvrtc: Nvrtc, architecture: int, sources: Path | None = None) -> Path:
    """Machine code of all kernels for one architecture, compiled unless it is in the cache.

    Args:
        nvrtc: the compiler.
        architecture: compute capability as 10 * major + minor.
        sources: the folder with ``include`` and ``src``; the project's own where None.

    Raises:
        KernelError: NVRTC refuses, or the cache cannot be written.
    """
    folder = project_file("kernels") if sources is None else sources
    options = (f"-arch=sm_{architecture}", *OPTIONS)
    key = content_key(folder, nvrtc.version, *options)
    path = cache_dir() / "kernels" / f"nvrtc-sm_{architecture}-{key}.cubin"
    include = [f"-I{p}" for p in (folder / "include", folder / "src", nvrtc.include)]

    def make(partial: Path) -> None:
        partial.write_bytes(nvrtc.compile(folder / "src" / "all.cu", [*options, *include]))

    return publish(path, make)
