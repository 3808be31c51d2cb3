"""``centermask-edge parity``: our numbers beside the official code's, and engine beside engine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from centermask_edge import __version__
from centermask_edge.cli.report import write_json, write_text
from centermask_edge.errors import ModelFileError, require
from centermask_edge.resources import CACHE_VARIABLE, shipped_model

if TYPE_CHECKING:
    from rich.console import Console

    from centermask_edge.model.centermask import CenterMask
    from centermask_edge.model.checks import Check, Table
    from centermask_edge.model.reference import Reference

Pictures = list[NDArray[np.uint8]]

GOLDEN_CONFIG = "lite_V_19_slim_dw"  # the lightest: it runs at the preset's full size
PACKAGES = ("torch", "numpy", "onnxruntime", "openvino")
FAILED = 1
WIDTH = 200  # characters: a figure cut in two cannot be read


def clip_frames(count: int) -> Pictures:
    """So many frames of the bundled clip, evenly spaced, uint8 (H, W, 3) BGR."""
    av = require("av", extra="cpu", why="read the bundled clip")
    with (
        as_file(files("centermask_edge") / "_clips" / "people.mp4") as path,
        av.open(str(path)) as container,
    ):
        frames = list(container.decode(video=0))
        chosen = np.linspace(0, len(frames) - 1, count).astype(int)
        return [frames[i].to_ndarray(format="bgr24") for i in chosen]


def folder_pictures(folder: Path) -> Pictures:
    """Every readable picture of a folder.

    Raises:
        SourceError: the folder is missing or holds none.
    """
    from centermask_edge.live.sources.pictures import FolderSource

    return [frame.image for frame in FolderSource(folder)]


@contextmanager
def _throwaway_folder() -> Iterator[Path]:
    """A folder for the files of this comparison; the engines' cache lies in it, too, so that
    models which live for a minute push none of the user's out of it.
    """
    before = os.environ.get(CACHE_VARIABLE)
    with tempfile.TemporaryDirectory() as name:
        os.environ[CACHE_VARIABLE] = name
        try:
            yield Path(name)
        finally:
            del os.environ[CACHE_VARIABLE]
            if before is not None:
                os.environ[CACHE_VARIABLE] = before


def engine_checks(
    reference: Reference, network: CenterMask | None, name: str, pictures: Pictures
) -> list[Check]:
    """The engines with golden weights, with a checkpoint if one is given, and with the shipped
    model if this installation holds it.
    """
    from centermask_edge.engines.agreement import (
        agreement_checks,
        checkpoint_checks,
        engine_runners,
    )
    from centermask_edge.model.parity import build_golden

    with _throwaway_folder() as folder:
        golden = build_golden(reference, GOLDEN_CONFIG)
        checks = checkpoint_checks(f"{GOLDEN_CONFIG}, golden weights", golden, folder, pictures)
        if network is not None:
            checks += checkpoint_checks(name, network, folder, pictures)
        try:
            shipped = shipped_model()
        except ModelFileError:
            return checks
        wanted, *others = engine_runners(shipped)
        return checks + agreement_checks(f"{shipped.name} as shipped", wanted, others, pictures)


def _versions() -> dict[str, str]:
    found = {"centermask-edge": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def page(tables: Sequence[Table], command_line: str) -> str:
    """The report as a Markdown page, the command that wrote it on top."""
    versions = ", ".join(f"{name} {number}" for name, number in _versions().items())
    intro = (
        "# Parity\n\n"
        "How closely this code follows the official code, and how closely the engines follow each "
        "other. Written whole by\n\n"
        f"    {command_line}\n\n"
        f"with {versions}. Nothing here is typed by hand; the command ends with exit code 1 where "
        "a row fails. The weights of the comparisons with the official code are made from the "
        "names and shapes of its tensors (`centermask_edge/model/golden_weights.py`), so no "
        "download is needed.\n"
    )
    return "\n".join([intro, *(table.to_markdown() for table in tables)])


def _show(console: Console, table: Table) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Drawn

    drawn = Drawn(title=table.title, box=SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    for index, column in enumerate(table.columns()):
        drawn.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in table.rows():
        drawn.add_row(*row)
    console.print(drawn)


def _command_line(options: dict[str, Path | None], frames: int) -> str:
    """What was typed, with the names of files and folders instead of their places."""
    words = ["centermask-edge", "parity"]
    for name, path in options.items():
        if path is not None:
            words += [f"--{name}", path.name if path.is_absolute() else path.as_posix()]
    return " ".join([*words, "--frames", str(frames)])


def command(
    reference: Annotated[
        Path | None,
        typer.Option(help="Folder of reference outputs; default: the checkout's tests/golden."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A .safetensors file to run in every engine, too.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures for the engines, with the clip's.")
    ] = None,
    frames: Annotated[
        int, typer.Option(min=1, max=100, help="Frames of the bundled clip for the engines.")
    ] = 6,
    out: Annotated[Path | None, typer.Option(help="Write a Markdown page.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the tables as JSON.")
    ] = None,
) -> None:
    """Compare with the official code, and engine with engine; exit code 1 where a row fails."""
    from rich.console import Console

    from centermask_edge.engines.agreement import engine_table
    from centermask_edge.model.checkpoint import load
    from centermask_edge.model.parity_tables import official_tables
    from centermask_edge.model.reference import Reference
    from centermask_edge.train.parity import training_tables

    golden = Reference.open(reference)
    network = None if checkpoint is None else load(checkpoint)
    name = "" if checkpoint is None else checkpoint.name
    pictures = clip_frames(frames) + ([] if images is None else folder_pictures(images))
    status = Console(stderr=True)
    tables = []
    with status.status("official code: detections and masks"):
        tables += official_tables(golden)
    with status.status("official code: a training step"):
        tables += training_tables(golden)
    with status.status("engines"):
        tables.append(engine_table(engine_checks(golden, network, name, pictures)))
    console = Console(width=max(Console().width, WIDTH))
    for table in tables:
        _show(console, table)
    options = {"reference": reference, "checkpoint": checkpoint, "images": images}
    line = _command_line({**options, "out": out, "json": json_path}, frames)
    passed = all(table.passed for table in tables)
    if out is not None:
        write_text(out, page(tables, line))
    if json_path is not None:
        content = {"command": line, "versions": _versions(), "passed": passed}
        content |= {"tables": [table.to_json() for table in tables]}
        write_json(json_path, content)
    if not passed:
        raise typer.Exit(FAILED)
