"""``centermask-edge convert``: an official checkpoint in, ours out; or back."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from centermask_edge.errors import ConfigError


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

    from centermask_edge.model.convert import to_fp16_file, to_official_file, to_ours

    console = Console(stderr=True)
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
    console.print(f"wrote {output} ({config.name})", soft_wrap=True)
