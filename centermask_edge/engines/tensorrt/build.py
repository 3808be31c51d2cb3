"""From an ONNX file to an engine with its manifest; the engine appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from centermask_edge.engines.files import file_sha256, write_whole
from centermask_edge.engines.tensorrt import child, memory
from centermask_edge.engines.tensorrt.api import Api, Flavor, find_api
from centermask_edge.engines.tensorrt.child import Progress
from centermask_edge.engines.tensorrt.layers import from_json, summarise
from centermask_edge.engines.tensorrt.manifest import (
    Manifest,
    Precision,
    Shapes,
    engine_name,
    manifest_path,
    onnx_path,
    read_manifest,
    write_manifest,
)
from centermask_edge.engines.tensorrt.plugins import find_plugins, kernels_key
from centermask_edge.engines.tensorrt.prepared import at_precision, load_model, lowered
from centermask_edge.engines.tensorrt.request import Request
from centermask_edge.engines.tensorrt.targets import Target, choose_target
from centermask_edge.errors import ModelFileError
from centermask_edge.graph.metadata import ModelMetadata
from centermask_edge.graph.sizes import convolution_macs, footprint, tensor_shapes
from centermask_edge.resources import cache_dir

if TYPE_CHECKING:
    import onnx

_LOGS_KEPT = 20


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may choose of an engine.

    Attributes:
        precision: of the dense layers.
        shapes: of the input.
        workspace_mib: scratch memory a layer may use; None leaves it to TensorRT.
        targets: compute capabilities to build for; none means this GPU.
        flavor: TensorRT or TensorRT-RTX; None takes what is there.
        plugins: a plugin library made elsewhere; None builds or finds this machine's.
        check_memory: whether a build that will not fit is refused.
    """

    precision: Precision
    shapes: Shapes
    workspace_mib: int | None = None
    targets: tuple[int, ...] = ()
    flavor: Flavor | None = None
    plugins: Path | None = None
    check_memory: bool = True


@dataclass(frozen=True, slots=True)
class Built:
    """A finished engine.

    Attributes:
        engine: its file.
        manifest: the record beside it.
        seconds: that the build took; 0 where the engine was there already.
    """

    engine: Path
    manifest: Manifest
    seconds: float


def layers_path(engine: Path) -> Path:
    """Where the layers of an engine are listed."""
    return engine.with_name(engine.name + ".layers.json")


def log_folder() -> Path:
    """Where the logs of builds lie; the last twenty are kept."""
    return cache_dir() / "tensorrt" / "logs"


def build_engine(
    path: Path,
    folder: Path,
    options: Options,
    metadata: ModelMetadata | None = None,
    progress: Progress | None = None,
) -> Built:
    """Builds the engine of an ONNX file, unless the same one is there already.

    Args:
        path: ONNX file.
        folder: for the engine; its file name has a hash of everything it was built from.
        options: precision, shapes and target.
        metadata: replaces what the file says of itself, where another input size was asked for.
        progress: called with the phase, steps done and steps in all.

    Raises:
        MissingPackageError: TensorRT, or onnx, is not installed.
        ModelFileError: the file is no model of ours, does not fit the precision, or TensorRT
            refuses it; or the building process died.
        ConfigError: an impossible target, or more memory than there is.
        KernelError: no plugin library can be had.
    """
    model, own = load_model(path)
    precise = at_precision(model, options.precision, path)
    api = find_api(options.flavor)
    target = choose_target(api, options.targets)
    manifest = _manifest(path, folder, options, api, target, metadata or own)
    engine = folder / engine_name(path.stem, manifest)
    if _is_whole(engine, manifest):
        return Built(engine, read_manifest(engine), 0.0)
    _check_memory(precise, options, api.flavor)
    plugins = options.plugins or find_plugins(for_gpu=target.on_this_gpu)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    except OSError as error:
        raise ModelFileError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        request = _request(draft, engine, options, target, plugins, api)
        _save(lowered(precise, options.shapes), Path(request.model))
        answer = child.run(request, progress)
        return _published(engine, manifest, request, answer, model)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def rebuild(engine: Path, progress: Progress | None = None) -> Path:
    """A new engine for this machine, built as the old one was from the ONNX file beside it.

    Args:
        engine: whose manifest is read; the file itself need not fit.
        progress: as of :func:`build_engine`.

    Returns:
        The new engine's file, in the same folder; its name differs where anything else does.

    Raises:
        ModelFileError: the engine has no manifest, or its ONNX file is gone.
    """
    old = read_manifest(engine)
    path = onnx_path(engine, old)
    if not path.is_file():
        raise ModelFileError(
            f"{engine} was built from {path}, which is not there any more; "
            "build from another copy with: centermask-edge build MODEL.onnx"
        )
    targets = () if old.flavor is Flavor.TENSORRT or old.gpu else old.capabilities
    options = Options(old.precision, old.shapes, old.workspace_mib, targets, old.flavor)
    return build_engine(path, engine.parent, options, old.model, progress).engine


