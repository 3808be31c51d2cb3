"""ONNX Runtime on the CPU: takes the file as it is, and is the numerical reference."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from centermask_edge.engines.base import (
    OUTPUTS,
    Detections,
    Floats,
    check_signature,
    to_detections,
)
from centermask_edge.errors import ModelFileError, require
from centermask_edge.graph.metadata import read_metadata

_QUIET = 3  # errors only


class OnnxRuntimeEngine:
    """A model in ONNX Runtime's CPU provider.

    Args:
        path: ONNX file, already checked by ``check_model_file``.
        threads: within one operator; None lets ONNX Runtime take the physical cores.
        min_score: drop detections whose box score is lower.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        ModelFileError: not an ONNX file, or one of something else.
    """

    def __init__(self, path: Path, threads: int | None = None, min_score: float = 0.0) -> None:
        self.min_score = min_score
        ort = require("onnxruntime", extra="cpu", why="run a model with --engine onnxruntime")
        ort.disable_telemetry_events()
        self.name = f"onnxruntime {ort.__version__}"
        self._session = _open_session(ort, path, threads)
        self.metadata = read_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        check_signature(
            path,
            {node.name for node in self._session.get_inputs()},
            {node.name for node in self._session.get_outputs()},
        )

    def run(self, images: Floats, image_sizes: Floats) -> Detections:
        """Detections of a batch; see :class:`centermask_edge.engines.base.Engine`."""
        feed = {"image": images, "image_size": image_sizes}
        values = self._session.run(list(OUTPUTS), feed)
        return to_detections(dict(zip(OUTPUTS, values, strict=True)), self.min_score)


def _open_session(ort: ModuleType, path: Path, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", extra="cpu", why="run a model")
    damaged = (state.InvalidProtobuf, state.InvalidGraph, state.NoModel, state.NoSuchFile)
    unsupported = (
        state.Fail,
        state.NotImplemented,
        state.InvalidArgument,
        state.RuntimeException,
    )
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except damaged:
        raise ModelFileError(
            f"{path} is not a valid ONNX file (damaged, or another format); "
            "export or download it again"
        ) from None
    except unsupported as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(f"{path} does not run on ONNX Runtime: {reason}") from None
