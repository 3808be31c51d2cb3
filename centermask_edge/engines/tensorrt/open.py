"""From a file named by the user to a running engine: find it, or build it, and check that it fits.

An ``.engine`` must fit this machine, field by field of its manifest; an ``.onnx`` file is built
for this GPU once and its engine kept in the cache.
"""

from __future__ import annotations

from pathlib import Path

from centermask_edge.engines.files import file_sha256
from centermask_edge.engines.tensorrt.api import Api, Flavor, find_api
from centermask_edge.engines.tensorrt.build import Options, build_engine, rebuild
from centermask_edge.engines.tensorrt.child import Progress
from centermask_edge.engines.tensorrt.cuda import NO_GPU, GpuError
from centermask_edge.engines.tensorrt.engine import TensorRtEngine
from centermask_edge.engines.tensorrt.fit import machine_facts, rebuild_command, require_fit
from centermask_edge.engines.tensorrt.manifest import (
    Manifest,
    Precision,
    Range,
    Shapes,
    differences,
    read_manifest,
)
from centermask_edge.engines.tensorrt.plugins import find_plugins
from centermask_edge.engines.tensorrt.prepared import load_model
from centermask_edge.errors import MissingPackageError, ModelFileError
from centermask_edge.graph.metadata import ModelMetadata
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.library import load_cuda
from centermask_edge.preprocess import Preprocess, padded_size
from centermask_edge.resources import cache_dir

ON_THE_CPU = "the CPU runs the .onnx file: --engine openvino (or --engine onnxruntime)"
_SMALLEST_SIDE = 64
_CAMERA = (1080, 1920)


def open_tensorrt(
    path: Path,
    min_score: float = 0.0,
    *,
    rebuild_misfit: bool = False,
    progress: Progress | None = None,
) -> TensorRtEngine:
    """An engine, loaded and ready to run.

    Args:
        path: ``.engine`` with its manifest, or ``.onnx``, which is built in fp16 (int8 where it is
            quantized) unless the cache has it.
        min_score: drop detections whose box score is lower.
        rebuild_misfit: build an engine that does not fit again, from the ONNX file it names.
        progress: of a build: phase, steps done, steps in all.

    Raises:
        GpuError: there is no GPU, or not enough memory.
        MissingPackageError: TensorRT or cuda-bindings is not installed.
        ModelFileError: the file is missing, damaged or does not fit this machine.
        KernelError: the plugin library cannot be built.
    """
    if find_gpu() is None:
        raise GpuError(NO_GPU)
    flavor = None
    if path.suffix.lower() != ".onnx":
        flavor = read_manifest(path).flavor
    api = _api(flavor)
    if flavor is None:
        path = cached_engine(path, api, progress)
    fitting = checked(path, api, rebuild_misfit, progress)
    return TensorRtEngine(api, *fitting, min_score=min_score, kernels=load_cuda)


def checked(
    path: Path, api: Api, rebuild_misfit: bool = False, progress: Progress | None = None
) -> tuple[Path, bytes, ModelMetadata, Path]:
    """Path, content, metadata and plugin library of an engine that fits this machine.

    Raises:
        ModelFileError: it does not fit, or is not the file its manifest was written for.
    """
    manifest = read_manifest(path)
    facts = machine_facts(api, path, manifest)
    if rebuild_misfit and (differences(manifest, facts) or not _is_whole(path, manifest)):
        path = rebuild(path, progress)
        manifest = read_manifest(path)
        facts = machine_facts(api, path, manifest)
    require_fit(path, manifest, facts)
    if not _is_whole(path, manifest):
        raise ModelFileError(
            f"{path} is not the file its manifest was written for (damaged, or replaced); build it "
            f"again with: {rebuild_command(path, manifest)}"
        )
    return path, path.read_bytes(), manifest.model, find_plugins(for_gpu=True)


def cached_engine(path: Path, api: Api, progress: Progress | None = None) -> Path:
    """The engine of an ONNX file for this GPU, from the cache, built into it where it is new.

    It takes one picture of any shape whose long side is at most that of the model's own
    preprocessing, and is fastest at a camera's 16:9.

    Raises:
        ModelFileError: the file is no model of ours, or TensorRT refuses it.
    """
    from centermask_edge.graph.precision import is_quantized

    model, metadata = load_model(path)
    precision = Precision.INT8 if is_quantized(model) else Precision.FP16
    options = Options(precision, any_shape(metadata), flavor=api.flavor)
    folder = cache_dir() / "tensorrt" / "engines"
    return build_engine(path, folder, options, metadata, progress).engine


def any_shape(metadata: ModelMetadata) -> Shapes:
    """Input shapes of single pictures of any proportions, for the model's own sizes."""
    config = metadata.preprocess
    usual = Preprocess(config).plan(*_CAMERA).padded_size
    largest, _ = padded_size(config.long_side, config.long_side, config.pad_multiple)
    height, width = (
        Range(min=min(_SMALLEST_SIDE, side), opt=side, max=max(largest, side)) for side in usual
    )
    return Shapes(batch=Range(min=1, opt=1, max=1), height=height, width=width)


def _api(flavor: Flavor | None) -> Api:
    try:
        return find_api(flavor)
    except MissingPackageError as error:
        raise MissingPackageError(f"{error}; or without it: {ON_THE_CPU}") from None


def _is_whole(path: Path, manifest: Manifest) -> bool:
    return not manifest.engine_sha256 or file_sha256(path) == manifest.engine_sha256
