"""How much of a network's arithmetic the file asks to do in 8 bits: by layer, in multiply-adds.

What counts are convolutions and matrix products. The file asks for INT8 where both the data and the
weight come out of a DequantizeLinear; whether an engine obeys is another question, answered by
``runtime_graph``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, computed_field

from centermask_edge.errors import ModelFileError, require
from centermask_edge.preprocess import Size

if TYPE_CHECKING:
    import onnx

_COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# They hand the numbers on as they are, or in another type.
_TRANSPARENT = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose"})


class LayerCoverage(BaseModel):
    """One convolution or matrix product.

    Attributes:
        name: of the node.
        op: ONNX operator.
        macs: multiply-adds for one picture.
        int8: whether both inputs come out of a DequantizeLinear.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    op: str
    macs: int
    int8: bool


class Coverage(BaseModel):
    """All layers of a model at one input size, in graph order.

    Attributes:
        input_size: height and width in pixels.
        layers: those with multiply-adds.
    """

    model_config = ConfigDict(frozen=True)

    input_size: tuple[int, int]
    layers: tuple[LayerCoverage, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def macs(self) -> int:
        """Multiply-adds of the network for one picture, every mask slot included."""
        return sum(layer.macs for layer in self.layers)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> float:
        """Share of the multiply-adds that the file asks to do in 8 bits, 0..1."""
        inside = sum(layer.macs for layer in self.layers if layer.int8)
        return inside / self.macs if self.macs else 0.0


def coverage(model: onnx.ModelProto, input_size: Size) -> Coverage:
    """What a model asks to compute in 8 bits for one picture of that padded size.

    Shapes come from one run in ONNX Runtime, because the number of RoIs and the functions of this
    project leave shape inference behind.

    Args:
        model: any of this project's ONNX models.
        input_size: (height, width) pixels of the padded input.

    Raises:
        ModelFileError: ONNX Runtime refuses the model.
        MissingPackageError: onnx or onnxruntime is not installed.
    """
    inliner = require("onnx.inliner", extra="cpu", why="count multiply-adds")
    flat = inliner.inline_local_functions(model)
    nodes = [node for node in flat.graph.node if node.op_type in _COUNTED]
    shapes = _shapes(flat, _wanted(nodes), input_size)
    makers = {name: node for node in flat.graph.node for name in node.output}
    layers = tuple(
        LayerCoverage(
            name=node.name or node.output[0],
            op=node.op_type,
            macs=_macs(node, shapes),
            int8=all(_dequantized(name, makers) for name in node.input[:2]),
        )
        for node in nodes
    )
    return Coverage(input_size=input_size, layers=layers)


def _wanted(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    return list(dict.fromkeys(t for n in nodes for t in (*n.input[:2], n.output[0])))


def _shapes(
    model: onnx.ModelProto, tensors: list[str], input_size: Size
) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors for one picture of zeros."""
    ort: Any = require("onnxruntime", extra="cpu", why="count multiply-adds")
    from onnx import TensorProto, helper

    probe = type(model).FromString(model.SerializeToString())
    for i, tensor in enumerate(tensors):
        probe.graph.node.append(helper.make_node("Shape", [tensor], [f"shape/{i}"], f"shape/{i}"))
        value = helper.make_tensor_value_info(f"shape/{i}", TensorProto.INT64, None)
        probe.graph.output.append(value)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    height, width = input_size
    feed = {
        "image": np.zeros((1, 3, height, width), np.float32),
        "image_size": np.array([[height, width]], np.float32),
    }
    try:
        session = ort.InferenceSession(
            probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        values = session.run([f"shape/{i}" for i in range(len(tensors))], feed)
    except Exception as error:  # its error classes share no root but this one
        reason = str(error).splitlines()[0]
        raise ModelFileError(f"ONNX Runtime cannot run the model: {reason}") from None
    return {t: tuple(v.tolist()) for t, v in zip(tensors, values, strict=True)}


def _macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-adds of one node.

    Each output of a convolution takes as many as its filter has values (input channels per group
    times kernel); each input of a deconvolution goes through all values of its filter; each output
    of a matrix product takes the shared dimension.
    """
    data, weight = (shapes[name] for name in node.input[:2])
    output = shapes[node.output[0]]
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(data) * math.prod(weight[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(output) * (data[0] if transposed else data[-1])


def _dequantized(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    node = makers.get(name)
    while node is not None and node.op_type in _TRANSPARENT:
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"
