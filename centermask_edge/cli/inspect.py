"""``centermask-edge inspect``: what is in an engine, from the files beside it, without a GPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from centermask_edge.engines.tensorrt.api import find_api
from centermask_edge.engines.tensorrt.build import layers_path, log_folder
from centermask_edge.engines.tensorrt.fit import machine_facts, rebuild_command, size_text
from centermask_edge.engines.tensorrt.layers import Layer, Tensor, from_json
from centermask_edge.engines.tensorrt.manifest import (
    Manifest,
    differences,
    onnx_path,
    read_manifest,
)
from centermask_edge.errors import CenterMaskError, ModelFileError


def read_layers(engine: Path) -> list[Layer]:
    """The layers listed beside an engine; none where there is no list.

    Raises:
        ModelFileError: the list is damaged.
    """
    path = layers_path(engine)
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"cannot read {path}: {error}; build the engine again") from None


def _fit(engine: Path, manifest: Manifest) -> list[str]:
    """What keeps the engine from running here; empty where it fits."""
    try:
        api = find_api(manifest.flavor)
    except CenterMaskError as error:
        return [str(error)]
    found = [str(d) for d in differences(manifest, machine_facts(api, engine, manifest))]
    if found:
        found.append(f"build it again with: {rebuild_command(engine, manifest)}")
    return found


def _rows(engine: Path, manifest: Manifest) -> list[tuple[str, str]]:
    shapes, model = manifest.shapes, manifest.model
    targets = ", ".join(f"sm_{c}" for c in manifest.capabilities)
    batch = shapes.batch
    several = "" if batch.fixed else f"-{batch.max}, usually {batch.opt}"
    onnx = onnx_path(engine, manifest)
    rows = [
        ("engine", f"{engine.name}, {engine.stat().st_size / 1e6:.1f} MB"),
        ("built by", f"{manifest.flavor.label} {manifest.tensorrt}, {manifest.created}"),
        ("runs on", f"{manifest.gpu} ({targets})" if manifest.gpu else targets),
        ("driver", f"CUDA {manifest.driver}" if manifest.driver else "built without one"),
        ("ONNX file", f"{onnx}, {manifest.onnx_sha256[:8]}"),
        ("kernels", manifest.kernels),
        ("precision", manifest.precision.value),
        ("input", f"{batch.min}{several} x 3 x {size_text(manifest)}"),
        ("classes", ", ".join(model.classes[:5]) + (" ..." if len(model.classes) > 5 else "")),
        ("log", str(log_folder() / manifest.build_log)),
    ]
    return rows + _figures(manifest)


def _figures(manifest: Manifest) -> list[tuple[str, str]]:
    layers = manifest.layers
    if layers is None:
        return [("layers", "TensorRT told nothing of them")]
    kinds = ", ".join(f"{n} {kind}" for kind, n in layers.by_dtype.items() if kind)
    rows = [("layers", f"{layers.count} ({kinds}), {layers.reformats} of them reformats")]
    total = sum(layers.conv_macs.values())
    if total:
        shares = ", ".join(f"{layers.share(kind):.1%} {kind}" for kind in layers.conv_macs)
        rows.append(("convolutions", f"{total / 1e9:.2f} G multiply-adds: {shares}"))
    if layers.activation_bytes:
        weights, activations = layers.weight_bytes / 1e6, layers.activation_bytes / 1e6
        rows.append(("memory", f"weights {weights:.1f} MB, activations {activations:.1f} MB"))
    return rows


def _tensors(tensors: tuple[Tensor, ...]) -> str:
    def text(tensor: Tensor) -> str:
        shape = "x".join(str(n) if n >= 0 else "?" for n in tensor.shape)
        layout = tensor.format.split(")")[0].removeprefix("(")
        return " ".join(word for word in (tensor.dtype, layout, shape) if word)

    return " + ".join(text(tensor) for tensor in tensors)


def _line(layer: Layer) -> str:
    mark = "  (reformat)" if layer.is_reformat else ""
    wires = f"{_tensors(layer.inputs)} -> {_tensors(layer.outputs)}"
    return f"{layer.type:<17}{layer.name}{mark}\n{'':<17}{wires}"


def _content(engine: Path, manifest: Manifest, layers: list[Layer]) -> dict[str, Any]:
    return {
        "engine": str(engine),
        "bytes": engine.stat().st_size,
        "manifest": manifest.model_dump(mode="json"),
        "differences": _fit(engine, manifest),
        "layers": [{**asdict(layer), "reformat": layer.is_reformat} for layer in layers],
    }


def command(
    engine: Annotated[Path, typer.Argument(help="An .engine file of centermask-edge build.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="Without the list of layers.")] = False,
) -> None:
    """Show what an engine was built from, its layers, and whether it fits this machine."""
    manifest = read_manifest(engine)
    layers = read_layers(engine)
    if as_json:
        typer.echo(json.dumps(_content(engine, manifest, layers), indent=1))
        return
    misfit = _fit(engine, manifest)
    rows = [*_rows(engine, manifest), ("fits here", "no" if misfit else "yes")]
    lines = [f"{name:<14}{text}" for name, text in rows] + misfit
    if layers and not brief:
        lines += ["", *map(_line, layers)]
    typer.echo("\n".join(lines))
