"""Arrays on the device: ours given to others, others' taken, and page-locked ones on the CPU.

``__cuda_array_interface__`` (version 3) is the border: pycuda, CuPy, Numba and torch speak it in
both directions, so none of them is needed here.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import ConfigError

LEGACY_STREAM = 1  # the default stream's number in the interface


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A contiguous array in device memory that others can take without a copy.

    Attributes:
        address: of its first element.
        shape: in elements.
        dtype: of an element.
        stream: after which the content is there; takers of the interface wait for it themselves.
        owner: keeps the memory alive as long as this array is.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int
    owner: object

    @property
    def nbytes(self) -> int:
        """Bytes from the first element to the end."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self.stream,
            "version": 3,
        }


@dataclass(frozen=True, slots=True)
class DeviceView:
    """What an array of another library says about itself.

    Attributes:
        address: of its first element.
        shape: in elements.
        dtype: of an element.
        strides: in bytes, one for each axis.
        stream: to wait for before reading. The default stream where the array names none: that
            should mean there is nothing to wait for, but pycuda names none and works on it.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    stream: int

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie one after another."""
        return self.strides == _packed(self.shape, self.dtype.itemsize)


def on_device(array: object) -> bool:
    """Whether an array lies in device memory, by what it offers."""
    return hasattr(array, "__cuda_array_interface__")


def view(array: Any) -> DeviceView:
    """Where an array of pycuda, CuPy, Numba, torch or another library lies.

    Raises:
        ConfigError: it is masked, or its interface is older than version 2.
    """
    facts: dict[str, Any] = array.__cuda_array_interface__
    if facts.get("mask") is not None or facts.get("version", 0) < 2:
        raise ConfigError(
            f"an array on the device needs __cuda_array_interface__ version 2 or newer without a "
            f"mask; found version {facts.get('version')}, mask {facts.get('mask')!r}"
        )
    dtype, shape = np.dtype(facts["typestr"]), tuple(int(n) for n in facts["shape"])
    strides = facts.get("strides")
    spaced = _packed(shape, dtype.itemsize) if strides is None else tuple(map(int, strides))
    stream = int(facts.get("stream") or LEGACY_STREAM)
    return DeviceView(int(facts["data"][0]), shape, dtype, spaced, stream)


def picture(array: Any) -> DeviceView:
    """A picture on the device: uint8 (H, W, 3), rows as far apart as they like.

    Raises:
        ConfigError: it is something else.
    """
    found = view(array)
    shape, strides = found.shape, found.strides
    fits = found.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3 and min(shape) > 0
    if not fits or strides[1:] != (3, 1) or strides[0] < 3 * shape[1]:
        raise ConfigError(
            f"a picture on the device is uint8 (height, width, 3) in BGR order, its pixels side "
            f"by side; got {found.dtype} {shape} with strides {strides}"
        )
    return found


def pinned_array(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """A numpy array over page-locked memory; it does not own it."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memory, kind).reshape(shape)


def _packed(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides = []
    for length in reversed(shape):
        strides.append(itemsize)
        itemsize *= length
    return tuple(reversed(strides))