def _manifest(
    path: Path, folder: Path, options: Options, api: Api, target: Target, model: ModelMetadata
) -> Manifest:
    return Manifest(
        flavor=api.flavor,
        tensorrt=api.version,
        gpu=target.gpu,
        capabilities=target.capabilities,
        driver=target.driver,
        onnx=Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix(),
        onnx_sha256=file_sha256(path),
        kernels=kernels_key(),
        precision=options.precision,
        shapes=options.shapes,
        workspace_mib=options.workspace_mib,
        model=model,
    )


def _is_whole(engine: Path, manifest: Manifest) -> bool:
    try:
        found = read_manifest(engine)
    except ModelFileError:
        return False
    return found.key == manifest.key and found.engine_sha256 == file_sha256(engine)


def _check_memory(model: onnx.ModelProto, options: Options, flavor: Flavor) -> None:
    if not options.check_memory:
        return
    sizes = options.shapes
    largest = (sizes.batch.max, sizes.height.max, sizes.width.max)
    value_bytes = 4 if options.precision is Precision.FP32 else 2
    cost = footprint(model, tensor_shapes(model, largest), value_bytes)
    needed = memory.estimate(flavor, cost, options.workspace_mib)
    memory.check(needed, memory.free_memory_mib())


def _request(
    draft: Path, engine: Path, options: Options, target: Target, plugins: Path, api: Api
) -> Request:
    shapes, logs = options.shapes, log_folder()
    with contextlib.suppress(OSError):
        logs.mkdir(parents=True, exist_ok=True)
        _prune(logs)
    log = (logs if os.access(logs, os.W_OK) else engine.parent) / f"{engine.name}.log"
    return Request(
        flavor=api.flavor,
        model=str(draft / "model.onnx"),
        plugins=str(plugins),
        engine=str(draft / "engine"),
        log=str(log),
        layers=str(draft / "layers.json"),
        timing_cache=str(_timing_cache(api, target)),
        batch=(shapes.batch.min, shapes.batch.opt, shapes.batch.max),
        height=(shapes.height.min, shapes.height.opt, shapes.height.max),
        width=(shapes.width.min, shapes.width.opt, shapes.width.max),
        capabilities=() if target.on_this_gpu and api.flavor is not Flavor.RTX
        else target.capabilities,
        workspace_mib=options.workspace_mib,
    )  # fmt: skip


def _timing_cache(api: Api, target: Target) -> Path:
    device = "".join(c if c.isalnum() else "-" for c in target.gpu) or "none"
    name = f"{device}-sm{target.capabilities[0]}-{api.version}.timing"
    return cache_dir() / "tensorrt" / name


def _prune(logs: Path) -> None:
    old = sorted(logs.glob("*.log"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in old[_LOGS_KEPT - 1 :]:
        path.unlink()


def _save(model: onnx.ModelProto, path: Path) -> None:
    write_whole(path, model.SerializeToString())


def _published(
    engine: Path, manifest: Manifest, request: Request, answer: child.Answer, model: onnx.ModelProto
) -> Built:
    """Gives the finished files their names; the engine last."""
    shapes = manifest.shapes
    usual = (shapes.batch.opt, shapes.height.opt, shapes.width.opt)
    text = Path(request.layers).read_text(encoding="utf-8")
    macs = convolution_macs(model, tensor_shapes(model, usual))
    bytes_used = (answer.activation_bytes, answer.weight_bytes)
    log = Path(request.log)
    made = Path(request.engine)
    complete = manifest.model_copy(
        update={
            "build_log": log.name,
            "build_log_sha256": file_sha256(log),
            "engine_sha256": file_sha256(made),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "layers": summarise(from_json(text), macs, bytes_used),
        }
    )
    write_whole(layers_path(engine), text.encode())
    write_manifest(engine, complete)
    try:
        made.chmod(0o644)
        made.replace(engine)
    except OSError as error:
        manifest_path(engine).unlink(missing_ok=True)
        raise ModelFileError(f"cannot write {engine}: {error.strerror}") from None
    return Built(engine, complete, answer.seconds)
