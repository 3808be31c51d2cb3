"""Whether an engine fits this machine, and the command that builds one that does."""

from __future__ import annotations

import shlex
from pathlib import Path

from centermask_edge.engines.files import file_sha256
from centermask_edge.engines.tensorrt.api import Api, Flavor
from centermask_edge.engines.tensorrt.manifest import (
    Facts,
    Manifest,
    Range,
    differences,
    onnx_path,
)
from centermask_edge.engines.tensorrt.plugins import kernels_key
from centermask_edge.errors import ModelFileError
from centermask_edge.kernels.device import find_gpu


def machine_facts(api: Api, engine: Path, manifest: Manifest) -> Facts:
    """What this machine has, to be compared with a manifest.

    An ONNX file that is not there, and a GPU that is not there, are not compared.
    """
    gpu = find_gpu()
    onnx = onnx_path(engine, manifest)
    return Facts(
        flavor=api.flavor,
        tensorrt=api.version,
        gpu=None if gpu is None else gpu.name,
        capability=None if gpu is None else gpu.capability,
        driver=None if gpu is None else gpu.driver,
        onnx_sha256=file_sha256(onnx) if onnx.is_file() else None,
        kernels=kernels_key(),
    )


def require_fit(engine: Path, manifest: Manifest, facts: Facts) -> None:
    """Nothing, if the engine fits.

    Raises:
        ModelFileError: it does not; every differing field is named, and the command to rebuild.
    """
    found = differences(manifest, facts)
    if found:
        raise ModelFileError(
            f"{engine} does not fit this machine: {'; '.join(map(str, found))}. "
            f"Build it again with: {rebuild_command(engine, manifest)}"
        )


def rebuild_command(engine: Path, manifest: Manifest) -> str:
    """The command that builds the same for this machine."""
    shapes = manifest.shapes
    words = ["centermask-edge", "build", str(onnx_path(engine, manifest))]
    words += ["--precision", manifest.precision.value]
    if (shapes.batch.min, shapes.batch.max) != (1, 1):
        words += ["--batch", _range(shapes.batch)]
    words += ["--size", size_text(manifest)]
    if manifest.workspace_mib is not None:
        words += ["--workspace", str(manifest.workspace_mib)]
    if manifest.flavor is Flavor.RTX and not manifest.gpu:
        words += ["--target", ",".join(f"sm{c}" for c in manifest.capabilities)]
    words += ["--flavor", manifest.flavor.value, "--out", str(engine.parent)]
    return shlex.join(words)


def _range(size: Range) -> str:
    return ",".join(str(n) for n in (size.min, size.opt, size.max))


def size_text(manifest: Manifest) -> str:
    """The input size as ``--size`` takes it: ``352x640``, or three of them."""
    height, width = manifest.shapes.height, manifest.shapes.width
    pairs = [(height.min, width.min), (height.opt, width.opt), (height.max, width.max)]
    texts = [f"{h}x{w}" for h, w in pairs]
    return texts[0] if len(set(pairs)) == 1 else ",".join(texts)
