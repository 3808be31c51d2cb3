"""numpy arrays in the memory a kernel sees, fenced so that a stray write is noticed."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import KernelError
from centermask_edge.kernels.library import Library

Array = NDArray[Any]

_FENCE = 256  # bytes on either side
_POISON = 0xFF  # NaN as float and half, -1 as integer: what a kernel forgot to write shows


class Arena:
    """Device copies of numpy arrays, given back together.

    Every array lies between two fences whose bytes are compared in :meth:`get`. Outputs start
    as NaN, so an element that is never written is seen.

    Args:
        library: whose memory is used.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._blocks: list[tuple[int, int]] = []

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for block, _ in self._blocks:
            self.library.free(block)
        self._blocks.clear()

    def put(self, array: Array) -> int:
        """Address of a copy of the array."""
        host = np.full(array.nbytes + 2 * _FENCE, _POISON, np.uint8)
        host[_FENCE : _FENCE + array.nbytes] = np.frombuffer(
            np.ascontiguousarray(array).tobytes(), np.uint8
        )
        block = self.library.alloc(host.nbytes)
        self._blocks.append((block, host.nbytes))
        self.library.upload(block, host.ctypes.data, host.nbytes)
        return block + _FENCE

    def new(self, shape: tuple[int, ...], dtype: Any) -> int:
        """Address of an array whose every byte is poison."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.put(np.full(size, _POISON, np.uint8))

    def get(self, address: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """The array at an address that :meth:`put` or :meth:`new` gave.

        Raises:
            KernelError: something was written before or after it.
        """
        block = address - _FENCE
        size = dict(self._blocks)[block]
        host = np.empty(size, np.uint8)
        self.library.download(host.ctypes.data, block, size)
        inside = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if (host[:_FENCE] != _POISON).any():
            raise KernelError("a kernel wrote before the start of an array")
        if (host[_FENCE + inside :] != _POISON).any():
            raise KernelError("a kernel wrote beyond the end of an array")
        found: Array = host[_FENCE : _FENCE + inside].view(dtype).reshape(shape).copy()
        return found
