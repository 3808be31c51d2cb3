"""``centermask-edge evaluate``: box and mask AP of a checkpoint or of any engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import centermask_edge
from centermask_edge.cli.report import write_json, write_text
from centermask_edge.data.coco import Sample
from centermask_edge.engines.base import EngineName
from centermask_edge.evaluate.coco import Report, Segment

if TYPE_CHECKING:
    from centermask_edge.evaluate.findings import Findings


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


def _tables(report: Report, title: str) -> Iterator[object]:
    from rich.table import Table

    from centermask_edge.evaluate.evaluation_page import points, precision_cells

    table = Table(title=title)
    for column in ("", "AP", "AP50", "AP75", "small", "medium", "large"):
        table.add_column(column, justify="right")
    for name, row in (("box", report.box), ("mask", report.mask)):
        table.add_row(name, *precision_cells(row))
    yield table
    found = [row for row in report.classes if row.objects]
    if len(found) > 1:
        table = Table(title="by class, the worst first")
        table.add_column("class")
        for column in ("objects", "box AP", "mask AP", "AP50", "AP75", "small", "medium", "large"):
            table.add_column(column, justify="right")
        for each in sorted(found, key=lambda row: row.mask.ap):
            cells = precision_cells(each.mask)
            table.add_row(each.name, str(each.objects), points(each.box.ap), *cells)
        yield table


def _errors(findings: Findings) -> object:
    from rich.table import Table

    table = Table(title="what errors cost, in points of AP at IoU 0.5")
    table.add_column("error")
    for column in ("mask", "how many", "box", "how many"):
        table.add_column(column, justify="right")
    for mask, box in zip(findings.mask.costs, findings.box.costs, strict=True):
        figures = (f"{mask.points:.1f}", str(mask.count), f"{box.points:.1f}", str(box.count))
        table.add_row(mask.kind.value, *figures)
    return table


def command(
    annotations: Annotated[
        Path,
        typer.Argument(help="COCO json, YOLO yaml (its val part) or a folder; with masks."),
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
    html: Annotated[
        Path | None, typer.Option(help="Write a page: curves, confusions, worst pictures.")
    ] = None,
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Least score in confusions and pictures.")
    ] = 0.4,
) -> None:
    """Measure box and mask AP by the COCO protocol, and say what the errors cost."""
    from rich.console import Console
    from rich.progress import track

    from centermask_edge.engines.shipped import default_model
    from centermask_edge.evaluate.coco import evaluate_all
    from centermask_edge.evaluate.findings import look_into

    path = model or default_model(engine)
    name, classes, segment = segmenter(path, engine, threads)
    console = Console(stderr=True)

    def progress(samples: Iterable[Sample]) -> Iterable[Sample]:
        return track(list(samples), "evaluating", console=console)

    evaluation = evaluate_all(segment, annotations, classes, progress)
    findings = look_into(evaluation, score)
    report = evaluation.report
    title = f"{path.name}, {name}, {report.images} images, {report.instances} objects"
    out = Console()
    for table in (*_tables(report, title), _errors(findings)):
        out.print(table)
    about = {
        "model": path.name,
        "engine": name,
        "annotations": "/".join(annotations.parts[-2:]),
    }
    if json_path is not None:
        write_json(json_path, {**about, **report.to_json(), **findings.to_json()})
    if html is not None:
        from centermask_edge.evaluate.evaluation_page import evaluation_page

        rows = (
            ("model", about["model"]),
            ("set", about["annotations"]),
            ("run by", name),
            ("centermask-edge", centermask_edge.__version__),
        )
        write_text(html, evaluation_page(findings, rows))
        console.print(f"wrote {html}", highlight=False, soft_wrap=True)
