"""In which precision OpenVINO really runs each convolution and matrix product of a model.

Its compiled graph tells the precision that every primitive was given; names lead back to the file's
nodes and so to their multiply-adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field

from centermask_edge.engines.openvino import import_openvino
from centermask_edge.errors import require
from centermask_edge.graph.lowering import lower_for_openvino
from centermask_edge.quantize.coverage_macs import Coverage

_LAYERS = frozenset(
    {"Convolution", "Deconvolution", "FullyConnected", "GroupConvolution", "MatMul"}
)
EIGHT_BITS = frozenset({"i8", "u8"})
_SUFFIX = "/WithoutBiases"


class RunLayer(BaseModel):
    """One layer as the engine runs it.

    Attributes:
        name: of the node in the file.
        precision: of its inputs, in the engine's words.
        primitive: the code that was chosen for it.
        macs: multiply-adds for one picture.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    precision: str
    primitive: str
    macs: int


class Ran(BaseModel):
    """What the engine runs in 8 bits.

    Attributes:
        engine: its name and version.
        layers: those whose node was found, in the order of the file.
        lost: nodes of the file that the engine folded into others or renamed, so that their
            precision is not known; they count as not run in 8 bits.
        macs: multiply-adds of all nodes.
    """

    model_config = ConfigDict(frozen=True)

    engine: str
    layers: tuple[RunLayer, ...]
    lost: tuple[str, ...]
    macs: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> float:
        """Share of all multiply-adds that run in 8 bits, 0..1."""
        inside = sum(layer.macs for layer in self.layers if layer.precision in EIGHT_BITS)
        return inside / self.macs if self.macs else 0.0


def openvino_runs(model: Path, asked: Coverage) -> Ran:
    """The precision of every layer of a model compiled for this processor.

    Args:
        model: ONNX file.
        asked: its layers and the input size to compile for.

    Raises:
        MissingPackageError: onnx or openvino is not installed.
    """
    onnx = require("onnx", extra="cpu", why="ask OpenVINO for precisions")
    ov = import_openvino()
    core = ov.Core()
    network = core.read_model(lower_for_openvino(onnx.load(str(model))).SerializeToString())
    network.reshape({"image": [1, 3, *asked.input_size], "image_size": [1, 2]})
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(network, "CPU", config)
    found = _by_node(compiled.get_runtime_model().get_ops())
    layers = tuple(
        RunLayer(name=layer.name, precision=kind[0], primitive=kind[1], macs=layer.macs)
        for layer in asked.layers
        if (kind := found.get(layer.name)) is not None
    )
    lost = tuple(layer.name for layer in asked.layers if layer.name not in found)
    engine = f"openvino {ov.__version__.split('-')[0]}"
    return Ran(engine=engine, layers=layers, lost=lost, macs=asked.macs)


def _by_node(ops: Iterable[Any]) -> Mapping[str, tuple[str, str]]:
    """Precision and primitive by every name that a layer stands for."""
    found: dict[str, tuple[str, str]] = {}
    for op in ops:
        info = op.get_rt_info()
        if _text(info, "layerType") not in _LAYERS:
            continue
        kind = _text(info, "runtimePrecision"), _text(info, "primitiveType")
        for name in _text(info, "originalLayersNames").split(","):
            found.setdefault(name.split(_SUFFIX)[0], kind)
    return found


def _text(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if key in info else ""
