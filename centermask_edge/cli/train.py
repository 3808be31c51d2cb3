"""``centermask-edge train``: a preset or recipe and annotated pictures in, a checkpoint out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from centermask_edge.cli.train_data import introduce, with_classes
from centermask_edge.errors import SinkError
from centermask_edge.train.recipes import read_recipe as read_recipe
from centermask_edge.train.recipes import run_settings as run_settings
from centermask_edge.train.recipes import settings

if TYPE_CHECKING:
    from rich.console import Console

    from centermask_edge.config import ModelConfig, TrainConfig
    from centermask_edge.evaluate.coco import Report
    from centermask_edge.train.loop import Progress

_LINE_EVERY = 50
_NOT_LEARNT = 1  # exit code


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
            self.bar.update(
                self.task, completed=progress.step, total=progress.steps, description=losses
            )
        elif progress.step % _LINE_EVERY == 0:
            self.console.print(f"step {progress.step}: {losses}, {progress.seconds:.2f} s")

    def report(self, step: int, result: Report) -> None:
        """Print an evaluation."""
        self.console.print(f"step {step}: box AP {result.box.ap:.1f}, mask AP {result.mask.ap:.1f}")

    def note(self, line: str) -> None:
        """Print something else worth knowing."""
        self.console.print(line, highlight=False, soft_wrap=True)


def command(
    annotations: Annotated[
        list[Path],
        typer.Argument(help="COCO json files with pictures in images/ beside each, or YOLO yaml."),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(help="Name of a shipped recipe (12ep ... 48ep, lite+), or a json file."),
    ] = None,
    preset_name: Annotated[str | None, typer.Option("--preset", help="Model to train.")] = None,
    val: Annotated[Path | None, typer.Option(help="Set to evaluate on; not trained on.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and logs; resumed from.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps in all.")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the pictures instead of --steps.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures per step, of all processes.")
    ] = None,
    auto_batch: Annotated[
        bool | None, typer.Option("--auto-batch", help="The largest batch that fits on the GPU.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts that each step's batch is computed in.")
    ] = None,
    base_lr: Annotated[float | None, typer.Option(help="Learning rate for a batch of 16.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Backbone weights: a file, or 'imagenet'.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to begin with, also of other classes: what fits is taken."),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option("--distill-from", "--teacher", help="Trained checkpoint that is imitated."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    bf16: Annotated[bool | None, typer.Option("--bf16", help="Compute in bfloat16.")] = None,
    fp16: Annotated[
        bool | None, typer.Option("--fp16", help="Compute in float16; CUDA only.")
    ] = None,
    ema: Annotated[
        float | None, typer.Option(help="Decay of the averaged weights, for example 0.9998.")
    ] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Evaluations without a better mask AP before it stops.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Stop with a checkpoint before so many have passed.")
    ] = None,
    tensorboard: Annotated[
        bool | None, typer.Option("--tensorboard/--no-tensorboard", help="TensorBoard curves.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that read pictures.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides order, crops and new weights.")] = None,
    sanity: Annotated[
        bool,
        typer.Option("--sanity", help="Learn a few pictures by heart; exit code 1 if it fails."),
    ] = False,
    curve: Annotated[
        Path | None, typer.Option("--json", help="File for the curve of --sanity.")
    ] = None,
) -> None:
    """Train a model; run again with the same --output to continue."""
    from rich.console import Console

    # A CPU compiles each convolution for each shape it meets; multi-scale batches meet more
    # shapes than oneDNN keeps by default. Read when torch is imported.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")
    given = {
        "annotations": annotations,
        "val_annotations": val,
        "output": output,
        "steps": steps,
        "epochs": epochs,
        "batch_size": batch_size,
        "auto_batch": auto_batch,
        "accumulate": accumulate,
        "base_lr": base_lr,
        "init": init,
        "start": start,
        "teacher": teacher,
        "device": device,
        "bf16": bf16,
        "fp16": fp16,
        "ema_decay": ema,
        "eval_every": eval_every,
        "patience": patience,
        "seconds": seconds,
        "tensorboard": tensorboard,
        "workers": workers,
        "threads": threads,
        "seed": seed,
    }
    console = Console(stderr=True)
    if sanity:
        raise typer.Exit(_sanity(console, recipe, preset_name, given, curve))
    model_config, config = settings(recipe, preset_name, given)
    model_config = with_classes(model_config, config)
    introduce(model_config, config, console)
    _train(console, model_config, config)


def _train(console: Console, model_config: ModelConfig, config: TrainConfig) -> None:
    from centermask_edge.train.loop import train

    display = Display(console, config.steps)
    try:
        path = train(model_config, config, display.step, display.report, on_note=display.note)
    finally:
        display.bar.stop()
    if os.environ.get("RANK", "0") == "0":
        console.print(f"weights: {path}", soft_wrap=True)


def _sanity(
    console: Console,
    recipe: str | None,
    preset_name: str | None,
    given: dict[str, Any],
    curve: Path | None,
) -> int:
    """Trains by heart and prints the verdict; the exit code."""
    from centermask_edge.train.sanity import overfit

    name = preset_name
    if name is None and recipe is not None:
        name = read_recipe(recipe).get("preset")
    given = {**given, "output": given["output"] or Path("runs/sanity")}
    model_config, config = settings("sanity", name, given)
    model_config = with_classes(model_config, config)
    display = Display(console, config.steps)
    try:
        verdict = overfit(model_config, config, display.step, display.report, display.note)
    finally:
        display.bar.stop()
    if curve is not None:
        content = {"model": model_config.name, "steps": config.steps, **verdict.to_json()}
        try:
            curve.write_text(json.dumps(content, indent=1) + "\n")
        except OSError as error:
            raise SinkError(f"cannot write {curve}: {error.strerror}") from None
    console.print(str(verdict), highlight=False, soft_wrap=True)
    return 0 if verdict.reached else _NOT_LEARNT
