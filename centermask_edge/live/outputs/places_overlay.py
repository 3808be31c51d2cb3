"""Zones and lines in a picture, with what they have counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from centermask_edge.errors import require
from centermask_edge.live.result import Tally
from centermask_edge.live.track.areas import Doubles, pixels
from centermask_edge.live.track.place_config import FollowConfig, LineConfig, ZoneConfig

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]
Box = tuple[int, int, int, int]
Stroke = tuple[Doubles, Doubles]

_QUIET: Color = (255, 255, 255)
_BUSY: Color = (0, 190, 255)
_INK: Color = (24, 24, 24)
# OpenCV draws between pixels when told so: 1/16 of one.
_SHIFT = 4
_FAR = 8.0  # pictures; beyond, OpenCV's integers would be too small


def draw_places(image: Image, follow: FollowConfig, tallies: Sequence[Tally]) -> None:
    """Draws a camera's zones and lines into its picture, in place.

    A zone is white, and amber while somebody is in it; the arrow at a line points ``in``.

    Args:
        image: uint8 (H, W, 3) BGR.
        follow: the zones and lines.
        tallies: what they have counted, by their names; may be missing.
    """
    counted = {tally.place: tally for tally in tallies}
    taken: list[Box] = []
    for zone in follow.zones:
        tally = counted.get(zone.name)
        corners = _corners(zone.points, zone, image)
        color = _BUSY if tally is not None and tally.inside else _QUIET
        edges = list(zip(corners, np.roll(corners, -1, axis=0), strict=True))
        _strokes(image, edges, color)
        at = corners[np.lexsort((corners[:, 0], -corners[:, 1]))[0]]
        words = zone.name if tally is None else f"{zone.name}: {tally.inside}"
        _label(image, words, at, color, taken)
    for line in follow.lines:
        tally = counted.get(line.name)
        start, end = _corners((line.start, line.end), line, image)
        tip = _line(image, start, end)
        words = line.name if tally is None else f"{line.name}: in {tally.ins}, out {tally.outs}"
        _label(image, words, tip, _QUIET, taken)


def _corners(
    points: Sequence[tuple[float, float]], place: ZoneConfig | LineConfig, image: Image
) -> Doubles:
    height, width = image.shape[:2]
    limit = _FAR * max(height, width)
    return np.clip(pixels(points, place.unit, (height, width)), -limit, limit)


def _line(image: Image, start: Doubles, end: Doubles) -> Doubles:
    """Draws a line and its arrow; returns the arrow's tip."""
    size = 0.06 * min(image.shape[:2])
    along = size * (end - start) / max(float(np.hypot(*(end - start))), 1e-9)
    right = np.array([-along[1], along[0]])  # of the way, as rows count downwards
    middle = (start + end) / 2
    tip: Doubles = middle + right
    barbs = [(tip, tip - 0.4 * right + side * 0.3 * along) for side in (1, -1)]
    _strokes(image, [(start, end), (middle - right, tip), *barbs], _QUIET)
    return tip


def _strokes(image: Image, lines: Sequence[Stroke], color: Color) -> None:
    """Lines in a colour with a dark edge, to be seen on any ground."""
    cv2: Any = require("cv2", extra="cpu", why="draw zones and lines")
    thick = max(round(min(image.shape[:2]) / 300), 1)
    ends = [(_fine(a), _fine(b)) for a, b in lines]
    for ink, wide in ((_INK, thick + 2), (color, thick)):
        for a, b in ends:
            cv2.line(image, a, b, ink, wide, cv2.LINE_AA, _SHIFT)


def _fine(point: Doubles) -> tuple[int, int]:
    x, y = np.rint((point - 0.5) * 2**_SHIFT).astype(int).tolist()
    return x, y


def _label(image: Image, words: str, at: Doubles, color: Color, taken: list[Box]) -> None:
    """Words on a strip above that point, within the picture and clear of the strips before."""
    cv2: Any = require("cv2", extra="cpu", why="draw zones and lines")
    scale = max(min(image.shape[:2]) / 720.0, 0.35) * 0.6 + 0.1
    text = words.encode("ascii", "replace").decode()
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    wide, tall = width + 10, height + base + 6
    x = int(np.clip(at[0], 0, max(image.shape[1] - wide, 0)))
    y = int(np.clip(at[1] - tall, 0, max(image.shape[0] - tall, 0)))
    while y >= tall and any(_meet((x, y, x + wide, y + tall), other) for other in taken):
        y -= tall
    taken.append((x, y, x + wide, y + tall))
    cv2.rectangle(image, (x, y), (x + wide - 1, y + tall - 1), _INK, -1)
    where = (x + 5, y + height + 3)
    cv2.putText(image, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
