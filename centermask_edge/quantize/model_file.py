"""Reads the model that is to be quantized."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from centermask_edge.engines.tensorrt.prepared import load_model
from centermask_edge.errors import require
from centermask_edge.quantize.errors import QuantizationError

if TYPE_CHECKING:
    import onnx

_8_BIT = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul"}


def load_float_model(path: Path) -> onnx.ModelProto:
    """The model of a file that computes in float.

    Raises:
        MissingPackageError: onnx is not installed.
        ModelFileError: missing, damaged, or not a model of this project.
        QuantizationError: it is quantized already.
    """
    require("onnx", extra="cpu", why="read the model")
    model, _ = load_model(path)
    found = next((n.op_type for n in model.graph.node if n.op_type in _8_BIT), None)
    if found is not None:
        raise QuantizationError(
            f"{path} is quantized already: it has {found} operations; give the FP32 file that it "
            "was made from (centermask-edge export writes one)"
        )
    return model
