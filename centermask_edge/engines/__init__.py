"""Run the ONNX file: one call, detections of a fixed size."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from centermask_edge.engines.base import Detections, Engine, EngineName, check_model_file
from centermask_edge.errors import ConfigError

__all__ = ["Detections", "Engine", "EngineName", "default_engine", "open_engine"]

_TENSORRT_FILES = (".engine", ".plan", ".trt")


def default_engine() -> EngineName:
    """The fastest engine that is installed: OpenVINO, else ONNX Runtime."""
    if importlib.util.find_spec("openvino") is None and importlib.util.find_spec("onnxruntime"):
        return EngineName.ONNXRUNTIME
    return EngineName.OPENVINO


def open_engine(
    model: Path,
    engine: EngineName | None = None,
    threads: int | None = None,
    min_score: float = 0.0,
    rebuild: bool = False,
) -> Engine:
    """A model, loaded and ready to run.

    Args:
        model: ONNX file; for TensorRT also an engine.
        engine: what runs it; where None, TensorRT for its own files, else
            :func:`default_engine`.
        threads: of the processor; as many as the engine likes where None.
        min_score: drop detections whose box score is lower; OpenVINO then does not compute their
            masks, which are most of the work where little is found.
        rebuild: build a TensorRT engine that does not fit this machine again.

    Raises:
        ConfigError: the engine cannot run this, or the number of threads is impossible.
        GpuError: TensorRT finds no GPU, or not enough memory on it.
        MissingPackageError: the engine is not installed.
        ModelFileError: the file is missing, damaged, or not a model of this project.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads {threads}: the number of threads is at least 1")
    if engine is None and model.suffix.lower() in _TENSORRT_FILES:
        engine = EngineName.TENSORRT
    chosen = default_engine() if engine is None else engine
    if chosen is EngineName.TENSORRT:
        from centermask_edge.engines.tensorrt.open import open_tensorrt

        return open_tensorrt(model, min_score, rebuild_misfit=rebuild)
    if chosen is EngineName.TORCH:
        raise ConfigError(
            f"the torch engine runs checkpoints in training and evaluation, not {model}; "
            "use --engine openvino or --engine onnxruntime for ONNX files"
        )
    check_model_file(model)
    if chosen is EngineName.ONNXRUNTIME:
        from centermask_edge.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(model, threads, min_score)
    from centermask_edge.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(model, threads, min_score)
