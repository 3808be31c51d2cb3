"""The search for what stays in float, as ``quantize`` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from centermask_edge.cli.progress import phases

if TYPE_CHECKING:
    from rich.table import Table

    from centermask_edge.quantize.artefact import CalibrationPicture
    from centermask_edge.quantize.chosen import Chosen
    from centermask_edge.quantize.job import Job, Ready


_WIDE = 240  # columns


def searched(
    job: Job, ready: Ready, pictures: Sequence[CalibrationPicture], val: Path, console: Console
) -> Chosen:
    """The plan with the fewest parts in float that holds the budget; what was found is shown."""
    from centermask_edge.quantize.chosen import choose

    console.print("past the budget: looking for what must stay in float", highlight=False)
    try:
        with phases(console) as progress:
            chosen = choose(job, ready, pictures, val, progress=progress)
    except KeyboardInterrupt:
        console.print("search interrupted; the same command goes on from there", highlight=False)
        raise
    if chosen.ranking is not None and chosen.found.kept:
        # As wide as its names: a pattern that is cut or folded cannot be copied into a plan.
        Console(soft_wrap=True, width=_WIDE).print(kept_table(chosen))
    console.print(chosen.found.sentence(), markup=False, highlight=False)
    if chosen.file is not None:
        console.print(f"wrote {chosen.file}, a plan for --recipe", markup=False, highlight=False)
    return chosen


def kept_table(chosen: Chosen) -> Table:
    """The parts that stay in float, with their rank and the noise that 8 bits would cause."""
    from rich.table import Table

    from centermask_edge.quantize.sensitivity import decibels

    ranking = chosen.ranking
    assert ranking is not None
    kinds = list(ranking.everything)
    title = "kept in float; signal to noise of it alone in 8 bits, dB"
    table = Table(title=title, caption=f"on {ranking.pictures} calibration pictures")
    for name in ("rank", "multiply-adds", *kinds):
        table.add_column(name, justify="right")
    table.add_column("part", no_wrap=True)
    names = [unit.name for unit in ranking.units]
    total = sum(unit.macs for unit in ranking.units)
    for unit in chosen.found.kept:
        part = ranking.of(unit)
        ratios = (decibels(part.alone[kind]) for kind in kinds)
        figures = ("exact" if value is None else f"{value:.1f}" for value in ratios)
        share = f"{unit.macs / total:.1%}" if total else "-"
        table.add_row(str(names.index(unit.name) + 1), share, *figures, unit.name)
    return table
