"""Element types and packed layouts of [N, C, H, W] tensors, as the kernels store them.

Layout number P: [N, C / P, H, W, P]; 1 is NCHW, C is NHWC, 4 is CHW4, 32 is CHW32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.library import FLOAT16, FLOAT32, INT8

Array = NDArray[Any]
Floats = NDArray[np.float32]

DTYPES: dict[int, type[np.generic]] = {FLOAT32: np.float32, FLOAT16: np.float16, INT8: np.int8}


def type_of(dtype: Any) -> int:
    """The kernels' number of a numpy element type."""
    return next(number for number, known in DTYPES.items() if np.dtype(known) == np.dtype(dtype))


def pack(array: Array, size: int) -> Array:
    """[N, C, H, W] as [N, C / size, H, W, size].

    >>> pack(np.arange(8).reshape(1, 8, 1, 1), 4)[0, 1, 0, 0].tolist()
    [4, 5, 6, 7]
    """
    n, c, h, w = array.shape
    split = array.reshape(n, c // size, size, h, w)
    return np.ascontiguousarray(split.transpose(0, 1, 3, 4, 2))


def unpack(array: Array) -> Array:
    """The way back: [N, C / size, H, W, size] as [N, C, H, W]."""
    n, planes, h, w, size = array.shape
    return np.ascontiguousarray(array.transpose(0, 1, 4, 2, 3)).reshape(n, planes * size, h, w)


def quantize(values: Floats, scale: float) -> NDArray[np.int8]:
    """Symmetric int8 codes, rounded to nearest even (TensorRT's quantisation)."""
    codes = np.rint(values / np.float32(scale))
    found: NDArray[np.int8] = np.clip(codes, -128, 127).astype(np.int8)
    return found
