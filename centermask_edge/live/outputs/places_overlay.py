"""Zones and lines in a picture, with what they have counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from centermask_edge.errors import require
from centermask_edge.live.result import Tally
from centermask_edge.live.track.areas import Doubles, pixels
from centermask_edge.live.track.place_config import FollowConfig, LineConfig, Point, ZoneConfig

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]
Box = tuple[int, int, int, int]
Stroke = tuple[Doubles, Doubles]

_QUIET: Color = (255, 255, 255)
_BUSY: Color = (0, 190, 255)
_INK: Color = (24, 24, 24)
_FAR = 8.0  # pictures; beyond, OpenCV's integers would be too small


class PlacesDrawing:
    """The zones and lines of one picture: first their outlines, and over the objects their names.

    A zone is white, and amber while somebody is in it; the arrow at a line points ``in``.

    Args:
        follow: the zones and lines.
        tallies: what they have counted, by their names; may be missing.
        size: (height, width) of the picture.
    """

    def __init__(
        self, follow: FollowConfig, tallies: Sequence[Tally], size: tuple[int, int]
    ) -> None:
        counted = {tally.place: tally for tally in tallies}
        self._strokes: list[tuple[list[Stroke], Color]] = []
        self._labels: list[tuple[str, Doubles, Color]] = []
        for zone in follow.zones:
            self._add_zone(zone, counted.get(zone.name), size)
        for line in follow.lines:
            self._add_line(line, counted.get(line.name), size)

    def _add_zone(self, zone: ZoneConfig, tally: Tally | None, size: tuple[int, int]) -> None:
        corners = _corners(zone.points, zone, size)
        color = _BUSY if tally is not None and tally.inside else _QUIET
        edges = list(zip(corners, np.roll(corners, -1, axis=0), strict=True))
        self._strokes.append((edges, color))
        words = zone.name if tally is None else f"{zone.name}: {tally.inside}"
        lowest = corners[np.lexsort((corners[:, 0], -corners[:, 1]))[0]]
        self._labels.append((words, lowest, color))

    def _add_line(self, line: LineConfig, tally: Tally | None, size: tuple[int, int]) -> None:
        start, end = _corners((line.start, line.end), line, size)
        arrow = _arrow(start, end, 0.06 * min(size))
        self._strokes.append(([(start, end), *arrow], _QUIET))
        words = line.name if tally is None else f"{line.name}: in {tally.ins}, out {tally.outs}"
        self._labels.append((words, arrow[0][1], _QUIET))

    def outline(self, image: Image) -> None:
        """Outlines and arrows, in place; uint8 (H, W, 3) BGR."""
        for lines, color in self._strokes:
            _draw_lines(image, lines, color)

    def label(self, image: Image) -> None:
        """Names and counts, in place; uint8 (H, W, 3) BGR."""
        taken: list[Box] = []
        for words, at, color in self._labels:
            _label(image, words, at, color, taken)


def _corners(
    points: Sequence[Point], place: ZoneConfig | LineConfig, size: tuple[int, int]
) -> Doubles:
    """Where to draw the points: those on the picture's edge a little within it, to be seen."""
    limit, ends = _FAR * max(size), np.array([size[1], size[0]], np.float64)
    at = np.clip(pixels(points, place.unit, size), -limit, limit)
    edge = 1 + min(size) / 300
    return np.where((at >= 0) & (at <= ends), np.clip(at, edge, ends - 1 - edge), at)


def _arrow(start: Doubles, end: Doubles, size: float) -> list[Stroke]:
    """Across the middle of a line to its right: the shaft, then two barbs."""
    along = size * (end - start) / max(float(np.hypot(*(end - start))), 1e-9)
    right = np.array([-along[1], along[0]])  # of the way, as rows count downwards
    middle = (start + end) / 2
    tip = middle + right
    barbs = [(tip, tip - 0.4 * right + side * 0.3 * along) for side in (1, -1)]
    return [(middle - right, tip), *barbs]


def _draw_lines(image: Image, lines: Sequence[Stroke], color: Color) -> None:
    """Lines in a colour with a dark edge, to be seen on any ground."""
    cv2: Any = require("cv2", extra="cpu", why="draw zones and lines")
    thick = max(round(min(image.shape[:2]) / 300), 1)
    ends = [(_pixel(a), _pixel(b)) for a, b in lines]
    for ink, wide in ((_INK, thick + 3), (color, thick)):
        for a, b in ends:
            cv2.line(image, a, b, ink, wide, cv2.LINE_AA)


def _pixel(point: Doubles) -> tuple[int, int]:
    x, y = np.rint(point).astype(int).tolist()
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
