"""Bias correction: rounding a weight shifts the mean of its output; the bias takes it back.

The shift is the weight's rounding error times the mean of its input, per output channel (Nagel et
al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2,
with means measured on the calibration pictures). Borders are taken as if the picture went on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from centermask_edge.quantize.collect import Activations
from centermask_edge.quantize.placement import Sites, WeightSite
from centermask_edge.quantize.weights import (
    copied,
    own_constant,
    rounded,
    spread,
    weight_steps,
)
from centermask_edge.quantize.wiring import Wiring, attribute, read_wiring

if TYPE_CHECKING:
    import onnx


def correct_biases(model: onnx.ModelProto, sites: Sites, seen: Activations) -> onnx.ModelProto:
    """A copy whose biases undo the mean shift of rounding its weights.

    Weights whose input was not measured per channel, and deconvolutions, are left alone.

    Args:
        model: with float32 weights.
        sites: which weights will be rounded.
        seen: means of their inputs.
    """
    result = copied(model)
    wiring = read_wiring(result)
    for site in sites.weights:
        means = _input_means(wiring, site, seen)
        if means is not None:
            shift = output_shift(wiring, site, means)
            for name in site.nodes:
                _subtract(result.graph, wiring, name, shift)
    return result


def output_shift(
    wiring: Wiring, site: WeightSite, means: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Mean of every output channel with the rounded weight, minus that with the exact one.

    Returns:
        float32 (D_out,).
    """
    weight = wiring.constant(site.name)
    assert weight is not None
    steps = weight_steps(weight, site.axis)
    error = rounded(weight, steps, site.axis) * spread(steps, weight.ndim, site.axis) - weight
    node = wiring.nodes[site.nodes[0]]
    if node.op_type == "Gemm":
        matrix = error if attribute(node, "transB", 0) else error.T
        return np.asarray(matrix @ means, np.float32)
    groups = attribute(node, "group", 1)
    taps = error.reshape(*error.shape[:2], -1).sum(2)
    outputs, width = taps.shape
    grouped = taps.reshape(groups, outputs // groups, width)
    inputs = means.reshape(groups, width, 1)
    return np.asarray((grouped @ inputs).reshape(-1), np.float32)


def _input_means(wiring: Wiring, site: WeightSite, seen: Activations) -> NDArray[np.float64] | None:
    """Mean of every input channel over all the nodes that share the weight."""
    nodes = [wiring.nodes[name] for name in site.nodes]
    tensors = [node.input[0] for node in nodes]
    known = all(tensor in seen.sums for tensor in tensors)
    if not known or any(node.op_type not in ("Conv", "Gemm") for node in nodes):
        return None
    total = sum((seen.sums[t] for t in tensors), np.zeros(1))
    values = sum(seen.values[t] for t in tensors)
    return np.asarray(total / values, np.float64)


def _subtract(
    graph: onnx.GraphProto, wiring: Wiring, name: str, shift: NDArray[np.float32]
) -> None:
    node = wiring.nodes[name]
    bias = wiring.constant(node.input[2]) if len(node.input) > 2 else None
    if bias is None and len(node.input) > 2:
        return
    value = -shift if bias is None else bias - shift
    own_constant(graph, node, 2, np.asarray(value, np.float32))
