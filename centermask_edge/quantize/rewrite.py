"""The same network in operations that an engine has 8-bit kernels for.

OpenVINO runs a deconvolution in float. One whose window is its stride overlaps nowhere: it is a
1x1 convolution to one group of channels per position in the window, and a shuffle of those groups
into space. The 1x1 predictor behind it works on each pixel alone, so it can come before the
shuffle, which then moves one channel per class in place of 128.
Shape legend: R RoIs, D channels, K classes, S stride, H W rows and columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from centermask_edge.quantize.weights import copied, drop_unused, own_constant
from centermask_edge.quantize.wiring import Wiring, read_wiring

if TYPE_CHECKING:
    import onnx

_DENSE_OUTPUTS = 16  # so few channels are cheaper as one dense layer than as groups


def without_deconvolution(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with deconvolution, ReLU and predictor as convolutions and a shuffle.

    Applies to ``ConvTranspose (window = stride, no padding) -> Relu -> Conv 1x1``; anything else
    is left alone. The tensor between ReLU and predictor keeps its name and its values, in another
    order, so its range holds for both forms.

    Args:
        model: with float32 weights.
    """
    result = copied(model)
    wiring = read_wiring(result)
    for node in list(wiring.nodes.values()):
        chain = _chain(wiring, node)
        if chain is not None:
            _rewrite(result.graph, wiring, *chain)
    drop_unused(result.graph)
    return result


def _chain(wiring: Wiring, node: onnx.NodeProto) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """Deconvolution and predictor, if they and the ReLU are alone and of the right shapes."""
    if node.op_type != "ConvTranspose" or not _tiles(node):
        return None
    found = [node]
    for op_type in ("Relu", "Conv"):
        readers = wiring.consumers.get(found[-1].output[0], [])
        following = wiring.nodes[readers[0][0]] if len(readers) == 1 else None
        if following is None or following.op_type != op_type:
            return None
        found.append(following)
    weights = [found[0].input[1], found[2].input[1]]
    if any(w not in wiring.initializers for w in weights) or len(found[0].input) < 3:
        return None
    pointwise = list(wiring.initializers[weights[1]].dims[2:]) == [1, 1]
    return (found[0], found[2]) if pointwise else None


def _tiles(node: onnx.NodeProto) -> bool:
    """Whether the windows of a deconvolution lie side by side."""
    from onnx import helper

    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    side = values.get("kernel_shape")
    return (
        side is not None
        and values.get("strides") == side
        and side[0] == side[1]
        and values.get("group", 1) == 1
        and not any(values.get("pads", ()))
        and not any(values.get("output_padding", ()))
        and set(values.get("dilations", (1,))) == {1}
    )


def _rewrite(
    graph: onnx.GraphProto, wiring: Wiring, up: onnx.NodeProto, predictor: onnx.NodeProto
) -> None:
    from onnx import helper

    weight = wiring.constant(up.input[1])
    bias = wiring.constant(up.input[2])
    assert weight is not None and bias is not None
    side = weight.shape[2]
    positions = side * side
    # (D_in, D_out, S, S) to (S * S * D_out, D_in, 1, 1): the shuffle reads row, column, channel.
    spread = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0], 1, 1)
    own_constant(graph, up, 1, spread)
    own_constant(graph, up, 2, np.tile(bias, positions))
    _make_pointwise(up)
    _predict_before_shuffle(graph, wiring, predictor, positions)
    shuffled, output = predictor.output[0], f"{predictor.output[0]}/before_shuffle"
    predictor.output[0] = output
    shuffle = helper.make_node(
        "DepthToSpace",
        [output],
        [shuffled],
        f"{predictor.name}/shuffle",
        blocksize=side,
        mode="DCR",
    )
    index = [n.name for n in graph.node].index(predictor.name)
    graph.node.insert(index + 1, shuffle)


def _make_pointwise(node: onnx.NodeProto) -> None:
    from onnx import helper

    node.op_type = "Conv"
    del node.attribute[:]
    node.attribute.extend(
        [helper.make_attribute("kernel_shape", [1, 1]), helper.make_attribute("strides", [1, 1])]
    )


def _predict_before_shuffle(
    graph: onnx.GraphProto, wiring: Wiring, node: onnx.NodeProto, positions: int
) -> None:
    """The predictor for every position in the window: in groups, or dense with zeros if small."""
    from onnx import helper

    weight = wiring.constant(node.input[1])
    assert weight is not None
    classes, channels = weight.shape[:2]
    if positions * classes <= _DENSE_OUTPUTS:
        dense = np.zeros((positions * classes, positions * channels, 1, 1), np.float32)
        for p in range(positions):
            rows, columns = p * classes, p * channels
            dense[rows : rows + classes, columns : columns + channels] = weight
        own_constant(graph, node, 1, dense)
    else:
        own_constant(graph, node, 1, np.tile(weight, (positions, 1, 1, 1)))
        kept = [a for a in node.attribute if a.name != "group"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("group", positions)])
    if len(node.input) > 2:
        bias = wiring.constant(node.input[2])
        assert bias is not None
        own_constant(graph, node, 2, np.tile(bias, positions))
