"""The processor's measured peak in 8-bit multiply-adds, from a small C++ loop."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path

from centermask_edge.kernels.toolchain import find_host_compiler

_SOURCE = Path(__file__).with_name("int8_peak.cpp")
_ROUNDS = 8_000_000
_FLAGS = ("-O2", "-std=c++17", "-shared", "-fPIC", "-pthread", "-mavx512f", "-mavx512vnni")


def has_vnni() -> bool:
    """Whether the processor has the instruction (AVX-512 VNNI)."""
    try:
        return "avx512_vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


class Peak:
    """A loop of nothing but 8-bit multiply-adds.

    Args:
        threads: that spin.
    """

    def __init__(self, threads: int) -> None:
        compiler = find_host_compiler()
        assert compiler is not None, "a C++ compiler is wanted"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "peak.so"
            subprocess.run([compiler.path, *_FLAGS, "-o", path, _SOURCE], check=True)
            self._library = ctypes.CDLL(str(path))
        self._library.macs_of.restype = ctypes.c_double
        self._threads = threads

    @property
    def macs(self) -> float:
        """Multiply-adds of one call."""
        return float(self._library.macs_of(self._threads, ctypes.c_long(_ROUNDS)))

    def __call__(self) -> None:
        """One turn, a twentieth of a second or so."""
        self._library.spin_all(self._threads, ctypes.c_long(_ROUNDS))


def open_peak(threads: int) -> Peak | None:
    """The loop, or None where the processor or a compiler is missing."""
    return Peak(threads) if has_vnni() and find_host_compiler() is not None else None
