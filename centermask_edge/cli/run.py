"""``centermask-edge run``: segment a video, an image, a folder, a webcam or a stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from centermask_edge.cli.report import write_json
from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.base import Engine, EngineName
from centermask_edge.errors import ConfigError, SinkError, SourceError
from centermask_edge.measure.stages import WARM_UP, processor_name, usable_processors

if TYPE_CHECKING:
    from rich.console import Console

    from centermask_edge.live.pipeline import Outputs, RunResult
    from centermask_edge.live.source import Source

SIGNALLED = 128  # plus the number of the signal, as shells write it


def _preprocess(config: PreprocessConfig, size: int | None) -> PreprocessConfig:
    if size is None:
        return config
    if not 32 <= size <= 4096:
        raise ConfigError(f"--size {size}: the short side is 32 to 4096 pixels")
    long_side = round(config.long_side * size / config.short_side)
    return config.model_copy(update={"short_side": size, "long_side": long_side})


def _check(score: float, max_frames: int | None) -> None:
    if not 0 <= score <= 1:
        raise ConfigError(f"--score {score:g}: a score is between 0 and 1")
    if max_frames is not None and max_frames < 1:
        raise ConfigError(f"--max-frames {max_frames}: wanted 1 or more")


def _outputs(
    source: Source, out: Path | None, lines: Path | None, stages: Path | None, show: bool
) -> Outputs:
    """Every output, opened or checked, so that nothing fails after minutes of work."""
    from centermask_edge.live.outputs.sinks import (
        JsonLines,
        WindowSink,
        check_writable,
        picture_sink,
    )
    from centermask_edge.live.pipeline import Outputs
    from centermask_edge.live.source import Kind

    named = [path.resolve() for path in (out, lines, stages) if path is not None]
    if len(set(named)) < len(named):
        raise SinkError("--out, --json and --stages-json name the same file; give each its own")
    for path in (lines, stages):
        if path is not None:
            check_writable(path, source)
    pictures = [] if out is None else [picture_sink(out, source)]
    window = WindowSink(wait=source.kind in (Kind.IMAGE, Kind.FOLDER)) if show else None
    return Outputs(pictures, window, None if lines is None else JsonLines(lines))


def _facts(
    result: RunResult, source: Source, engine: Engine, threads: int | None
) -> dict[str, Any]:
    """What the figures were measured on and with, for the table and its JSON."""

    def size(value: tuple[int, int] | None) -> str:
        return "none" if value is None else f"{value[1]}x{value[0]}"

    return {
        "source": source.name,
        "source_size": size(result.source_size),
        "model": engine.metadata.preset,
        "network_input": size(result.input_size),
        "engine": engine.name,
        "threads": threads or usable_processors(),
        "processor": processor_name(),
        "instances": result.instances,
        **result.stages.to_json(),
        **_gpu_stages(engine),
    }


def _gpu_stages(engine: Engine) -> dict[str, Any]:
    """Where the time went on the GPU, of an engine that measures there; else nothing."""
    measured = list(getattr(engine, "gpu_times", ()))[WARM_UP:]
    if not measured:
        return {}
    rows = []
    for name in measured[0].__slots__:
        p50, p95, p99 = np.percentile([getattr(times, name) for times in measured], (50, 95, 99))
        row = {"p50_ms": round(p50, 3), "p95_ms": round(p95, 3), "p99_ms": round(p99, 3)}
        rows.append({"stage": name.removesuffix("_ms"), **row})
    return {"gpu_stages": rows}


@contextmanager
def _closing(engine: Engine) -> Iterator[None]:
    """Closes an engine that holds more than memory, however the block ends."""
    try:
        yield
    finally:
        close = getattr(engine, "close", None)
        if close is not None:
            close()


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _table(console: Console, title: str, rows: list[dict[str, Any]], digits: int) -> None:
    from rich.table import Table

    table = Table(title=title)
    for column in ("stage", "p50", "p95", "p99"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for row in rows:
        values = (row["p50_ms"], row["p95_ms"], row["p99_ms"])
        table.add_row(row["stage"], *(f"{value:.{digits}f}" for value in values))
    console.print(table)


def _show(console: Console, facts: dict[str, Any]) -> None:
    if facts["stages"]:
        _table(console, "milliseconds per frame", facts["stages"], 1)
    if facts.get("gpu_stages"):
        _table(console, "of these on the GPU, by its own clock", facts["gpu_stages"], 3)
    count = f"{_plural(facts['frames'], 'frame')}, {_plural(facts['instances'], 'instance')}"
    rate = f"{facts['frames_per_second']:.1f} frames/s; the first frame is not in the figures"
    console.print(f"{count}, {rate}" if facts["stages"] else count, highlight=False)
    console.print(
        f"{facts['model']} on {facts['engine']}, {facts['threads']} threads of "
        f"{facts['processor']}, {facts['source_size']} as {facts['network_input']}",
        highlight=False,
    )


def _complain(console: Console, warnings: list[str]) -> None:
    """What could not be read, the last line as the error that decides the exit code.

    The outputs are whole by now and hold everything else.
    """
    for warning in warnings[:-1]:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
    if warnings:
        raise SourceError(f"{warnings[-1]}; the results hold everything else")


def command(
    source: Annotated[
        str,
        typer.Argument(help="Video, image, folder of images, webcam number, or rtsp:// address."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Annotated video, image or folder to write.")
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="JSON lines to write, one a frame.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Open a window; q or Esc ends.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="An .onnx file or a TensorRT engine; default: the shipped person model."),
    ] = None,
    engine: Annotated[
        EngineName | None, typer.Option(help="What runs the model.", show_default="openvino")
    ] = None,
    score: Annotated[float, typer.Option(help="Least box score of an instance.")] = 0.4,
    max_frames: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Short side of the network's input in pixels.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads of the engine.")] = None,
    stages_json: Annotated[
        Path | None, typer.Option(help="Write the table of times here, as JSON.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build a TensorRT engine that does not fit again.")
    ] = False,
) -> None:
    """Segment the objects in a source; at the end, a table of where the time went."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from centermask_edge.engines import open_engine
    from centermask_edge.engines.shipped import default_model
    from centermask_edge.live.pipeline import process
    from centermask_edge.live.sources.opening import open_source

    _check(score, max_frames)
    console = Console(stderr=True, soft_wrap=True)
    frames = open_source(source)
    try:
        outputs = _outputs(frames, out, json_path, stages_json, show)
        runner = open_engine(model or default_model(engine), engine, threads, score, rebuild)
        preprocess = _preprocess(runner.metadata.preprocess, size)
    except BaseException:
        frames.close()
        raise
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    total = min((n for n in (frames.total, max_frames) if n), default=None)
    task = bar.add_task(frames.name, total=total)
    outputs.on_frame = lambda frame, instances: bar.advance(task)
    with bar, _closing(runner):
        result = process(frames, runner, preprocess, outputs, score=score, max_frames=max_frames)
    facts = _facts(result, frames, runner, threads)
    if stages_json is not None:
        write_json(stages_json, facts)
    _show(console, facts)
    if result.note:
        console.print(f"note: {result.note}", style="yellow", markup=False, highlight=False)
    if out is not None:
        console.print(f"wrote {out}", markup=False, highlight=False)
    if result.stopped_by:
        raise typer.Exit(SIGNALLED + result.stopped_by)
    _complain(console, frames.warnings)
