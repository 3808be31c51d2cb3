"""Charts as inline SVG that take their colours from the page they stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from centermask_edge.page import key

_WIDTH, _HEIGHT = 480, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 40
COLORS = ("var(--line-1)", "var(--line-2)", "var(--line-3)", "var(--line-4)")


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart: its name and its points, x and y from 0 to 1."""

    name: str
    points: Sequence[tuple[float, float]]


def chart(curves: Sequence[Curve], x_name: str, y_name: str) -> str:
    """Curves over a square from 0 to 1, with a key below where there are several.

    Args:
        curves: at most as many as there are ``COLORS``.
        x_name: what lies along.
        y_name: what lies upwards.
    """
    lines = "".join(
        f"<polyline class='curve' style='stroke: {color}' points='{_path(curve.points)}'>"
        f"<title>{escape(curve.name)}</title></polyline>"
        for color, curve in zip(COLORS, curves, strict=False)
    )
    named = ", ".join(c.name for c in curves)
    title = escape(f"{y_name} over {x_name}: {named}")
    names = zip(COLORS, (c.name for c in curves), strict=False)
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='{title}'>"
        f"{_grid(x_name, y_name)}{lines}</svg>" + key(names)
    )


def _at(x: float, y: float) -> tuple[float, float]:
    across = _LEFT + x * (_WIDTH - _LEFT - _RIGHT)
    return across, _TOP + (1 - y) * (_HEIGHT - _TOP - _BOTTOM)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in (_at(*p) for p in points))


def _grid(x_name: str, y_name: str) -> str:
    parts = []
    for step in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        (x, low), (_, high) = _at(step, 0), _at(step, 1)
        (left, y), (right, _) = _at(0, step), _at(1, step)
        parts += [
            f"<line class='grid' x1='{x:.1f}' y1='{low:.1f}' x2='{x:.1f}' y2='{high:.1f}'/>",
            f"<line class='grid' x1='{left:.1f}' y1='{y:.1f}' x2='{right:.1f}' y2='{y:.1f}'/>",
            f"<text x='{x:.1f}' y='{low + 17:.1f}' text-anchor='middle'>{step:g}</text>",
            f"<text x='{left - 7:.1f}' y='{y + 4:.1f}' text-anchor='end'>{step:g}</text>",
        ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f"<text x='{middle:.0f}' y='{_HEIGHT - 5}' text-anchor='middle'>{escape(x_name)}</text>"
    )
    up = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f"<text x='12' y='{up:.0f}' text-anchor='middle' transform='rotate(-90 12 {up:.0f})'>"
        f"{escape(y_name)}</text>"
    )
    return "".join(parts)
