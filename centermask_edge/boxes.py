"""Boxes in numpy: area, overlap, clipping and the reference non-maximum suppression.

A box is xyxy in pixels; its width is ``x1 - x0``, without the + 1 of older code.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def area(boxes: Floats) -> Floats:
    """Areas in square pixels, float32 (K,); 0 where a side is negative.

    >>> area(np.array([[0, 0, 4, 2], [3, 3, 1, 9]], np.float32)).tolist()
    [8.0, 0.0]
    """
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    product: Floats = sides[:, 0] * sides[:, 1]
    return product


def iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union of every pair; 0 where the union is empty.

    Args:
        first: float32 (A, 4) xyxy.
        second: float32 (B, 4) xyxy.

    Returns:
        float32 (A, B) in 0..1.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = area(first)[:, None] + area(second)[None, :] - shared
    ratio: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def clip(boxes: Floats, height: int, width: int) -> Floats:
    """Boxes cut to [0, width] x [0, height], float32 (K, 4)."""
    limits = np.array([width, height, width, height], np.float32)
    return np.minimum(np.maximum(boxes, np.float32(0)), limits)


def nms(
    boxes: Floats, scores: Floats, classes: npt.NDArray[np.int64], threshold: float
) -> npt.NDArray[np.int64]:
    """Class-aware non-maximum suppression: the slow, plain reference.

    A box goes where a kept box of its class with a higher score overlaps it by *more* than
    ``threshold``. Equal scores keep their order.

    Args:
        boxes: float32 (K, 4) xyxy.
        scores: float32 (K,).
        classes: int64 (K,).
        threshold: IoU in 0..1.

    Returns:
        int64 (M,) kept indices by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    for index in order.tolist():
        rivals = [k for k in kept if classes[k] == classes[index]]
        if not rivals or iou(boxes[index : index + 1], boxes[rivals]).max() <= threshold:
            kept.append(index)
    return np.array(kept, np.int64)
