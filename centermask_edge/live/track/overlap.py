"""Overlap of masks, looked at only where their boxes meet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from centermask_edge import boxes as box_maths

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Samples a side of the common box. 14 fall on every other cell of a map of 28, and an IoU is off
# by up to 0.14; with 20 it is 0.05, and more are hardly better.
_SIDE = 20


def _cells(boxes: Floats, common: Floats, side: int) -> tuple[Ints, Ints]:
    """Rows and columns (P, S) of each box's map under S x S samples of its common box."""
    at = (np.arange(_SIDE, dtype=np.float32) + np.float32(0.5)) / np.float32(_SIDE)
    found = []
    for low, high in ((1, 3), (0, 2)):
        start, end = common[:, low, None], common[:, high, None]
        origin, length = boxes[:, low, None], boxes[:, high, None] - boxes[:, low, None]
        cell = ((start + (end - start) * at - origin) / length * side).astype(np.int64)
        found.append(np.clip(cell, 0, side - 1))
    return found[0], found[1]


def _samples(masks: Bools, which: Ints, boxes: Floats, common: Floats) -> Bools:
    side = masks.shape[-1]
    rows, columns = _cells(boxes[which], common, side)
    rows += which[:, None] * side
    flat = (rows * side)[:, :, None] + columns[:, None, :]
    samples: Bools = masks.ravel()[flat]
    return samples


def mask_iou(
    first: tuple[Floats, Bools], second: tuple[Floats, Bools], pairs: tuple[Ints, Ints]
) -> Floats:
    """Intersection over union of the masks of some pairs, float32 (P,) in 0..1.

    The maps are sampled at a few points of the common box, and never pasted.

    Args:
        first: boxes float32 (A, 4) xyxy, never empty, and their maps, bool (A, M, M).
        second: as ``first``, (B, ...).
        pairs: int64 (P,) places in ``first``, and int64 (P,) in ``second``.
    """
    (boxes_a, masks_a), (boxes_b, masks_b) = first, second
    i, j = pairs
    low = np.maximum(boxes_a[i, :2], boxes_b[j, :2])
    high = np.minimum(boxes_a[i, 2:], boxes_b[j, 2:])
    common = np.concatenate([low, np.maximum(low, high)], axis=1)
    both = _samples(masks_a, i, boxes_a, common) & _samples(masks_b, j, boxes_b, common)
    areas = [
        box_maths.area(boxes) * masks.mean((1, 2), dtype=np.float32)
        for boxes, masks in (first, second)
    ]
    share = both.mean((1, 2), dtype=np.float32)
    # Sampled, the common part may come out larger than a mask of few cells.
    shared = np.minimum(box_maths.area(common) * share, np.minimum(areas[0][i], areas[1][j]))
    union = areas[0][i] + areas[1][j] - shared
    ratio: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio
