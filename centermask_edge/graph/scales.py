"""Quantization scales that fp16 can hold, and weights rounded again to fit them.

An fp16 number below 6e-8 is zero and below 6e-5 has few digits left. Where a scale is too small
for that (a channel that training switched off), a larger one is taken, and the int8 codes of a
weight are made anew for it, so that codes and scale still belong together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import ModelFileError

if TYPE_CHECKING:
    import onnx

# 64 of fp16's smallest steps: rounding to fp16 changes nothing from here on by more than 0.8 %.
SMALLEST = 2.0**-18
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})


def fp16_scales(model: onnx.ModelProto) -> None:
    """Makes every Q/DQ scale of the model a value that fp16 holds; changes the model.

    Raises:
        ModelFileError: a scale is no positive finite number fp16 reaches; it is named.
    """
    from onnx import numpy_helper

    tensors = {t.name: t for t in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type in _QDQ and n.input[1] in tensors]
    before = {n.input[1]: numpy_helper.to_array(tensors[n.input[1]]) for n in nodes}
    after = {name: _representable(name, scale) for name, scale in before.items()}
    for node in nodes:
        codes, scale = node.input[0], node.input[1]
        if node.op_type == "DequantizeLinear" and codes in tensors:
            ratio = _along(node, before[scale] / after[scale], len(tensors[codes].dims))
            fitted = _requantized(numpy_helper.to_array(tensors[codes]), ratio)
            tensors[codes].CopyFrom(numpy_helper.from_array(fitted, codes))
    for name, scale in after.items():
        tensors[name].CopyFrom(numpy_helper.from_array(scale, name))


def _representable(name: str, scale: NDArray[Any]) -> NDArray[np.float32]:
    if not (np.isfinite(scale).all() and (scale > 0).all() and scale.max() <= 65504):
        raise ModelFileError(
            f"quantization scale {name} is {float(scale.min()):g} to {float(scale.max()):g}; "
            "positive numbers that fp16 can hold are wanted: quantize the model again"
        )
    return np.maximum(scale.astype(np.float16).astype(np.float32), np.float32(SMALLEST))


def _requantized(codes: NDArray[Any], ratio: NDArray[np.float32]) -> NDArray[Any]:
    limits = np.iinfo(codes.dtype)
    return np.clip(np.rint(codes * ratio), limits.min, limits.max).astype(codes.dtype)


def _along(node: onnx.NodeProto, ratio: NDArray[Any], rank: int) -> NDArray[np.float32]:
    """The ratio in a shape that broadcasts against the codes."""
    if ratio.ndim == 0:
        return ratio
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 1) % rank
    return ratio.reshape([-1 if i == axis else 1 for i in range(rank)])
