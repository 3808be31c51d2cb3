"""The verdict for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from centermask_edge.quantize.report.words import megabytes, percent, points
from centermask_edge.quantize.verdict import Ap, Numbers, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

_COLUMNS = ("AP", "AP50", "AP75", "small", "medium", "large")


def summary(verdict: Verdict) -> RenderableType:
    """Tables and the outcome, to be printed by a rich console."""
    from rich.console import Group
    from rich.text import Text

    style = {True: "bold green", False: "bold red", None: "bold"}[verdict.held]
    lines = [verdict.certainty(), *verdict.notes]
    return Group(
        _accuracy(verdict),
        *_classes(verdict),
        _files(verdict),
        *(Text(line) for line in lines if line),
        Text(verdict.sentence(), style=style),
    )


def _accuracy(verdict: Verdict) -> RenderableType:
    from rich.table import Table

    found = verdict.annotations
    count = f"{found.images} of {found.of_images} pictures"
    if found.images == found.of_images:
        count = f"{found.images} pictures"
    table = Table(title=f"{verdict.preset} on {found.name}: {count}, {found.objects} objects")
    table.add_column("")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for kind in ("mask", "box"):
        for row in verdict.accuracy:
            values = (row.mask if kind == "mask" else row.box).values()
            table.add_row(f"{kind} {row.numbers.value.upper()}", *(points(v) for v in values))
        if verdict.judged is not None:
            table.add_row(f"{kind} lost", *_lost(verdict, kind), style="bold")
        table.add_section()
    return table


def _lost(verdict: Verdict, kind: str) -> Iterable[str]:
    rows: dict[Numbers, Ap] = {
        a.numbers: a.mask if kind == "mask" else a.box for a in verdict.accuracy
    }
    assert verdict.judged is not None
    pairs = zip(rows[Numbers.FP32].values(), rows[verdict.judged].values(), strict=True)
    for before, after in pairs:
        lost = None if before is None or after is None else before - after
        yield points(lost, signed=True)


def _classes(verdict: Verdict) -> list[RenderableType]:
    """By class, where there are several."""
    from rich.table import Table

    if len(verdict.accuracy[0].classes) < 2:
        return []
    table = Table(title="mask AP by class")
    table.add_column("class")
    for column in ("objects", *(a.numbers.value.upper() for a in verdict.accuracy)):
        table.add_column(column, justify="right")
    for rows in zip(*(a.classes for a in verdict.accuracy), strict=True):
        table.add_row(rows[0].name, str(rows[0].objects), *(points(r.mask) for r in rows))
    return [table]


def _files(verdict: Verdict) -> RenderableType:
    from rich.table import Table

    table = Table(title=f"files, on {verdict.processor}")
    for column, justify in (("", "left"), ("size", "right"), ("median", "right"), ("p95", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for column in ("faster", "in 8 bits: asked", "run"):
        table.add_column(column, justify="right")
    speed = {} if verdict.speed is None else {r.precision: r for r in verdict.speed.rows}
    for model in verdict.models:
        name = model.numbers.value
        times = ["-", "-", "-"]
        if verdict.speed is not None and name in speed:
            gain = verdict.speed.gain(name)
            times = [f"{speed[name].median_ms:.1f} ms", f"{speed[name].p95_ms:.1f} ms"]
            times.append("-" if gain is None else f"{gain:.2f}x")
        shares = ["-", "-"]
        if model.numbers is Numbers.INT8:
            found = (verdict.coverage, verdict.ran)
            shares = ["-" if part is None else percent(part.share) for part in found]
        table.add_row(name.upper(), megabytes(model.bytes), *times, *shares)
    return table
