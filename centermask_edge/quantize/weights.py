"""Weights of an ONNX model: float16 storage undone, and rounding to int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

# Symmetric and without -128, so that negating a weight negates its code.
LEVELS = 127


def with_fp32_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every weight is a plain float32 initializer.

    Weights stored as float16 behind a Cast are widened. A second name for one weight, which torch
    writes as an Identity, is given up, so that the weight stays one tensor.
    """
    from onnx import TensorProto, numpy_helper

    result = copied(model)
    graph = result.graph
    half = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    constants = {t.name for t in graph.initializer}
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [alias.get(name, name) for name in node.input]
        if node.op_type == "Cast" and node.input[0] in half:
            tensor = half[node.input[0]]
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, node.output[0]))
        elif node.op_type == "Identity" and node.input[0] in constants:
            alias[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    if len(kept) != len(graph.node):
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
    return result


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of its own that may be changed."""
    result = type(model)()
    result.CopyFrom(model)
    return result


def own_constant(
    graph: onnx.GraphProto, node: onnx.NodeProto, index: int, value: NDArray[np.float32]
) -> None:
    """Give a node's input a constant of its own in place of one it may share, or of none."""
    from onnx import numpy_helper

    name = f"{node.name}/{('data', 'weight', 'bias')[index]}"
    old = [tensor for tensor in graph.initializer if tensor.name == name]
    tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
    if old:
        old[0].CopyFrom(tensor)
    else:
        graph.initializer.append(tensor)
    if len(node.input) == index:
        node.input.append(name)
    else:
        node.input[index] = name


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove initializers that no node reads."""
    used = {tensor for node in graph.node for tensor in node.input}
    kept = [t for t in graph.initializer if t.name in used]
    copies = [type(t).FromString(t.SerializeToString()) for t in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def weight_steps(weight: NDArray[np.float32], axis: int | None) -> NDArray[np.float32]:
    """Size of one int8 step: per slice along ``axis``, or one for all.

    A slice of zeros gets the step 1, with which it is exact.

    Returns:
        float32 (C,), or () without axis.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others if axis is not None else None)
    steps = np.where(largest > 0, largest / LEVELS, 1)
    return np.asarray(steps, np.float32)


def rounded(
    weight: NDArray[np.float32], steps: NDArray[np.float32], axis: int | None
) -> NDArray[np.int8]:
    """The weight in int8 codes of the given steps; half to even, as ONNX QuantizeLinear does."""
    codes = np.rint(weight / spread(steps, weight.ndim, axis))
    return np.asarray(np.clip(codes, -LEVELS, LEVELS), np.int8)


def spread(steps: NDArray[np.float32], rank: int, axis: int | None) -> NDArray[np.float32]:
    """Steps in a shape that broadcasts against a weight of that rank."""
    if axis is None:
        return steps
    return steps.reshape([-1 if i == axis else 1 for i in range(rank)])
