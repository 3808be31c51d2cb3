"""A verdict on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

    from centermask_edge.quantize.verdict import Verdict


def accuracy_table(verdict: Verdict) -> Table:
    """Box and mask AP of every file, and what the judged one loses."""
    from rich.table import Table

    told = verdict.annotations
    title = f"{verdict.preset} on {told.name}, {told.images} images, {told.objects} objects"
    table = Table(title=title)
    for column in ("", "", "AP", "AP50", "AP75", "small", "medium", "large", "lost"):
        table.add_column(column, justify="right" if column else "left")
    lost = {loss.numbers: loss for loss in verdict.losses}
    for kind in ("box", "mask"):
        for row in verdict.accuracy:
            values = getattr(row, kind).values()
            loss = lost.get(row.numbers)
            change = "" if loss is None else f"{getattr(loss, kind):+.2f}"
            figures = ("-" if v is None else f"{v:.2f}" for v in values)
            table.add_row(kind, row.numbers.value.upper(), *figures, change)
        table.add_section()
    return table


def show(verdict: Verdict) -> None:
    """Prints it: figures on stdout, as those of ``evaluate``."""
    out = Console(soft_wrap=True)
    out.print(accuracy_table(verdict))
    for line in lines(verdict):
        out.print(line, markup=False, highlight=False)


def lines(verdict: Verdict) -> list[str]:
    """What is not in the table."""
    found = []
    if verdict.coverage is not None:
        text = f"{verdict.coverage.share:.1%} of the multiply-adds are to be done in 8 bits"
        if verdict.ran is not None:
            text += f", {verdict.ran.share:.1%} are by {verdict.ran.engine}"
        found.append(text)
    if verdict.speed is not None:
        height, width = verdict.speed.input_size
        times = (f"{r.precision.upper()} {r.median_ms:.1f} ms" for r in verdict.speed.rows)
        found.append(f"one picture of {width}x{height}: {', '.join(times)} on {verdict.processor}")
    outcome = (verdict.sentence(), verdict.certainty(), *verdict.notes)
    return [*found, *(text for text in outcome if text)]
