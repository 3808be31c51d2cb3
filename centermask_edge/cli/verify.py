"""``centermask-edge verify``: an engine against ONNX Runtime on this very device."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from centermask_edge.cli.report import write_json
from centermask_edge.errors import ConfigError, SourceError

if TYPE_CHECKING:
    import onnx
    from rich.console import Console

    from centermask_edge.engines.tensorrt.compare import Compared
    from centermask_edge.engines.tensorrt.engine import TensorRtEngine
    from centermask_edge.engines.tensorrt.manifest import Manifest
    from centermask_edge.engines.tensorrt.verify import Sample, Verdict

DIVERGES = 3
_CLIP = Path(__file__).parents[1] / "_clips" / "people.mp4"


def _pictures(folder: Path | None, count: int) -> list[NDArray[np.uint8]]:
    """Pictures evenly spread over a folder (or a video), the bundled clip where none is named."""
    from centermask_edge.live.sources.opening import open_source

    source = open_source(str(_CLIP if folder is None else folder))
    try:
        step = max((source.total or count) // count, 1)
        frames = itertools.islice(iter(source), step // 2, None, step)
        found = [frame.image.copy() for frame in itertools.islice(frames, count)]
    finally:
        source.close()
    if not found:
        raise SourceError(f"{folder}: no picture in it can be read")
    return found


def _fitting(given: list[Sample], engine: TensorRtEngine) -> Iterator[Sample]:
    """Those of the samples that the engine was built for."""
    refusal: ConfigError | None = None
    some = False
    for sample in given:
        try:
            engine.check(tuple(sample.images.shape))
        except ConfigError as error:
            refusal = refusal or error
            continue
        some = True
        yield sample
    if refusal is not None and not some:
        raise refusal


class _Builder:
    """Engines with further outputs, built as the one that is verified."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self._manifest, self._folder, self._count = manifest, folder, 0

    def __call__(self, model: onnx.ModelProto, shape: tuple[int, ...]) -> TensorRtEngine:
        from centermask_edge.engines.tensorrt.build import Options, build_engine
        from centermask_edge.engines.tensorrt.manifest import Range, Shapes
        from centermask_edge.engines.tensorrt.open import open_tensorrt

        self._count += 1
        path = self._folder / f"marked{self._count}.onnx"
        path.write_bytes(model.SerializeToString())
        batch, height, width = (Range(min=n, opt=n, max=n) for n in (shape[0], *shape[2:]))
        options = Options(
            self._manifest.precision,
            Shapes(batch=batch, height=height, width=width),
            self._manifest.workspace_mib,
            flavor=self._manifest.flavor,
        )
        built = build_engine(path, self._folder, options, self._manifest.model)
        return open_tensorrt(built.engine)


def _rows(compared: tuple[Compared, ...]) -> list[dict[str, Any]]:
    return [
        {
            "tensor": row.name,
            "error": row.error if np.isfinite(row.error) else str(row.error),
            "limit": row.limit,
            "at": list(row.at),
            "engine": row.found if np.isfinite(row.found) else str(row.found),
            "reference": row.wanted,
            "agrees": row.agrees,
        }
        for row in compared
    ]


def _table(console: Console, title: str, compared: tuple[Compared, ...]) -> None:
    from rich.table import Table

    table = Table(title=title)
    for column in ("tensor", "error", "limit", "largest at", "engine", "reference", ""):
        table.add_column(column, justify="left" if column == "tensor" else "right", overflow="fold")
    for row in compared:
        place = ",".join(map(str, row.at))
        values = (f"{row.error:.1e}", f"{row.limit:.1e}", place)
        verdict = "agrees" if row.agrees else "DIVERGES"
        table.add_row(row.name, *values, f"{row.found:.4g}", f"{row.wanted:.4g}", verdict)
    console.print(table)


def _summary(verdict: Verdict) -> str:
    if verdict.first is not None:
        return (
            f"the engine DIVERGES; the first tensor that does is {verdict.first.name}, "
            f"made by {verdict.first.op} {verdict.first.node}"
        )
    if not verdict.agrees and verdict.layers:
        return (
            "the engine DIVERGES, but built with its layers marked as outputs no layer does: a "
            "fusion that marking prevents is to blame"
        )
    if not verdict.agrees:
        return "the engine DIVERGES"
    pictures, objects = _plural(verdict.pictures, "picture"), _plural(verdict.objects, "object")
    basis = objects if verdict.objects else "by its layers: no object was found"
    return f"the engine agrees with ONNX Runtime on {pictures}, {basis}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def command(
    engine: Annotated[Path, typer.Argument(help="A TensorRT engine with its manifest.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures, or a video; the bundled clip where none."),
    ] = None,
    count: Annotated[int, typer.Option(help="Compare at most so many pictures.")] = 8,
    score: Annotated[float, typer.Option(help="Compare objects of at least this score.")] = 0.4,
    layers: Annotated[
        bool, typer.Option("--layers", help="Look into the network even where outputs agree.")
    ] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write everything here, too.")
    ] = None,
) -> None:
    """Compare an engine with ONNX Runtime; exit code 3 and the first layer where they diverge."""
    from rich.console import Console

    from centermask_edge.engines.tensorrt.manifest import onnx_path, read_manifest
    from centermask_edge.engines.tensorrt.open import open_tensorrt
    from centermask_edge.engines.tensorrt.verify import load_reference, samples, verify
    from centermask_edge.preprocess import Preprocess

    if count < 1:
        raise ConfigError(f"--count {count}: wanted 1 or more")
    if not 0 <= score <= 1:
        raise ConfigError(f"--score {score:g}: a score is between 0 and 1")
    console = Console(stderr=True, soft_wrap=True)
    manifest = read_manifest(engine)
    model = load_reference(onnx_path(engine, manifest))
    pictures = _pictures(images, count)
    with ExitStack() as stack:
        runner = stack.enter_context(open_tensorrt(engine))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        given = list(_fitting(samples(pictures, Preprocess(manifest.model.preprocess)), runner))
        verdict = verify(
            model,
            runner,
            manifest.precision,
            given,
            _Builder(manifest, folder),
            score=score,
            layers=layers,
            told=lambda line: console.print(line, markup=False, highlight=False),
        )
        name = runner.name
    _report(console, verdict, json_path, {"engine": str(engine), "runner": name, **_of(manifest)})
    if not verdict.agrees:
        raise typer.Exit(DIVERGES)


def _of(manifest: Manifest) -> dict[str, str]:
    return {"gpu": manifest.gpu, "driver": manifest.driver, "precision": manifest.precision.value}


def _report(
    console: Console, verdict: Verdict, json_path: Path | None, facts: dict[str, str]
) -> None:
    _table(console, "outputs", verdict.outputs)
    if verdict.layers:
        _table(console, "layers, in order", verdict.layers)
    console.print(_summary(verdict), markup=False, highlight=False)
    if json_path is not None:
        first = None if verdict.first is None else verdict.first.name
        found = {"outputs": _rows(verdict.outputs), "layers": _rows(verdict.layers)}
        counts = {"pictures": verdict.pictures, "objects": verdict.objects}
        result = {"agrees": verdict.agrees, "first": first}
        write_json(json_path, {**facts, **result, **counts, **found})
