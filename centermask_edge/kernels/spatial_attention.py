"""The spatial attention kernel: its parameter struct, and a launch on numpy arrays."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.arrays import Arena
from centermask_edge.kernels.layouts import pack as packed
from centermask_edge.kernels.layouts import type_of
from centermask_edge.kernels.layouts import unpack as unpacked
from centermask_edge.kernels.library import Library

Array = NDArray[Any]


class Params(ctypes.Structure):
    """``cm_spatial_attention_params`` of centermask/spatial_attention.h."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("rois", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("pack", ctypes.c_int32),
        ("weight_type", ctypes.c_int32),
        ("x_scale", ctypes.c_float),
        ("y_scale", ctypes.c_float),
    )


def spatial_attention(
    library: Library,
    x: Array,
    weight: Array,
    *,
    pack: int = 1,
    scales: tuple[float, float] = (1.0, 1.0),
) -> Array:
    """``x * sigmoid(conv3x3([mean, max]))`` on the library's device (CenterMask eq. 3-4).

    Args:
        library: which build.
        x: float32, float16 or int8 (R, C, H, W).
        weight: float32 or float16 (1, 2, 3, 3).
        pack: layout in which the kernel sees the tensors; see ``layouts``.
        scales: of x and of the result, int8 only.

    Raises:
        KernelError: the kernel refuses the arguments.
    """
    rois, channels, height, width = x.shape
    stored = x if pack == 1 or x.size == 0 else packed(x, pack)
    with Arena(library) as arena:
        output = arena.new(stored.shape, stored.dtype)
        params = Params(
            x=arena.put(stored),
            weight=arena.put(weight),
            y=output,
            rois=rois,
            channels=channels,
            height=height,
            width=width,
            type=type_of(x.dtype),
            pack=pack,
            weight_type=type_of(weight.dtype),
            x_scale=scales[0],
            y_scale=scales[1],
        )
        library.call("spatial_attention", params)
        found = arena.get(output, stored.shape, stored.dtype)
    result = found if pack == 1 or x.size == 0 else unpacked(found)
    return np.asarray(result)
