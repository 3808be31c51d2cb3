"""The decoding kernel: its parameter struct, and a launch on numpy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.arrays import Arena
from centermask_edge.kernels.layouts import type_of
from centermask_edge.kernels.library import Library

Array = NDArray[Any]

MAX_LEVELS, MAX_TOPK, MAX_DETECTIONS = 5, 2048, 1000  # CM_DECODE_MAX_...
_Pointers = ctypes.c_void_p * MAX_LEVELS
_Integers = ctypes.c_int32 * MAX_LEVELS


class Params(ctypes.Structure):
    """``cm_decode_nms_params`` of centermask/decode_nms.h."""

    _fields_ = (
        ("logits", _Pointers),
        ("reg", _Pointers),
        ("centerness", _Pointers),
        ("boxes", ctypes.c_void_p),
        ("scores", ctypes.c_void_p),
        ("classes_out", ctypes.c_void_p),
        ("count", ctypes.c_void_p),
        ("indices", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_uint64),
        ("height", _Integers),
        ("width", _Integers),
        ("stride", _Integers),
        ("levels", ctypes.c_int32),
        ("images", ctypes.c_int32),
        ("classes", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("index_bytes", ctypes.c_int32),
        ("pre_nms_topk", ctypes.c_int32),
        ("max_detections", ctypes.c_int32),
        ("score_threshold", ctypes.c_float),
        ("nms_threshold", ctypes.c_float),
    )


@dataclass(frozen=True, slots=True)
class Options:
    """What the graph's attributes say; see ``config.DecodeConfig``."""

    score_threshold: float = 0.05
    nms_threshold: float = 0.6
    pre_nms_topk: int = 1000
    max_detections: int = 50


@dataclass(frozen=True, slots=True)
class Detections:
    """Best first; zero beyond ``count``, and -1 in ``indices``.

    boxes: float32 (N, K, 4) xyxy input pixels; scores: float32 (N, K); classes: int32 or int64
    (N, K); count: int32 or int64 (N,); indices: int32 (N, K) level offset + class * cells + cell.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: Array
    count: Array
    indices: NDArray[np.int32]


def sizes(params: Params, logits: Sequence[tuple[int, ...]], strides: Sequence[int]) -> None:
    """Fills in the shapes: of the logits of each level, (N, C, H, W), and its stride."""
    params.levels = len(logits)
    params.images, params.classes = logits[0][:2]
    for level, (shape, stride) in enumerate(zip(logits, strides, strict=True)):
        params.height[level], params.width[level] = shape[2:]
        params.stride[level] = stride


def thresholds(params: Params, options: Options) -> None:
    """Fills in what does not depend on the tensors."""
    params.score_threshold = options.score_threshold
    params.nms_threshold = options.nms_threshold
    params.pre_nms_topk = options.pre_nms_topk
    params.max_detections = options.max_detections


def decode_nms(
    library: Library,
    logits: Sequence[Array],
    reg: Sequence[Array],
    centerness: Sequence[Array],
    strides: Sequence[int],
    options: Options,
    index: type[np.signedinteger[Any]] = np.int64,
) -> Detections:
    """The best boxes of every picture (FCOS section 3; class-aware greedy NMS).

    Args:
        library: which build.
        logits: per level float32 or float16 (N, C, H, W).
        reg: per level (N, 4, H, W) distances left, top, right, bottom in strides.
        centerness: per level (N, 1, H, W) logits.
        strides: input pixels a cell, per level.
        options: thresholds and limits.
        index: dtype of classes and count.

    Raises:
        KernelError: the kernel refuses the arguments.
    """
    images, kept = logits[0].shape[0], options.max_detections
    with Arena(library) as arena:
        params = Params(type=type_of(logits[0].dtype), index_bytes=np.dtype(index).itemsize)
        sizes(params, [a.shape for a in logits], strides)
        thresholds(params, options)
        for name, arrays in (("logits", logits), ("reg", reg), ("centerness", centerness)):
            getattr(params, name)[: len(arrays)] = [arena.put(a) for a in arrays]
        needed = library.bytes_of("decode_nms_workspace", params)
        params.workspace, params.workspace_bytes = arena.new((needed,), np.uint8), needed
        shapes = {
            "boxes": ((images, kept, 4), np.float32),
            "scores": ((images, kept), np.float32),
            "classes_out": ((images, kept), index),
            "count": ((images,), index),
            "indices": ((images, kept), np.int32),
        }
        for name, (shape, dtype) in shapes.items():
            setattr(params, name, arena.new(shape, dtype))
        library.call("decode_nms", params)
        arena.get(params.workspace, (needed,), np.uint8)  # its fences
        found = [arena.get(getattr(params, n), *shapes[n]) for n in shapes]
    return Detections(*found)
