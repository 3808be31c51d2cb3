"""``centermask-edge convert``: an official checkpoint in, ours out; or back."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from centermask_edge.errors import ConfigError
from centermask_edge.switches import Rules

if TYPE_CHECKING:
    from rich.console import Console

    from centermask_edge.model.keys import KeyDifference


class Target(str, Enum):
    """What is written; the values are those of ``--to``."""

    OURS = "ours"
    OFFICIAL = "official"
    FP16 = "fp16"


def command(
    source: Annotated[Path, typer.Argument(help="Official .pth, or a .safetensors file.")],
    output: Annotated[Path, typer.Argument(help="The .safetensors (or .pth) file to write.")],
    preset: Annotated[
        str | None, typer.Option(help="Model of the checkpoint; default: told by its tensors.")
    ] = None,
    to: Annotated[
        Target,
        typer.Option(help="Names to write; fp16: our own file again, in half the space."),
    ] = Target.OURS,
) -> None:
    """Convert official checkpoints to this toolkit's, and back; weights keep their terms."""
    from rich.console import Console

    from centermask_edge.model.keys import KeyMismatchError

    console = Console(stderr=True)
    try:
        _convert(console, source, output, preset, to)
    except KeyMismatchError as error:
        _show(console, error.difference)
        raise


def _show(console: Console, difference: KeyDifference) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("tensors", "count", "first, by this toolkit's names", box=SIMPLE_HEAD)
    for kind, count, names in difference.rows():
        table.add_row(kind, count, names)
    console.print(table)


def _convert(console: Console, source: Path, output: Path, preset: str | None, to: Target) -> None:
    from centermask_edge.model.convert import to_fp16_file, to_official_file, to_ours

    if to is not Target.OURS:
        if preset is not None:
            raise ConfigError("--preset is for --to ours; our own files name their preset")
        write = to_official_file if to is Target.OFFICIAL else to_fp16_file
        config = write(source, output)
    else:
        config, left_out = to_ours(source, output, preset)
        if left_out:
            console.print(
                f"note: {', '.join(left_out)} ignored; the preset holds the pixel statistics"
            )
        if not config.mask_scoring:
            console.print("note: no mask-IoU head in it; mask scores are the box scores")
        if config.rules is Rules.ORIGINAL:
            console.print("note: weights of the first release; the model keeps that one's rules")
    console.print(f"wrote {output} ({config.name})", soft_wrap=True)
