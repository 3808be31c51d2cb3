"""OpenVINO on the CPU: the default engine.

OpenVINO does not know model-local functions, so the file is lowered once and kept as OpenVINO's
own format in the cache (``ir_cache``); from then on loading needs no onnx. Networks are compiled
for one input shape each, since static shapes run faster than dynamic ones.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from centermask_edge.engines import ir_cache
from centermask_edge.engines.base import (
    OUTPUTS,
    Detections,
    Floats,
    check_signature,
    to_detections,
)
from centermask_edge.errors import ModelFileError, require
from centermask_edge.graph.lowering import MIN_SCORE
from centermask_edge.graph.metadata import METADATA_KEY, parse_metadata, read_metadata

_MAX_STATIC = 4
# A fifth shape takes the place of the oldest compiled one only if it keeps coming back:
# compiling costs about as much as ten runs, and a folder of pictures has many shapes.
_WORTH_COMPILING = 16
_NO_MASKS = 2.0  # a box score that no instance reaches

Shape = tuple[int, ...]


def import_openvino() -> ModuleType:
    """The openvino module, imported without its telemetry.

    On import, OpenVINO sends an event to an analytics server when ``openvino_telemetry`` is
    installed, which pip does on its own. Hiding that module makes OpenVINO take its own stub.

    Raises:
        MissingPackageError: openvino is not installed.
    """
    why = "run a model with --engine openvino"
    if "openvino" in sys.modules or "openvino_telemetry" in sys.modules:
        return require("openvino", extra="cpu", why=why)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return require("openvino", extra="cpu", why=why)
    finally:
        del sys.modules["openvino_telemetry"]


class OpenVinoEngine:
    """A model in OpenVINO's CPU plugin, in float32.

    Args:
        path: ONNX file, already checked by ``check_model_file``.
        threads: None lets OpenVINO choose.
        min_score: drop detections whose box score is lower, before their masks are computed.

    Raises:
        MissingPackageError: openvino is not installed (or onnx, where the cache is cold).
        ModelFileError: not an ONNX file, or one of something else.
    """

    def __init__(self, path: Path, threads: int | None = None, min_score: float = 0.0) -> None:
        self.min_score = min_score
        ov = import_openvino()
        self.name = f"openvino {ov.__version__.split('-')[0]}"
        self._core = ov.Core()
        self._model, text = _load(ov, self._core, path)
        self.metadata = parse_metadata(text, path)
        names = {name for port in self._model.inputs for name in port.get_names()}
        self._takes_min_score = MIN_SCORE in names
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._requests: OrderedDict[Shape, Any] = OrderedDict()
        self._dynamic: Any = None
        self._misses: Counter[Shape] = Counter()

    def run(self, images: Floats, image_sizes: Floats) -> Detections:
        """Detections of a batch; see :class:`centermask_edge.engines.base.Engine`.

        The first call with a shape compiles the network for it.
        """
        return self._run(images, image_sizes, self.min_score)

    @property
    def can_skip_masks(self) -> bool:
        """Whether :meth:`run_without_masks` saves the time that masks cost."""
        return self._takes_min_score

    def run_without_masks(self, images: Floats, image_sizes: Floats) -> Detections:
        """As :meth:`run`, but every mask and mask score is zero or of no meaning.

        The mask branch runs on one instance, as it cannot run on none.
        """
        return self._run(images, image_sizes, _NO_MASKS)

    def _run(self, images: Floats, image_sizes: Floats, mask_score: float) -> Detections:
        request = self._request(images.shape)
        inputs = {"image": np.ascontiguousarray(images), "image_size": image_sizes}
        if self._takes_min_score:
            inputs[MIN_SCORE] = np.array([mask_score], np.float32)
        request.infer(inputs, share_inputs=True)
        # Copied: the next run writes into the same tensors.
        outputs = {name: request.get_tensor(name).data.copy() for name in OUTPUTS}
        return to_detections(outputs, self.min_score)

    def _request(self, shape: Shape) -> Any:
        if shape in self._requests:
            self._requests.move_to_end(shape)
            return self._requests[shape]
        self._misses[shape] += 1
        if len(self._requests) < _MAX_STATIC or self._misses[shape] > _WORTH_COMPILING:
            self._misses[shape] = 0
            self._requests[shape] = self._compile(shape)
            if len(self._requests) > _MAX_STATIC:
                self._requests.popitem(last=False)
            return self._requests[shape]
        if self._dynamic is None:
            self._dynamic = self._compile(None)
        return self._dynamic

    def _compile(self, shape: Shape | None) -> Any:
        model = self._model
        if shape is not None:
            model = model.clone()
            model.reshape({"image": list(shape), "image_size": [shape[0], 2]})
        return self._core.compile_model(model, "CPU", self._config).create_infer_request()


def _load(ov: ModuleType, core: Any, path: Path) -> tuple[Any, str]:
    """The OpenVINO model and the text of its metadata, from the cache if it is there."""
    content = path.read_bytes()
    entry = ir_cache.entry(content, ov.__version__)
    cached = ir_cache.read(entry)
    if cached is not None:
        try:
            return core.read_model(cached.model), cached.metadata
        except RuntimeError:
            ir_cache.discard(entry)
    model, text = _lower(core, content, path)
    ir_cache.write(entry, text, lambda xml: ov.save_model(model, xml, compress_to_fp16=False))
    return model, text


def _lower(core: Any, content: bytes, path: Path) -> tuple[Any, str]:
    why = "prepare a model for OpenVINO the first time it is used"
    onnx = require("onnx", extra="cpu", why=why)
    protobuf = require("google.protobuf.message", extra="cpu", why=why)
    try:
        proto = onnx.load_model_from_string(content)
    except protobuf.DecodeError:
        proto = None
    if proto is None or not proto.graph.output:
        raise ModelFileError(
            f"{path} is not a valid ONNX file (damaged, or another format); "
            "export or download it again"
        )
    props = {prop.key: prop.value for prop in proto.metadata_props}
    read_metadata(props, path)
    check_signature(
        path, {node.name for node in proto.graph.input}, {node.name for node in proto.graph.output}
    )
    from centermask_edge.graph.lowering import lower_for_openvino

    try:
        model = core.read_model(lower_for_openvino(proto).SerializeToString())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelFileError(f"{path} does not run on OpenVINO: {reason}") from None
    return model, props[METADATA_KEY]
