"""``centermask-edge calibrate``: chooses the pictures that a model is quantized with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from centermask_edge.cli.progress import counting
from centermask_edge.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from centermask_edge.quantize.picture_files import Purpose
    from centermask_edge.quantize.picture_set import Manifest
    from centermask_edge.quantize.picture_sources import PictureSource
    from centermask_edge.quantize.selection import Detect

_MIN_SCORE = 0.3  # of what the model finds: less is too often nothing
_CLASSES_SHOWN = 12


@contextmanager
def opened(
    text: str, classes: tuple[str, ...] | None, seed: int, max_frames: int | None
) -> Iterator[tuple[PictureSource, list[str]]]:
    """The source that the user named, and the warnings that reading it collects."""
    from centermask_edge.live.source import Kind
    from centermask_edge.live.sources.opening import open_source
    from centermask_edge.live.sources.pictures import read_picture
    from centermask_edge.quantize.picture_sources import (
        from_dataset,
        from_files,
        from_frames,
        is_dataset,
    )

    if is_dataset(text):
        yield from_dataset(Path(text), classes, read_picture, seed), []
        return
    source = open_source(text)
    try:
        if source.kind in (Kind.FOLDER, Kind.IMAGE):
            root = source.paths[0].parent
            yield from_files(root, source.paths, source.kind.value, read_picture, seed), []
            return
        if source.kind is not Kind.VIDEO and max_frames is None:
            raise ConfigError(
                f"{source.name} does not end by itself; say with --max-frames how many frames to "
                "look at, for example 9000 (5 minutes at 30 frames/s)"
            )
        file = source.paths[0] if source.paths else None
        kind, name, total = source.kind.value, source.name, source.total
        frames = from_frames(source, kind, name, file=file, total=total, limit=max_frames)
        yield frames, source.warnings
    finally:
        source.close()


def purpose_of(model: Path) -> tuple[Purpose, tuple[str, ...]]:
    """What the manifest says of a model, and its classes."""
    from centermask_edge.quantize.artefact import graph_hash, weights_hash
    from centermask_edge.quantize.collect import metadata_of
    from centermask_edge.quantize.model_file import load_float_model
    from centermask_edge.quantize.picture_files import Purpose
    from centermask_edge.quantize.picture_set import ModelRecord

    proto = load_float_model(model)
    metadata = metadata_of(proto)
    record = ModelRecord(file=model.name, weights=weights_hash(proto), graph=graph_hash(proto))
    return Purpose(record, metadata.preprocess), metadata.classes


def detector(model: Path, threads: int | None) -> Detect:
    """The model's own findings, for pictures without annotations."""
    from centermask_edge.engines import open_engine
    from centermask_edge.engines.segment import Segmenter
    from centermask_edge.quantize.collect import Picture
    from centermask_edge.quantize.facts import Objects

    segment = Segmenter(open_engine(model, None, threads, min_score=_MIN_SCORE))
    classes = segment.engine.metadata.classes

    def detect(picture: Picture) -> Objects:
        found = segment(picture)
        return Objects(found.boxes, tuple(classes[i] for i in found.classes))

    return detect


def coverage_table(record: Manifest) -> Table:
    """How many pictures show what: chosen, and there to choose from."""
    from rich.table import Table

    from centermask_edge.quantize.facts import KINDS, table

    result = Table(title=f"what the {len(record.pictures)} pictures show")
    for name in ("", "", "chosen", "looked at"):
        result.add_column(name, justify="right" if name else "left")
    for kind in (*KINDS, "class"):
        rows = table(record.available, kind)
        for value, available in rows[:_CLASSES_SHOWN]:
            first = kind if value == rows[0][0] else ""
            chosen = record.shows.get(f"{kind}: {value}", 0)
            result.add_row(first, value, str(chosen), str(available))
        if more := rows[_CLASSES_SHOWN:]:
            covered = sum(f"{kind}: {value}" in record.shows for value, _ in more)
            result.add_row("", f"{len(more)} more", f"{covered} of them", "")
        if rows:
            result.add_section()
    return result


def _tell(console: Console, record: Manifest, source: PictureSource, out: Path) -> None:
    Console().print(coverage_table(record))
    told = record.source
    text = (
        f"looked at {told.looked_at} pictures of {told.name}: {told.duplicates} near-duplicates, "
        f"{told.blank} black or of one colour left out"
    )
    if source.total is not None and source.files is not None and source.files > source.total:
        text += f"; a random sample of {source.files}"
    console.print(text, markup=False, highlight=False)
    if not any(fact.startswith("objects: ") for fact in record.available):
        console.print(
            "objects are not known here, so sizes and classes were not looked at: give --model",
            highlight=False,
        )
    console.print(f"wrote {out}", markup=False, highlight=False)


def command(
    source: Annotated[
        str,
        typer.Argument(help="COCO json file, folder of images, video, or rtsp:// address."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for manifest.json and frames.")],
    count: Annotated[int, typer.Option(help="Pictures to choose.")] = 128,
    model: Annotated[
        Path | None,
        typer.Option(help="The FP32 .onnx file: finds objects where none are annotated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides between pictures that are equal.")] = 0,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy files into the folder instead of naming them.")
    ] = False,
    max_frames: Annotated[
        int | None, typer.Option(help="Look at so many frames of a video or camera.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads of the model.")] = None,
) -> None:
    """Choose calibration pictures that cover sizes, classes, light and scenes."""
    from centermask_edge.quantize.picture_files import FrameFiles, drafting, write_set
    from centermask_edge.quantize.picture_sources import counted
    from centermask_edge.quantize.selection import check_count, select

    check_count(count)
    if max_frames is not None and max_frames < 1:
        raise ConfigError(f"--max-frames {max_frames}: wanted 1 or more")
    if seed < 0:
        raise ConfigError(f"--seed {seed}: wanted 0 or more")
    console = Console(stderr=True, soft_wrap=True)
    purpose, classes = purpose_of(model) if model is not None else (None, None)
    with opened(source, classes, seed, max_frames) as (pictures, warnings):
        annotated = pictures.kind == "dataset"
        detect = detector(model, threads) if model is not None and not annotated else None
        with drafting(out) as draft:
            frames = FrameFiles(draft)
            with counting(console, "looking", pictures.total) as progress:
                offers = counted(pictures.offers, progress)
                selection = select(offers, count, seed=seed, detect=detect, keeper=frames)
            written = write_set(
                out, selection, pictures, frames, seed=seed, purpose=purpose, copy=copy
            )
        for warning in warnings:
            console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
    _tell(console, written.record, pictures, out)
