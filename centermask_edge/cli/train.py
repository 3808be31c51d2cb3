"""``centermask-edge train``: a preset or recipe and COCO files in, a checkpoint out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from centermask_edge.config import ModelConfig, TrainConfig, preset
from centermask_edge.errors import ConfigError
from centermask_edge.resources import recipe_file

if TYPE_CHECKING:
    from rich.console import Console

    from centermask_edge.evaluate.coco import Report
    from centermask_edge.train.loop import Progress

_LINE_EVERY = 50


def read_recipe(name: str) -> dict[str, Any]:
    """The content of a shipped recipe or a json file.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    path = recipe_file(name)
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the recipe {path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict) or set(content) - {"preset", "train"}:
        raise ConfigError(f'the recipe {path} may hold "preset" and "train" and nothing else')
    return content


def settings(
    recipe: str | None, name: str | None, given: dict[str, Any]
) -> tuple[ModelConfig, TrainConfig]:
    """Model and run from a recipe, with the values given on the command line on top.

    Raises:
        ConfigError: unknown recipe or preset, or a value out of its range.
    """
    content = {} if recipe is None else read_recipe(recipe)
    chosen = name or content.get("preset")
    if chosen is None:
        raise ConfigError("no model named; give --preset NAME or --recipe NAME")
    return preset(chosen), run_settings(content.get("train", {}), given)


def run_settings(recipe: dict[str, Any], given: dict[str, Any]) -> TrainConfig:
    """A run from the values of a recipe, with those that are given on top.

    Raises:
        ConfigError: a value out of its range.
    """
    values = {**recipe, **{k: v for k, v in given.items() if v is not None}}
    try:
        return TrainConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"training setting {where}: {first['msg']}; got {first['input']!r}"
        ) from (None)


class Display:
    """A progress bar on a terminal; elsewhere a line every ``_LINE_EVERY`` steps."""

    def __init__(self, console: Console, steps: int) -> None:
        from rich.progress import Progress as Bar

        self.console = console
        self.bar = Bar(console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=steps)

    def step(self, progress: Progress) -> None:
        """Show a finished step; the bar appears with the first, after all checks of the input."""
        losses = " ".join(f"{k.removeprefix('loss_')} {v:.3f}" for k, v in progress.losses.items())
        if self.console.is_terminal:
            self.bar.start()
            self.bar.update(self.task, completed=progress.step, description=losses)
        elif progress.step % _LINE_EVERY == 0:
            self.console.print(f"step {progress.step}: {losses}, {progress.seconds:.2f} s")

    def report(self, step: int, result: Report) -> None:
        """Print an evaluation."""
        self.console.print(f"step {step}: box AP {result.box.ap:.1f}, mask AP {result.mask.ap:.1f}")


def command(
    annotations: Annotated[
        list[Path], typer.Argument(help="COCO json files; pictures in images/ beside each.")
    ],
    recipe: Annotated[
        str | None, typer.Option(help="Name of a shipped recipe, or the path of a json file.")
    ] = None,
    preset_name: Annotated[str | None, typer.Option("--preset", help="Model to train.")] = None,
    val: Annotated[Path | None, typer.Option(help="COCO json file to evaluate on.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and curves; resumed from.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps in all.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step.")] = None,
    base_lr: Annotated[float | None, typer.Option(help="Learning rate for a batch of 16.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Backbone weights: a file, or 'imagenet'.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Trained checkpoint whose features are imitated.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides order, crops and new weights.")] = None,
) -> None:
    """Train a model; run again with the same --output to continue."""
    from rich.console import Console

    # A CPU compiles each convolution for each shape it meets; multi-scale batches meet more
    # shapes than oneDNN keeps by default. Read when torch is imported.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")
    from centermask_edge.train.loop import train

    given = {
        "annotations": annotations,
        "val_annotations": val,
        "output": output,
        "steps": steps,
        "batch_size": batch_size,
        "base_lr": base_lr,
        "init": init,
        "teacher": teacher,
        "threads": threads,
        "seed": seed,
    }
    model_config, config = settings(recipe, preset_name, given)
    console = Console(stderr=True)
    display = Display(console, config.steps)
    try:
        path = train(model_config, config, display.step, display.report)
    finally:
        display.bar.stop()
    console.print(f"weights: {path}")
