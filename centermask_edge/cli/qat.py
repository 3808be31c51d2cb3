"""``centermask-edge qat``: an INT8 file that loses too much, trained against what it loses."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from centermask_edge.cli.progress import phases
from centermask_edge.cli.train import Display, read_recipe, run_settings
from centermask_edge.errors import ConfigError, SinkError
from centermask_edge.quantize.job import DEFAULT_BUDGET

if TYPE_CHECKING:
    import onnx
    from rich.console import Console

    from centermask_edge.config import ModelConfig, TrainConfig
    from centermask_edge.model.centermask import CenterMask
    from centermask_edge.quantize.qat import Start


def _config(recipe: str, model: ModelConfig, given: dict[str, Any]) -> TrainConfig:
    """The run; picture sizes are those the network was made for, unless the recipe says others."""
    prep = model.preprocess
    sizes = {"short_sides": (prep.short_side,), "long_side": prep.long_side}
    return run_settings({**sizes, **read_recipe(recipe).get("train", {})}, given)


def _check(target: Path, int8: Path, val: Path | None, budget: float, model: ModelConfig) -> None:
    """Nothing, if the result can be written and judged: said before the training, not after."""
    from centermask_edge.quantize.judged_set import read_set

    if target.suffix.lower() != ".onnx":
        raise ConfigError(f"--out {target}: the INT8 model is an .onnx file")
    if target.resolve() == int8.resolve():
        raise ConfigError(f"--out {target} is the file to start from; give another name")
    if not 0 < budget <= 100:
        raise ConfigError(f"--budget {budget:g}: points of mask AP, above 0, for example 0.3")
    if val is not None:
        read_set(val, model.classes, None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise SinkError(f"cannot write to {target.parent}: {error.strerror}") from None


def _start(int8: Path, network: CenterMask) -> Start:
    from centermask_edge.engines.tensorrt.prepared import load_model
    from centermask_edge.quantize.qat import start_from

    model, _ = load_model(int8)
    return start_from(model, network, str(int8))


def _trained(config: TrainConfig, start: Start, network: CenterMask) -> onnx.ModelProto:
    """The INT8 model of a finished run."""
    from centermask_edge.quantize.qat import trained_model
    from centermask_edge.train.qat import QUANTIZED_FILE, load_quantized

    trained, ranges = load_quantized(config.output, network.config)
    notes = {"checkpoint": QUANTIZED_FILE, "qat_steps": str(config.steps)}
    return trained_model(trained, ranges, start, notes)


def _judged(
    console: Console, out: Path, content: bytes, network: CenterMask, val: Path, budget: float
) -> int:
    """Puts the file where its verdict says; the exit code."""
    from centermask_edge.cli.verdict_table import show
    from centermask_edge.engines.files import write_whole
    from centermask_edge.graph.export import export
    from centermask_edge.quantize.judge import Candidates, Settings, judge
    from centermask_edge.quantize.publish import over_budget_file

    with tempfile.TemporaryDirectory(prefix=".judging-", dir=out.parent) as folder:
        exact = export(network, Path(folder) / "before-training.onnx", {})
        draft = write_whole(Path(folder) / out.name, content)
        with phases(console) as progress:
            settings = Settings(budget=budget)
            verdict = judge(Candidates(fp32=exact, int8=draft), val, settings, progress).verdict
        path = out if verdict.held else over_budget_file(out)
        draft.replace(path)
    show(verdict)
    console.print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False)
    return verdict.exit_code


def command(
    int8: Annotated[Path, typer.Argument(help="INT8 .onnx file that quantize wrote.")],
    annotations: Annotated[
        list[Path], typer.Argument(help="COCO json files; pictures in images/ beside each.")
    ],
    checkpoint: Annotated[
        Path, typer.Option(help="The .safetensors file that the INT8 file was made from.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for the run; resumed from.")] = Path(
        "runs/qat"
    ),
    out: Annotated[
        Path | None, typer.Option(help="INT8 file to write; default: int8.onnx in --output.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Name of a shipped recipe, or the path of a json file.")
    ] = "qat",
    val: Annotated[
        Path | None, typer.Option(help="COCO json file to judge with; not trained on.")
    ] = None,
    budget: Annotated[
        float, typer.Option(help="Points of mask AP that INT8 may cost; needs --val.")
    ] = DEFAULT_BUDGET,
    imitate: Annotated[
        bool, typer.Option(help="Also learn to give the features of the model in float.")
    ] = True,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps in all.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step.")] = None,
    base_lr: Annotated[float | None, typer.Option(help="Learning rate for a batch of 16.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides order and crops.")] = None,
) -> None:
    """Train a model with the rounding of its INT8 file; write a better INT8 file."""
    from rich.console import Console

    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")  # see train
    from centermask_edge.engines.files import write_whole
    from centermask_edge.model.checkpoint import load
    from centermask_edge.train.loop import train

    target = out or output / "int8.onnx"
    network = load(checkpoint)
    given: dict[str, Any] = {
        "annotations": annotations,
        "val_annotations": val,
        "checkpoint": checkpoint,
        "teacher": checkpoint if imitate else None,
        "output": output,
        "steps": steps,
        "batch_size": batch_size,
        "base_lr": base_lr,
        "threads": threads,
        "seed": seed,
    }
    config = _config(recipe, network.config, given)
    _check(target, int8, val, budget, network.config)
    start = _start(int8, network)
    console = Console(stderr=True, soft_wrap=True)
    display = Display(console, config.steps)
    try:
        train(network.config, config, display.step, display.report, start.spec)
    finally:
        display.bar.stop()
    content = _trained(config, start, network).SerializeToString(deterministic=True)
    if val is not None:
        raise typer.Exit(_judged(console, target, content, network, val, budget))
    write_whole(target, content)
    console.print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)", highlight=False)
    console.print("accuracy was not measured: give --val to have it judged", highlight=False)
