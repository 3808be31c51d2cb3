"""The GPU of this machine, asked through the driver alone: no toolkit, no compiled code."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU.

    Attributes:
        name: as the driver gives it.
        capability: compute capability as 10 * major + minor.
        driver: newest CUDA version the driver supports, for example ``13.0``.
    """

    name: str
    capability: int
    driver: str


def find_gpu() -> Gpu | None:
    """The first GPU, or None where there is no driver or no device."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor, version = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)

    def ask() -> Iterator[int]:
        yield cuda.cuInit(0)
        yield cuda.cuDriverGetVersion(ctypes.byref(version))
        yield cuda.cuDeviceGet(ctypes.byref(device), 0)
        yield cuda.cuDeviceGetName(name, len(name), device)
        yield cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        yield cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)

    if any(ask()):  # stops at the first error
        return None
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(), 10 * major.value + minor.value, driver)
