"""Cross-layer equalisation: two layers in a row share the range of each channel between them.

A ReLU, or nothing, between two layers lets a positive factor per channel move from the first to
the second without changing the result; the factor chosen gives both the same largest weight in
that channel (Nagel et al. 2019, section 4.1). ReLU6 does not let it through, so the inverted
bottlenecks of EfficientNet-Lite and MobileNet are equalised only where they are linear.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from centermask_edge.quantize.weights import copied, own_constant
from centermask_edge.quantize.wiring import Wiring, attribute, read_wiring

if TYPE_CHECKING:
    import onnx

_LAYERS = ("Conv", "Gemm")
_ROUNDS = 20
_ENOUGH = 1e-3


def equalised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that gives the same results with more even weights.

    Layers whose weight or output is used twice are left alone.

    Args:
        model: with float32 weights.
    """
    result = copied(model)
    wiring = read_wiring(result)
    pairs = list(_pairs(wiring))
    layers = {node.name: node for pair in pairs for node in pair}
    weights = {name: _constant(wiring, node.input[1]) for name, node in layers.items()}
    biases = {
        name: _constant(wiring, node.input[2])
        for name, node in layers.items()
        if len(node.input) > 2
    }
    for _ in range(_ROUNDS):
        changes = [_balance(first, second, weights, biases) for first, second in pairs]
        if max(changes, default=0.0) < _ENOUGH:
            break
    for name, node in layers.items():
        own_constant(result.graph, node, 1, weights[name])
        if name in biases:
            own_constant(result.graph, node, 2, biases[name])
    return result


def _constant(wiring: Wiring, name: str) -> NDArray[np.float32]:
    value = wiring.constant(name)
    assert value is not None
    return np.array(value, np.float32)


def _pairs(wiring: Wiring) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    for node in wiring.nodes.values():
        if not _is_layer(wiring, node):
            continue
        following = _only_reader(wiring, node)
        if following is not None and following.op_type == "Relu":
            following = _only_reader(wiring, following)
        if following is None or not _is_layer(wiring, following):
            continue
        if _by_output(node, _constant(wiring, node.input[1])) is not None and (
            _by_input(following, _constant(wiring, following.input[1])) is not None
        ):
            yield node, following


def _is_layer(wiring: Wiring, node: onnx.NodeProto) -> bool:
    return (
        node.op_type in _LAYERS
        and all(wiring.constant(name) is not None for name in node.input[1:])
        and node.input[1] in wiring.initializers
        and len(wiring.consumers[node.input[1]]) == 1
    )


def _only_reader(wiring: Wiring, node: onnx.NodeProto) -> onnx.NodeProto | None:
    readers = wiring.consumers.get(node.output[0], [])
    return wiring.nodes[readers[0][0]] if len(readers) == 1 and readers[0][1] == 0 else None


def _by_output(node: onnx.NodeProto, weight: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """A view of the weight with its output channels first."""
    if node.op_type == "Gemm" and not attribute(node, "transB", 0):
        return weight.T
    return weight


def _by_input(node: onnx.NodeProto, weight: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """A view of the weight with its input channels first; None for groups of several channels."""
    groups = attribute(node, "group", 1)
    if node.op_type == "Gemm":
        return weight.T if attribute(node, "transB", 0) else weight
    if groups == 1:
        return weight.swapaxes(0, 1)
    # Depthwise: output channel c reads input channel c alone.
    return weight if weight.shape[0] == groups and weight.shape[1] == 1 else None


def _balance(
    first: onnx.NodeProto,
    second: onnx.NodeProto,
    weights: dict[str, NDArray[np.float32]],
    biases: dict[str, NDArray[np.float32]],
) -> float:
    """Equalise one pair in place; the largest change of a channel as a factor minus one."""
    outputs = _by_output(first, weights[first.name])
    inputs = _by_input(second, weights[second.name])
    assert outputs is not None and inputs is not None and len(outputs) == len(inputs)
    left = np.abs(outputs.reshape(len(outputs), -1)).max(1)
    right = np.abs(inputs.reshape(len(inputs), -1)).max(1)
    usable = (left > 0) & (right > 0)
    factor = np.sqrt(np.where(usable, right, 1) / np.where(usable, left, 1)).astype(np.float32)
    shape = (-1,) + (1,) * (outputs.ndim - 1)
    outputs *= factor.reshape(shape)
    inputs /= factor.reshape((-1,) + (1,) * (inputs.ndim - 1))
    if first.name in biases:
        biases[first.name] *= factor
    return float(np.abs(factor - 1).max())
