"""The overlay kernel: its parameter struct, and a launch on numpy arrays."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.arrays import Arena
from centermask_edge.kernels.library import Library

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

MAX_INSTANCES = 1024  # CM_MASK_OVERLAY_MAX_INSTANCES


class Params(ctypes.Structure):
    """``cm_mask_overlay_params`` of centermask/mask_overlay.h."""

    _fields_ = (
        ("frame", ctypes.c_void_p),
        ("masks", ctypes.c_void_p),
        ("boxes", ctypes.c_void_p),
        ("colors", ctypes.c_void_p),
        ("count", ctypes.c_void_p),
        ("area", ctypes.c_void_p),
        ("pitch", ctypes.c_int64),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("instances", ctypes.c_int32),
        ("side", ctypes.c_int32),
        ("index_bytes", ctypes.c_int32),
        ("outline", ctypes.c_int32),
        ("opacity", ctypes.c_float),
    )


def mask_overlay(
    library: Library,
    frame: Bytes,
    masks: Floats,
    boxes: Floats,
    colors: Bytes,
    *,
    opacity: float = 0.45,
    outline: int = 0,
    count: NDArray[Any] | None = None,
    padding: int = 0,
) -> tuple[Bytes, NDArray[np.int32]]:
    """A copy of the frame with every mask drawn, the first on top, and each mask's pixels.

    Args:
        library: which build.
        frame: uint8 (H, W, 3).
        masks: float32 (K, M, M) probabilities.
        boxes: float32 (K, 4) xyxy frame pixels.
        colors: uint8 (K, 3) in the frame's channel order.
        opacity: of the colour, 0 to 1.
        outline: in pixels; 0 for none.
        count: int32 or int64 (1,); only so many are drawn.
        padding: bytes between the rows.

    Returns:
        uint8 (H, W, 3), and int32 (K,) pixels set before anything covers them.

    Raises:
        KernelError: the kernel refuses the arguments.
    """
    height, width = frame.shape[:2]
    lines = frame.reshape(height, -1)
    lines = np.concatenate((lines, np.full((height, padding), 0xA5, np.uint8)), axis=1)
    with Arena(library) as arena:
        area = arena.new((len(boxes),), np.int32)
        params = Params(
            frame=arena.put(lines),
            masks=arena.put(masks),
            boxes=arena.put(boxes),
            colors=arena.put(colors),
            count=None if count is None else arena.put(count),
            area=area,
            pitch=lines.shape[1],
            height=height,
            width=width,
            instances=len(boxes),
            side=masks.shape[-1],
            index_bytes=4 if count is None else count.dtype.itemsize,
            outline=outline,
            opacity=opacity,
        )
        library.call("mask_overlay", params)
        drawn = arena.get(params.frame, lines.shape, np.uint8)
        areas = arena.get(area, (len(boxes),), np.int32)
    assert (drawn[:, 3 * width :] == 0xA5).all(), "the kernel wrote between the rows"
    return drawn[:, : 3 * width].reshape(frame.shape), areas
