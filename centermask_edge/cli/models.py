"""``centermask-edge models``: every preset with its size, its cost and what was published of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from centermask_edge.cli.report import write_json
from centermask_edge.config import PRESETS, preset

if TYPE_CHECKING:
    from rich.console import Console

    from centermask_edge.model.census import Census

ROIS = 50  # of the multiply-adds: the most instances that a preset finds
WIDTH = 170  # characters: a row of figures is not wrapped
HEAD = (
    *("model", "input", "total M", "backbone", "FPN", "P6-7", "head", "mask", "mask IoU", "GMAC"),
    *("mask AP*", "box AP*", "* published by"),
)


def row(census: Census) -> dict[str, Any]:
    """One preset as plain values: parameters and multiply-adds as whole numbers."""
    from centermask_edge.model.published import PUBLISHED

    name, height, width = census.config.name, *census.input_size
    published = PUBLISHED.get(name)
    return {
        "name": name,
        "input": f"{height}x{width}",
        "parameters": {"total": census.parameters.total, **asdict(census.parameters)},
        "macs": {"total": census.macs.total(ROIS), **asdict(census.macs)},
        "published": None if published is None else asdict(published),
    }


def cells(data: dict[str, Any]) -> list[str]:
    """The same as a row of the table: parameters in millions, multiply-adds in billions."""
    published = data["published"]
    found = ["-"] * 3
    if published is not None:
        found = [str(published[key]) for key in ("mask_ap", "box_ap", "source")]
    parameters = [f"{value / 1e6:.3f}" for value in data["parameters"].values()]
    gmac = f"{data['macs']['total'] / 1e9:.2f}"
    return [data["name"], data["input"], *parameters, gmac, *found]


def _show(console: Console, rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, title in enumerate(HEAD):
        table.add_column(title, justify="right" if 0 < index < len(HEAD) - 1 else "left")
    for data in rows:
        table.add_row(*cells(data))
    console.print(table)


def command(
    names: Annotated[list[str] | None, typer.Argument(help="Presets; default: all.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the table as JSON.")
    ] = None,
) -> None:
    """List the presets: [lite-]BODY[-v1], with parameters, multiply-adds and published AP."""
    from rich.console import Console

    from centermask_edge.model.census import take_census

    configs = [preset(name) for name in names or PRESETS]
    with Console(stderr=True).status("building the networks without weights"):
        rows = [row(take_census(config)) for config in configs]
    _show(Console(width=max(Console().width, WIDTH)), rows)
    if json_path is not None:
        write_json(json_path, {"rois": ROIS, "rows": rows})
