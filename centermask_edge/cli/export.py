"""``centermask-edge export``: a checkpoint in, the one ONNX file out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from centermask_edge.errors import ConfigError


def _notes(pairs: list[str]) -> dict[str, str]:
    notes = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ConfigError(f"--note {pair!r}: wanted KEY=VALUE, for example run=night-3")
        notes[key] = value
    return notes


def command(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors file of this toolkit.")],
    output: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
    fp16_weights: Annotated[
        bool, typer.Option(help="Store large weights as fp16: half the file, fp32 arithmetic.")
    ] = False,
    note: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE kept in the file's metadata.")
    ] = None,
) -> None:
    """Write the ONNX file that every engine runs."""
    from rich.console import Console

    from centermask_edge.graph.export import export
    from centermask_edge.model.checkpoint import load

    notes = {"checkpoint": checkpoint.name, **_notes(note or [])}
    path = export(load(checkpoint), output, notes, fp16_weights=fp16_weights)
    size = path.stat().st_size / 1e6
    Console(stderr=True).print(f"wrote {path} ({size:.1f} MB)")
