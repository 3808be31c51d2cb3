"""Zones and lines as pixels of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from centermask_edge.live.track.place_config import LineConfig, Point, Unit, ZoneConfig
from centermask_edge.masks import Crop

Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]


def pixels(points: Sequence[Point], unit: Unit, size: tuple[int, int]) -> Doubles:
    """Points of a zone or line in pixels of a picture of ``size`` (height, width)."""
    scale = (size[1], size[0]) if unit is Unit.RELATIVE else (1, 1)
    return np.array(points, np.float64) * np.array(scale, np.float64)


def polygon(corners: Doubles, height: int, width: int) -> Bools:
    """Pixels whose centre lies in the polygon, bool (height, width).

    Where edges cross each other, what is enclosed twice is outside.

    Args:
        corners: float64 (C, 2) x and y in pixels.
        height: rows of the picture.
        width: its columns.
    """
    turns = np.zeros((height, width + 1), np.uint8)
    rows = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        met = np.flatnonzero((rows >= min(y0, y1)) & (rows < max(y0, y1)))
        if met.size:
            x = x0 + (rows[met] - y0) * ((x1 - x0) / (y1 - y0))
            # From the first pixel on whose centre is not before the edge, in becomes out.
            column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
            turns[met, column] ^= 1
    inside: Bools = np.bitwise_xor.accumulate(turns, axis=1)[:, :width].astype(np.bool_)
    return inside


def zone_area(zone: ZoneConfig, size: tuple[int, int]) -> Bools:
    """Pixels of a zone in a picture of ``size`` (height, width), bool of that shape."""
    return polygon(pixels(zone.points, zone.unit, size), *size)


def line_sides(line: LineConfig, size: tuple[int, int]) -> tuple[Bools, Bools]:
    """Pixels left and right of a line, seen from its start; bool of shape ``size`` each.

    Only those before the line, not those beyond its ends.
    """
    start, end = pixels((line.start, line.end), line.unit, size)
    along_x, along_y = end - start
    x = np.arange(size[1])[None, :] + 0.5 - start[0]
    y = np.arange(size[0])[:, None] + 0.5 - start[1]
    along = x * along_x + y * along_y
    before = (along >= 0) & (along <= along_x**2 + along_y**2)
    # Rows count downwards: what turns clockwise on the screen is positive.
    turn = along_x * y - along_y * x
    return before & (turn < 0), before & (turn >= 0)


def count_in(area: Bools, crop: Crop) -> int:
    """Pixels of a mask that lie in an area of the picture."""
    mask, x, y = crop
    height, width = mask.shape
    return int(np.count_nonzero(area[y : y + height, x : x + width] & mask))
