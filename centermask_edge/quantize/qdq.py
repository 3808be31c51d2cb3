"""Writes QuantizeLinear and DequantizeLinear into a model: int8 weights, 8-bit activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.quantize.placement import Sites
from centermask_edge.quantize.weights import copied, drop_unused, rounded, weight_steps

if TYPE_CHECKING:
    import onnx

SIGNED_LEVELS, UNSIGNED_LEVELS = 127, 255


def insert_qdq(
    model: onnx.ModelProto, sites: Sites, ranges: Mapping[str, float]
) -> onnx.ModelProto:
    """A copy of the model that computes in 8 bits at the given places.

    Every tensor gets one pair however many nodes read it; members of a scale group use one scale
    initializer; a weight becomes one int8 initializer with a DequantizeLinear. Graph inputs,
    outputs, functions and metadata stay.

    Args:
        model: with float32 weights.
        sites: where.
        ranges: magnitude that is still represented, by group.
    """
    result = copied(model)
    graph = result.graph
    _rewire(graph, sites)
    pairs = _pairs(graph, sites, ranges)
    nodes = [*_weight_nodes(graph, sites)]
    for value in graph.input:
        nodes += pairs.get(value.name, [])
    for node in graph.node:
        nodes.append(node)
        for tensor in node.output:
            nodes += pairs.get(tensor, [])
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    drop_unused(graph)
    return result


def _rewire(graph: onnx.GraphProto, sites: Sites) -> None:
    nodes = {node.name: node for node in graph.node}
    for edge in sites.edges:
        nodes[edge.node].input[edge.index] = f"{edge.tensor}/dequantized"
    for weight in sites.weights:
        for name in weight.nodes:
            nodes[name].input[1] = f"{weight.name}/dequantized"


def _pairs(
    graph: onnx.GraphProto, sites: Sites, ranges: Mapping[str, float]
) -> dict[str, list[onnx.NodeProto]]:
    from onnx import helper, numpy_helper

    pairs = {}
    for group, members in sites.members().items():
        unsigned = members[0] in sites.unsigned
        step = ranges[group] / (UNSIGNED_LEVELS if unsigned else SIGNED_LEVELS)
        kind = np.uint8 if unsigned else np.int8
        scale_name, zero_name = f"{group}/scale", f"{group}/zero"
        graph.initializer.append(numpy_helper.from_array(np.asarray(step, np.float32), scale_name))
        graph.initializer.append(numpy_helper.from_array(np.zeros((), kind), zero_name))
        for tensor in members:
            codes, back = f"{tensor}/quantized", f"{tensor}/dequantized"
            pairs[tensor] = [
                helper.make_node("QuantizeLinear", [tensor, scale_name, zero_name], [codes], codes),
                helper.make_node("DequantizeLinear", [codes, scale_name, zero_name], [back], back),
            ]
    return pairs


def _weight_nodes(graph: onnx.GraphProto, sites: Sites) -> Iterable[onnx.NodeProto]:
    from onnx import helper, numpy_helper

    arrays = {t.name: t for t in graph.initializer}
    for site in sites.weights:
        weight = numpy_helper.to_array(arrays[site.name])
        steps = weight_steps(weight, site.axis)
        names = [f"{site.name}/{part}" for part in ("quantized", "scale", "zero")]
        parts: tuple[NDArray[Any], ...] = (
            rounded(weight, steps, site.axis),
            steps,
            np.zeros(steps.shape, np.int8),
        )
        for name, part in zip(names, parts, strict=True):
            graph.initializer.append(numpy_helper.from_array(part, name))
        back = f"{site.name}/dequantized"
        node = helper.make_node("DequantizeLinear", names, [back], back)
        if site.axis is not None:
            node.attribute.append(helper.make_attribute("axis", site.axis))
        yield node
