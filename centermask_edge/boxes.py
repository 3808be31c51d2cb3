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
    boxes: Floats,
    scores: Floats,
    classes: npt.NDArray[np.int64],
    threshold: float,
    limit: int | None = None,
) -> npt.NDArray[np.int64]:
    """Greedy class-aware non-maximum suppression, best score first.

    A box goes where a kept box of its class with a higher score overlaps it by *more* than
    ``threshold``; plain areas. Equal scores keep their order.

    Args:
        boxes: float32 (K, 4) xyxy.
        scores: float32 (K,).
        classes: int64 (K,).
        threshold: IoU in 0..1.
        limit: stop after so many kept, where given.

    Returns:
        int64 (M,) kept indices by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, classes = boxes[order], classes[order]
    alive = np.ones(len(order), np.bool_)
    kept: list[int] = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == limit:
            break
        rest = slice(i + 1, None)
        overlap = iou(boxes[i : i + 1], boxes[rest])[0]
        alive[rest] &= ~((overlap > threshold) & (classes[rest] == classes[i]))
    return order[np.array(kept, np.int64)]
