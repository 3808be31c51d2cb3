"""Loss curves of several trainings as one plain SVG file."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 210, 16, 40
_COLOURS = ("#1b6ca8", "#c4501b", "#2f8f4e", "#8a4fb0", "#b8860b", "#c2185b", "#00838f", "#5d4037")
_DASHES = ("", "6 3", "2 3")


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values that cover a range.

    >>> _ticks(0, 300)
    [0, 100, 200, 300]
    """
    rough = (high - low) / count or 1.0
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


class _Frame:
    """The axes: where a step and a loss, on a logarithmic scale, lie in the picture."""

    def __init__(self, curves: list[list[tuple[int, float]]]) -> None:
        losses = [v for curve in curves for _, v in curve if v > 0]
        self.low, self.high = math.log2(min(losses) * 0.95), math.log2(max(losses) * 1.05)
        self.last = max(step for curve in curves for step, _ in curve)

    def at(self, step: float, loss: float) -> tuple[float, float]:
        across = _LEFT + step / self.last * (_WIDTH - _LEFT - _RIGHT)
        share = (math.log2(loss) - self.low) / ((self.high - self.low) or 1.0)
        return across, _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def grid(self) -> list[str]:
        """Lines and their numbers."""
        parts = []
        for loss in (v for n in range(-12, 12) for v in (2.0**n, 1.5 * 2.0**n)):
            if not self.low <= math.log2(loss) <= self.high:
                continue
            x, y = self.at(0, loss)
            right = _WIDTH - _RIGHT
            parts.append(f"<path d='M{x:.0f} {y:.1f}H{right}' class='g'/>")
            parts.append(f"<text x='{x - 6:.0f}' y='{y + 4:.1f}' class='e'>{loss:g}</text>")
        for step in _ticks(0, self.last):
            x, _ = self.at(step, 2**self.low)
            parts.append(f"<text x='{x:.0f}' y='{_HEIGHT - 20}' class='m'>{step:g}</text>")
        return parts


def curves_svg(named: dict[str, list[tuple[int, float]]]) -> str:
    """The curves with a key on the right.

    Args:
        named: step and loss above zero, by the name of the curve.
    """
    frame = _Frame(list(named.values()))
    parts = frame.grid()
    for number, (name, curve) in enumerate(named.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        style = f"stroke='{colour}' stroke-dasharray='{dash}'"
        points = " ".join("{:.1f},{:.1f}".format(*frame.at(s, v)) for s, v in curve if v > 0)
        parts.append(
            f"<polyline points='{points}' {style}><title>{escape(name)}</title></polyline>"
        )
        y, x = _TOP + 10 + 19 * number, _WIDTH - _RIGHT + 14
        parts.append(f"<path d='M{x} {y}h24' {style}/>")
        parts.append(f"<text x='{x + 30}' y='{y + 4}'>{escape(name)}</text>")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f"<text x='{middle:.0f}' y='{_HEIGHT - 4}' class='m'>step</text>")
    parts.append(f"<text x='{_LEFT}' y='{_TOP - 4}' class='m'>loss</text>")
    style = (
        "svg{background:#fff}text{font:12px sans-serif;fill:#333}.e{text-anchor:end}"
        ".m{text-anchor:middle}.g{stroke:#ddd}polyline,path{fill:none;stroke-width:1.6}"
    )
    height = max(_HEIGHT, _TOP + 19 * len(named) + 10)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}' role='img' "
        f"aria-label='training loss over steps'><style>{style}</style>{''.join(parts)}</svg>\n"
    )


def write_curves(result: dict[str, Any], path: Path) -> None:
    """The curves of a comparison's rows as a file."""
    named = {row["row"]: [(s, v) for s, v in row["loss"]] for row in result["rows"]}
    path.write_text(curves_svg(named), encoding="utf-8")
