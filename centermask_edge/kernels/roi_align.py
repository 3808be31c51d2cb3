"""The pyramid RoIAlign kernel: its parameter struct, and a launch on numpy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.arrays import Arena
from centermask_edge.kernels.layouts import pack as packed
from centermask_edge.kernels.layouts import type_of
from centermask_edge.kernels.layouts import unpack as unpacked
from centermask_edge.kernels.library import Library

Array = NDArray[Any]

MAX_SIDE = 32  # CM_ROI_ALIGN_MAX_SIDE


class Params(ctypes.Structure):
    """``cm_roi_align_params`` of centermask/roi_align.h."""

    _fields_ = (
        ("features", ctypes.c_void_p * 3),
        ("rois", ctypes.c_void_p),
        ("roi_image", ctypes.c_void_p),
        ("image_size", ctypes.c_void_p),
        ("count", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("height", ctypes.c_int32 * 3),
        ("width", ctypes.c_int32 * 3),
        ("images", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("rois_count", ctypes.c_int32),
        ("rois_per_image", ctypes.c_int32),
        ("side", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("pack", ctypes.c_int32),
        ("index_bytes", ctypes.c_int32),
        ("feature_scale", ctypes.c_float * 3),
        ("output_scale", ctypes.c_float),
    )


def pyramid_roi_align(
    library: Library,
    features: Sequence[Array],
    rois: NDArray[np.float32],
    image_size: NDArray[np.float32],
    *,
    side: int = 14,
    roi_image: Array | None = None,
    count: Array | None = None,
    rois_per_image: int = 0,
    pack: int = 1,
    feature_scales: tuple[float, float, float] = (1.0, 1.0, 1.0),
    output_scale: float = 1.0,
) -> Array:
    """Features of every RoI from the level of its size (CenterMask eq. 2, ONNX RoiAlign-16).

    Args:
        library: which build.
        features: P3, P4, P5, each float32, float16 or int8 (N, C, H, W).
        rois: float32 (R, 4) xyxy in input pixels, unclipped.
        image_size: float32 (N, 2) resized, unpadded height and width.
        side: output side S, at most 32.
        roi_image: int32 or int64 (R,) picture of each RoI; by ``rois_per_image`` where None.
        count: int32 or int64 (N,); RoIs of a picture from its count on give zeros.
        rois_per_image: RoIs lie together by picture, so many each.
        pack: layout in which the kernel sees the tensors; see ``layouts``.
        feature_scales: of P3, P4 and P5, int8 only.
        output_scale: of the result, int8 only.

    Returns:
        (R, C, S, S) of the features' type.

    Raises:
        KernelError: the kernel refuses the arguments.
    """
    images, channels = features[0].shape[:2]
    dtype = features[0].dtype
    shape = (len(rois), channels, side, side)
    stored = shape if pack == 1 else (len(rois), channels // pack, side, side, pack)
    index = next((a.dtype.itemsize for a in (roi_image, count) if a is not None), 4)
    with Arena(library) as arena:
        output = arena.new(stored, dtype)
        planes = [arena.put(f if pack == 1 else packed(f, pack)) for f in features]
        params = Params(
            features=(ctypes.c_void_p * 3)(*planes),
            rois=arena.put(rois),
            roi_image=None if roi_image is None else arena.put(roi_image),
            image_size=arena.put(image_size),
            count=None if count is None else arena.put(count),
            output=output,
            height=(ctypes.c_int32 * 3)(*(f.shape[2] for f in features)),
            width=(ctypes.c_int32 * 3)(*(f.shape[3] for f in features)),
            images=images,
            channels=channels,
            rois_count=len(rois),
            rois_per_image=rois_per_image,
            side=side,
            type=type_of(dtype),
            pack=pack,
            index_bytes=index,
            feature_scale=(ctypes.c_float * 3)(*feature_scales),
            output_scale=output_scale,
        )
        library.call("roi_align", params)
        found = arena.get(output, stored, dtype)
    return found if pack == 1 else unpacked(found)
