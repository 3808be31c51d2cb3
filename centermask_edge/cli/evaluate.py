"""``centermask-edge evaluate``: box and mask AP of a checkpoint or of any engine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from centermask_edge.cli.report import write_json
from centermask_edge.data.coco import Sample
from centermask_edge.engines.base import EngineName
from centermask_edge.evaluate.coco import Report, Segment


def segmenter(
    model: Path, engine: EngineName | None, threads: int | None
) -> tuple[str, tuple[str, ...], Segment]:
    """Name of what runs the model, its classes, and a function from picture to instances."""
    if model.suffix in (".safetensors", ".pth", ".pt"):
        import torch

        from centermask_edge.model.checkpoint import load
        from centermask_edge.model.predict import segment

        if threads:
            torch.set_num_threads(threads)
        network = load(model)
        name = f"torch {torch.__version__}"
        return name, network.config.classes, lambda image: segment(network, image)
    from centermask_edge.engines import open_engine
    from centermask_edge.engines.segment import Segmenter

    runner = Segmenter(open_engine(model, engine, threads))
    return runner.engine.name, runner.engine.metadata.classes, runner


def _table(report: Report, title: str) -> object:
    from rich.table import Table

    table = Table(title=title)
    for column in ("", "AP", "AP50", "AP75", "small", "medium", "large"):
        table.add_column(column, justify="right")
    for name, row in (("box", report.box), ("mask", report.mask)):
        values = (row.ap, row.ap50, row.ap75, row.small, row.medium, row.large)
        table.add_row(name, *(f"{v:.1f}" if v >= 0 else "-" for v in values))
    return table


def command(
    annotations: Annotated[
        Path, typer.Argument(help="COCO json file with masks; pictures in images/ beside it.")
    ],
    model: Annotated[
        Path | None, typer.Option(help=".onnx or .safetensors file; default: the shipped model.")
    ] = None,
    engine: Annotated[
        EngineName | None, typer.Option(help="What runs an .onnx file.", show_default=False)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the result here, too.")
    ] = None,
) -> None:
    """Measure box and mask AP by the COCO protocol, on this data set."""
    from rich.console import Console
    from rich.progress import track

    from centermask_edge.engines.shipped import default_model
    from centermask_edge.evaluate.coco import evaluate

    path = model or default_model(engine)
    name, classes, segment = segmenter(path, engine, threads)
    console = Console(stderr=True)

    def progress(samples: Iterable[Sample]) -> Iterable[Sample]:
        return track(list(samples), "evaluating", console=console)

    report = evaluate(segment, annotations, classes, progress)
    title = f"{path.name}, {name}, {report.images} images, {report.instances} objects"
    Console().print(_table(report, title))
    if json_path is not None:
        content = {
            "model": path.name,
            "engine": name,
            "annotations": "/".join(annotations.parts[-2:]),
            **report.to_json(),
        }
        write_json(json_path, content)
