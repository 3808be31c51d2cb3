"""Comparisons with a limit and a verdict, and tables of them.

Shape legend: K detections found, W wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.boxes import iou

PASSED, FAILED = "pass", "FAIL"
SAME_OBJECT_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Check:
    """What was measured (one cell per column), the limit in words, and whether it was kept."""

    cells: tuple[str, ...]
    limit: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Checks of one kind; ``head`` names the cells, ``note`` says what was compared and how."""

    title: str
    note: str
    head: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed; an empty table has not."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def columns(self) -> list[str]:
        """Titles of the columns of :meth:`rows`."""
        return [*self.head, "limit", "result"]

    def rows(self) -> list[list[str]]:
        """The table as text."""
        return [
            [*check.cells, check.limit, PASSED if check.passed else FAILED] for check in self.checks
        ]

    def to_json(self) -> dict[str, object]:
        """Plain values; ``rows`` are text."""
        return {
            "title": self.title,
            "note": self.note,
            "columns": self.columns(),
            "rows": self.rows(),
            "passed": self.passed,
        }

    def to_markdown(self) -> str:
        """A section of a page: title, note, table."""
        lines = [self.columns(), ["---", *["---:"] * len(self.head), "---"], *self.rows()]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"## {self.title}\n\n{self.note}\n\n{table}\n"


def number(value: float) -> str:
    """A difference as text: 0, or two digits of a power of ten.

    >>> number(0.0), number(0.000123)
    ('0', '1.2e-04')
    """
    return "0" if value == 0 else f"{value:.1e}"


def at_most(name: str, values: Sequence[float], limit: float) -> Check:
    """A check that every value is at most ``limit``; NaN fails.

    >>> at_most("x", [1e-5, float("nan")], 1e-4).passed
    False
    """
    kept = all(value <= limit for value in values)
    return Check((name, *map(number, values)), f"{limit:g}", kept)


def relative_error(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Largest difference as a share of the largest wanted magnitude; infinite if shapes differ.

    >>> relative_error(np.array([1.0, 2.1]), np.array([1.0, 2.0]))
    0.050000000000000044
    """
    if found.shape != wanted.shape:
        return float("inf")
    if wanted.size == 0:
        return 0.0
    scale = float(np.abs(wanted).max()) or 1.0
    return float(np.abs(found - wanted).max()) / scale


def largest_difference(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Largest absolute difference; 0 for nothing, infinite if shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.abs(found - wanted).max()) if wanted.size else 0.0


def match(
    boxes: NDArray[np.float32],
    classes: NDArray[np.int64],
    wanted_boxes: NDArray[np.float32],
    wanted_classes: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Which detection is which: per wanted one the index of the found one, or -1.

    Each found detection is used once; wanted ones choose in their order the unused detection of
    their class whose corners lie nearest, and it must overlap by an IoU of at least 0.5. Corners
    decide, not IoU, because the boxes of two wanted detections may overlap almost wholly. Boxes
    without area only need their corners within a pixel.

    Args:
        boxes: float32 (K, 4) xyxy.
        classes: int64 (K,).
        wanted_boxes: float32 (W, 4) xyxy.
        wanted_classes: int64 (W,).

    Returns:
        int64 (W,).
    """
    chosen = np.full(len(wanted_boxes), -1, np.int64)
    if len(boxes) == 0:
        return chosen
    overlap = iou(wanted_boxes, boxes)
    distance = np.abs(wanted_boxes[:, None] - boxes[None]).max(2)
    same = (overlap >= SAME_OBJECT_IOU) | (distance <= 1)
    same &= wanted_classes[:, None] == classes[None]
    distance = np.where(same, distance, np.inf)
    for row in range(len(wanted_boxes)):
        nearest = int(distance[row].argmin())
        if np.isfinite(distance[row, nearest]):
            chosen[row] = nearest
            distance[:, nearest] = np.inf
    return chosen
