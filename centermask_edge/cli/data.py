"""``centermask-edge data``: what is in a data set, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from centermask_edge.cli.report import write_json, write_text
from centermask_edge.config import PreprocessConfig
from centermask_edge.config import preset as named_preset
from centermask_edge.data.dataset import as_coco

if TYPE_CHECKING:
    from rich.console import Console

    from centermask_edge.data.survey import Counts, Survey

UNFIT = 3  # exit code where training would refuse the set


def command(
    data: Annotated[
        Path, typer.Argument(help="COCO .json, YOLO data.yaml, or the folder that holds one.")
    ],
    html: Annotated[Path | None, typer.Option(help="Write the report as a page, too.")] = None,
    coco: Annotated[
        Path | None,
        typer.Option(help="Folder for train.json, val.json ...: the same set in COCO's format."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Model to train; its input size decides the levels.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Decode so many pictures at most; default: all.")
    ] = None,
) -> None:
    """Count what is in a data set and look for what is wrong; exit code 3 if it cannot be used."""
    from rich.console import Console
    from rich.progress import track

    from centermask_edge.data.survey import survey_all

    console = Console(stderr=True)

    def progress(images: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        return track(images, "decoding", console=console, transient=True)

    size = PreprocessConfig() if preset is None else named_preset(preset).preprocess
    surveys = survey_all(data, size, limit, progress)
    out = Console()
    for survey in surveys:
        show(survey, out)
    if html is not None:
        from centermask_edge.data.survey_page import survey_page

        write_text(html, survey_page(surveys))
        console.print(f"wrote {html}", highlight=False, soft_wrap=True)
    if any(survey.refused for survey in surveys):
        raise typer.Exit(UNFIT)
    if coco is not None:
        _write_coco(surveys, coco)
        names = ", ".join(f"{survey.split}.json" for survey in surveys)
        console.print(f"wrote {names} in {coco}", highlight=False, soft_wrap=True)


def _write_coco(surveys: Sequence[Survey], folder: Path) -> None:
    if not (folder / "images").exists():
        # Names of pictures lead out of this folder, which therefore must be there.
        write_text(folder / "images" / "README.txt", "The pictures are where the json files say.\n")
    for survey in surveys:
        write_json(folder / f"{survey.split}.json", as_coco(survey.annotations, folder))


def show(survey: Survey, console: Console) -> None:
    """Print a survey in full: classes, sizes and findings."""
    from rich.table import Table

    title = f"{survey.name}: {survey.pictures} pictures, {survey.objects} objects"
    table = Table(title=title)
    table.add_column("class")
    for column in ("objects", "pictures", "with a mask", "crowds"):
        table.add_column(column, justify="right")
    for row in survey.classes:
        figures = (row.objects, row.pictures, row.masks, row.crowds)
        table.add_row(row.name, *map(str, figures))
    console.print(table)
    for what, rows in (("sizes", survey.sizes), ("levels", survey.levels)):
        console.print(f"{what}: {_listed(rows)}", highlight=False)
    for line in finding_lines(survey):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def summary(survey: Survey) -> list[str]:
    """A survey in a few lines."""
    some = f"{survey.masks} of them with masks"
    masks = some if survey.masks < survey.objects else "all with masks"
    counted = tuple((row.name, row.objects) for row in survey.classes[:8])
    more = f" and {len(survey.classes) - 8} more classes" if len(survey.classes) > 8 else ""
    return [
        f"{survey.name}: {survey.pictures} pictures, {survey.objects} objects, {masks}",
        f"  {_listed(counted)}{more}; {_listed(survey.sizes)}",
        *(f"  {line}" for line in finding_lines(survey)),
    ]


def finding_lines(survey: Survey) -> list[str]:
    """What is wrong, a line for each kind."""
    found = survey.by_fault()
    if not found:
        return [f"nothing wrong found; {survey.decoded} of {survey.pictures} pictures decoded"]
    return [
        f"{len(lines)} x {fault.value} ({fault.effect.value}): {lines[0].line}"
        for fault, lines in found.items()
    ]


def _listed(rows: Counts) -> str:
    return ", ".join(f"{name} {count}" for name, count in rows)
