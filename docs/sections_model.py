"""Sections on the shipped model: a picture, latency of its stages, its AP."""

from __future__ import annotations

import tables
from tables import caption, not_measured, results, table

PICTURE = tables.ROOT / "docs" / "images" / "people.jpg"


def picture() -> str:
    """The annotated frames."""
    if not PICTURE.exists():
        return "Picture: not made yet; `make results` makes it."
    return (
        f"![People in the bundled clip with masks]({PICTURE.relative_to(tables.ROOT).as_posix()})"
    )


def stages() -> str:
    """Latency of each stage, in the order of a frame's life."""
    data = results("stages")
    if data is None:
        return not_measured("stages", "make results")
    head = ["stage", "p50 ms", "p95 ms", "p99 ms"]
    rows = [
        [row["stage"], *(f"{row[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms"))]
        for row in data["stages"]
    ]
    return f"{table(head, rows)}\n\n{caption(data)}".strip()


def average_precision() -> str:
    """Box and mask AP by size."""
    data = results("ap")
    if data is None:
        return not_measured("ap", "centermask-edge evaluate val.json --json docs/results/ap.json")
    keys = ("ap", "ap50", "ap75", "small", "medium", "large")
    rows = [
        [kind, *("-" if data[kind][key] < 0 else f"{data[kind][key]:.1f}" for key in keys)]
        for kind in ("box", "mask")
    ]
    head = ["", "AP", "AP50", "AP75", "small", "medium", "large"]
    return f"{table(head, rows)}\n\n{caption(data)}".strip()


SECTIONS = {
    "picture": picture,
    "stages": stages,
    "ap": average_precision,
}
