"""Polygons of objects: filled to pixels as COCO does it, and cut at the edge of a window.

A polygon is float64 (2 * points,) x, y; an object is a sequence of such parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import require

Polygon = NDArray[np.float64]
Polygons = Sequence[Polygon]


def filled(polygons: Polygons, width: int, height: int) -> NDArray[np.bool_]:
    """The union of the polygons as bool (height, width), by COCO's rasteriser."""
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    rle = require("faster_coco_eval.core.mask", extra="train", why="rasterise polygons")
    parts = [p.tolist() for p in polygons]
    return np.asarray(rle.decode(rle.merge(rle.frPyObjects(parts, height, width))), dtype=bool)


def bounds(mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """The box xyxy around the pixels of a mask, float64 (4,); None where there are none.

    >>> mask = np.zeros((5, 6), bool); mask[1:3, 2:5] = True
    >>> bounds(mask).tolist()
    [2.0, 1.0, 5.0, 3.0]
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def clip(polygon: Polygon, width: float, height: float) -> Polygon | None:
    """The part of a polygon within (0, 0) to (width, height), or None where nothing is.

    One side of the window after the other (Sutherland and Hodgman, 1974). Where a concave polygon
    falls apart, its pieces stay joined along the window's edge, which fills no pixel.

    >>> clip(np.array([-2.0, 1, 3, 1, 3, 4, -2, 4]), 10, 10).tolist()
    [0.0, 1.0, 3.0, 1.0, 3.0, 4.0, 0.0, 4.0]
    """
    points = polygon.reshape(-1, 2)
    for axis, limit, sign in ((0, 0.0, 1), (1, 0.0, 1), (0, width, -1), (1, height, -1)):
        points = _half_plane(points, sign * (points[:, axis] - limit))
        if len(points) < 3:
            return None
    return points.ravel()


def _half_plane(points: NDArray[np.float64], inside: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points where ``inside`` is not negative, with those where an edge crosses zero."""
    found = []
    for index in range(len(points)):
        before, here = inside[index - 1], inside[index]
        if (before < 0) != (here < 0):
            share = before / (before - here)
            found.append(points[index - 1] + share * (points[index] - points[index - 1]))
        if here >= 0:
            found.append(points[index])
    return np.array(found).reshape(-1, 2)
