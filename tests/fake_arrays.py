"""More on the fake GPU of ``fake_cuda.py``: our kernels, and arrays of other libraries."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from fake_cuda import Driver

from centermask_edge.kernels.library import Library


class Kernels(Library):
    """The host build of the kernels, its launches queued on a fake stream."""

    def __init__(self, host: Library, driver: Driver) -> None:
        super().__init__(host.path)
        self._driver = driver

    def call(self, name: str, params: ctypes.Structure, stream: int = 0) -> None:
        copied = type(params).from_buffer_copy(params)  # as a launch copies its arguments
        self._driver.enqueue(stream, lambda: super(Kernels, self).call(name, copied))


class Foreign:
    """An array of another library on the device, as pycuda's, CuPy's or torch's are."""

    def __init__(
        self, driver: Driver, array: np.ndarray, stream: int | None = None, padding: int = 0
    ) -> None:
        """``padding``: bytes after each row of a picture."""
        rows = array.reshape(array.shape[0], -1).view(np.uint8)
        self._bytes = np.pad(rows, ((0, 0), (0, padding)))
        strides = array.strides if not padding else (self._bytes.strides[0], 3, 1)
        self._address = driver._place("foreign", self._bytes.nbytes, 0)
        self._driver, self._like = driver, array
        ctypes.memmove(self._address, self._bytes.ctypes.data, self._bytes.nbytes)
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self._address, False),
            "strides": strides if padding else None,
            "stream": stream,
            "version": 3,
        }

    def get(self) -> np.ndarray:
        """A copy on the CPU."""
        found = np.empty_like(self._bytes)
        ctypes.memmove(found.ctypes.data, self._address, found.nbytes)
        width = self._like[0].nbytes
        return (
            np.ascontiguousarray(found[:, :width]).view(self._like.dtype).reshape(self._like.shape)
        )

    def free(self) -> None:
        del self._driver.memory[self._address], self._driver.kinds[self._address]
