"""COCO's segmentations: what one measures, and its pixels.

A segmentation is a list of polygons, an RLE with a text or a list of counts, or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import require
from centermask_edge.masks import rle_area

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Mask:
    """What a segmentation measures.

    Attributes:
        parts: polygons it has; 1 for an RLE.
        short_parts: those of fewer than 3 points.
        area: in square pixels, of the longer parts.
        box: x, y, w, h of the longer parts; None for an RLE, and where there are none.
        rle: whether it is one.
    """

    parts: int
    short_parts: int
    area: float
    box: tuple[float, float, float, float] | None
    rle: bool


def measure(segmentation: object) -> Mask | None:
    """What a segmentation measures; None for none.

    Raises:
        ValueError: it is neither polygons nor an RLE.

    >>> measure([[0, 0, 4, 0, 4, 2, 0, 2]]).area
    8.0
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, dict):
        return Mask(1, 0, float(_counted(segmentation)), None, True)
    if not isinstance(segmentation, list) or not all(isinstance(p, list) for p in segmentation):
        raise ValueError("a segmentation is neither a list of polygons nor an RLE")
    parts = [[float(v) for v in p] for p in segmentation]
    if any(len(p) % 2 or not all(map(math.isfinite, p)) for p in parts):
        raise ValueError("a polygon is not a list of x, y, x, y, ...")
    long = [p for p in parts if len(p) >= 6]
    return Mask(len(parts), len(parts) - len(long), sum(map(polygon_area, long)), _box(long), False)


def _counted(rle: dict[str, Any]) -> int:
    counts = rle.get("counts")
    if isinstance(counts, str):
        return rle_area({"size": rle["size"], "counts": counts})
    if isinstance(counts, list):
        return sum(int(c) for c in counts[1::2])
    raise ValueError("an RLE has no counts")


def polygon_area(points: Sequence[float]) -> float:
    """Area within a polygon ``x, y, x, y, ...`` in square pixels."""
    xs, ys = points[0::2], points[1::2]
    turns = zip(xs, ys, (*xs[1:], xs[0]), (*ys[1:], ys[0]), strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in turns)) / 2


def _box(parts: Sequence[Sequence[float]]) -> tuple[float, float, float, float] | None:
    if not parts:
        return None
    xs = [v for p in parts for v in p[0::2]]
    ys = [v for p in parts for v in p[1::2]]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def rle_of(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A segmentation as a compressed RLE of the whole picture, by COCO's own rasteriser."""
    coder: Any = require("faster_coco_eval.core.mask", extra="train", why="read masks")
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            packed: dict[str, Any] = coder.frPyObjects(segmentation, *segmentation["size"])
            return packed
        return segmentation
    parts = [p for p in segmentation if len(p) >= 6]
    if not parts:
        return {"size": [height, width], "counts": coder.encode(_nothing(height, width))["counts"]}
    merged: dict[str, Any] = coder.merge(coder.frPyObjects(parts, height, width))
    return merged


def _nothing(height: int, width: int) -> NDArray[np.uint8]:
    return np.zeros((height, width), np.uint8, order="F")


def pixels_of(segmentation: Any, height: int, width: int) -> Bools:
    """The pixels of a segmentation, bool (H, W)."""
    coder: Any = require("faster_coco_eval.core.mask", extra="train", why="read masks")
    pixels: Bools = coder.decode(rle_of(segmentation, height, width)).astype(np.bool_)
    return pixels
