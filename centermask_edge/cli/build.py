"""``centermask-edge build``: an ONNX file in, a TensorRT engine out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from centermask_edge.engines.tensorrt.api import Flavor
from centermask_edge.engines.tensorrt.build import Built, Options, build_engine
from centermask_edge.engines.tensorrt.child import Progress
from centermask_edge.engines.tensorrt.fit import size_text
from centermask_edge.engines.tensorrt.manifest import Manifest, Precision
from centermask_edge.engines.tensorrt.prepared import load_model
from centermask_edge.engines.tensorrt.shapes import parse_batch, parse_size
from centermask_edge.engines.tensorrt.targets import parse_targets
from centermask_edge.errors import ConfigError
from centermask_edge.resources import shipped_model

_LARGEST_WORKSPACE_MIB = 1 << 20


@contextmanager
def progress_bars(console: Console) -> Iterator[Progress]:
    """One bar a phase of the build; nothing where nobody looks."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {"": bars.add_task("starting TensorRT", total=None)}

        def show(phase: str, step: int, steps: int) -> None:
            if phase not in tasks:
                bars.update(tasks[""], visible=False)
                tasks[phase] = bars.add_task(phase, total=steps)
            bars.update(tasks[phase], completed=step, total=steps, visible=step < steps)

        yield show


def _calibrated(model: Path, pictures: Path, folder: Path) -> Path:
    """A quantized copy of the model beside the engine to come."""
    from centermask_edge.engines.files import write_whole
    from centermask_edge.graph.precision import is_quantized
    from centermask_edge.live.sources.pictures import FolderSource
    from centermask_edge.quantize import max_int8

    proto, _ = load_model(model)
    if is_quantized(proto):
        raise ConfigError(f"{model} is quantized already; leave --calibrate away")
    if not pictures.is_dir():
        raise ConfigError(f"--calibrate {pictures}: wanted a folder with a few dozen pictures")
    quantized = max_int8(proto, (frame.image for frame in FolderSource(pictures)))
    return write_whole(folder / f"{model.stem}-int8.onnx", quantized.SerializeToString())


def _probe(model: Path, pictures: Path) -> None:
    """Runs the model in fp32 on pictures; see ``check_activations`` for what is refused."""
    from centermask_edge.graph.precision import check_activations, with_plain_weights
    from centermask_edge.live.sources.pictures import FolderSource
    from centermask_edge.quantize.collect import collect

    if not pictures.is_dir():
        raise ConfigError(f"--probe {pictures}: wanted a folder with a few pictures")
    plain = with_plain_weights(load_model(model)[0])
    # Where values grow; what lies between only selects, bounds or normalises them.
    makers = ("Conv", "ConvTranspose", "Gemm", "Add", "Mul")
    nodes = [n for n in plain.graph.node if n.op_type in makers and not n.name.startswith("glue/")]
    tensors = [node.output[0] for node in nodes]
    seen = collect(plain, tensors, (frame.image for frame in FolderSource(pictures)))
    check_activations({name: found.maximum for name, found in seen.histograms.items()})


def _precision(model: Path, precision: Precision | None) -> Precision:
    """What was asked for; else what the file is made for."""
    if precision is not None:
        return precision
    from centermask_edge.graph.precision import is_quantized

    return Precision.INT8 if is_quantized(load_model(model)[0]) else Precision.FP16


def describe(manifest: Manifest) -> str:
    """One line about what an engine runs on and how its convolutions compute."""
    targets = ", ".join(f"sm_{c}" for c in manifest.capabilities)
    where = f"{manifest.gpu} ({targets})" if manifest.gpu else targets
    text = f"{manifest.flavor.label} {manifest.tensorrt}, {where}, input {size_text(manifest)}"
    layers = manifest.layers
    if layers is None or not layers.conv_macs:
        return text
    shares = [f"{layers.share(kind):.1%} {kind}" for kind in layers.conv_macs]
    return f"{text}; convolutions {', '.join(shares)}; {layers.reformats} reformats"


def command(
    model: Annotated[
        Path | None, typer.Argument(help="An .onnx file; the shipped person model where none.")
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Default: fp16; int8 for a quantized file."),
    ] = None,
    batch: Annotated[str, typer.Option(help="Pictures at a time, or min,opt,max.")] = "1",
    size: Annotated[
        str | None,
        typer.Option(help="Network input: HEIGHTxWIDTH, a short side, or min,opt,max of either."),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(help="MiB of scratch memory a layer may use.", metavar="MIB")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="This GPU, or for TensorRT-RTX a list such as sm86,sm89,sm120."),
    ] = None,
    flavor: Annotated[
        Flavor | None, typer.Option(help="Default: TensorRT where it is there, else RTX.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the engine; that of the model where none.")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures: quantize to int8 by largest values first."),
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures: refuse fp16 where an activation leaves its range."),
    ] = None,
    plugins: Annotated[
        Path | None, typer.Option(help="A plugin library made elsewhere from the same sources.")
    ] = None,
    ignore_memory: Annotated[
        bool, typer.Option("--ignore-memory", help="Build even where memory seems too small.")
    ] = False,
) -> None:
    """Build a TensorRT or TensorRT-RTX engine with our kernels in it."""
    if workspace is not None and not 1 <= workspace <= _LARGEST_WORKSPACE_MIB:
        raise ConfigError(f"--workspace {workspace}: wanted 1 to {_LARGEST_WORKSPACE_MIB} MiB")
    targets, pictures_at_a_time = parse_targets(target), parse_batch(batch)
    path = shipped_model() if model is None else model
    # The shipped model lies inside the installed package, which is no place for engines.
    folder = out or (Path() if path == shipped_model() else path.parent)
    shapes, metadata = parse_size(size, pictures_at_a_time, load_model(path)[1])
    if calibrate is not None:
        if precision not in (None, Precision.INT8):
            raise ConfigError(f"--calibrate makes int8; --precision {precision.value} does not")
        path = _calibrated(path, calibrate, folder)
    if probe is not None:
        _probe(path, probe)
    options = Options(
        precision=_precision(path, precision),
        shapes=shapes,
        workspace_mib=workspace,
        targets=targets,
        flavor=flavor,
        plugins=plugins,
        check_memory=not ignore_memory,
    )
    console = Console(stderr=True)
    with progress_bars(console) as progress:
        built = build_engine(path, folder, options, metadata, progress)
    _report(built, console)


def _report(built: Built, console: Console) -> None:
    typer.echo(built.engine)
    size = built.engine.stat().st_size / 1e6
    how = f"built in {built.seconds:.1f} s" if built.seconds else "already there"
    text = f"{size:.1f} MB, {how}; {describe(built.manifest)}"
    console.print(text, highlight=False, soft_wrap=True)
