"""What a model costs: shapes of its tensors, multiply-adds, memory of weights and activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from centermask_edge.graph.precision import copied
from centermask_edge.graph.tensorrt import InputShape, fix_shapes, fold_roi_image

if TYPE_CHECKING:
    import onnx

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a model.

    Attributes:
        weights: as stored once.
        activations: alive at the same time, at most, for the input it was computed for.
    """

    weights: int
    activations: int


def tensor_shapes(model: onnx.ModelProto, sizes: Sequence[int]) -> Shapes:
    """Shapes of the tensors of the main graph, by name.

    Args:
        model: with its functions, through which ONNX follows the shapes.
        sizes: pictures, height and width of the input.
    """
    import onnx

    fixed = copied(model)
    fix_shapes(fixed.graph, InputShape(sizes[0], sizes[1], sizes[2]))
    fold_roi_image(fixed.graph, sizes[0])
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {
        v.name: tuple(int(d.dim_value) for d in v.type.tensor_type.shape.dim)
        for v in values
        if all(d.HasField("dim_value") for d in v.type.tensor_type.shape.dim)
    }


def convolution_macs(model: onnx.ModelProto, shapes: Shapes) -> dict[str, int]:
    """Multiply-adds of every convolution, by node name; deconvolutions are none.

    The mask branch counts with a full set of detections.
    """
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type in ("DequantizeLinear", "Cast") and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
        if node.op_type == "Conv" and node.input[1] in weights and node.output[0] in shapes:
            # Each value of the output is the product with one filter.
            found[node.name] = prod(shapes[node.output[0]]) * prod(weights[node.input[1]][1:])
    return found


def footprint(model: onnx.ModelProto, shapes: Shapes, value_bytes: int) -> Footprint:
    """Memory of weights and activations.

    Args:
        model: whose nodes are in an order of execution.
        shapes: of its tensors.
        value_bytes: of one activation.
    """
    from onnx import numpy_helper

    weights = sum(numpy_helper.to_array(t).nbytes for t in model.graph.initializer)
    last = {name: i for i, node in enumerate(model.graph.node) for name in node.input}
    alive: dict[str, int] = {}
    peak = 0
    for index, node in enumerate(model.graph.node):
        for name in node.output:
            alive[name] = prod(shapes.get(name, (0,))) * value_bytes
        peak = max(peak, sum(alive.values()))
        for name in [n for n in alive if last.get(n, len(model.graph.node)) <= index]:
            del alive[name]
    return Footprint(weights, peak)
