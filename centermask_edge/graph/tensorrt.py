"""The product file made fit for TensorRT and TensorRT-RTX.

* Functions are stripped: TensorRT before 10.7 would take a function's body and never ask for the
  plugin.
* Plain weights, no fp16 storage behind casts.
* Where every picture of a batch and every size is fixed, shapes are written down and the indices
  of the RoIs are a constant.
* fp16 predictions go to the decoding plugin as they are: it widens them itself.
* What TensorRT imports wrongly in silence, or refuses, is refused here by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from centermask_edge.errors import ModelFileError
from centermask_edge.graph.functions import DOMAIN
from centermask_edge.graph.precision import (
    copied,
    drop_unused,
    replace_nodes,
    with_plain_weights,
)
from centermask_edge.graph.variants import ANY_ROI_ALIGN, ROI_ALIGNS

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class InputShape:
    """Sizes of the input; None where the engine takes a range of them."""

    batch: int | None
    height: int | None
    width: int | None


def lower_for_tensorrt(model: onnx.ModelProto, shape: InputShape) -> onnx.ModelProto:
    """The model as TensorRT's parser takes it; outputs keep their names, types and ranks.

    Raises:
        ModelFileError: it is quantized in a way that TensorRT cannot or must not run, or has RoI
            or decoding rules that the plugins do not know.
    """
    check_quantization(model)
    check_rules(model)
    result = with_plain_weights(copied(model))
    del result.functions[:]
    _absorb_casts(result.graph)
    fix_shapes(result.graph, shape)
    if shape.batch is not None:
        fold_roi_image(result.graph, shape.batch)
    drop_unused(result.graph)
    return result


def check_rules(model: onnx.ModelProto) -> None:
    """Nothing, if the plugins know what the model's own operations do.

    Raises:
        ModelFileError: they do not.
    """
    known = {"CMDecodeNMS", "CMPyramidRoIAlign", "CMSpatialAttention"}
    foreign = [n.op_type for n in model.graph.node if n.domain == DOMAIN and n.op_type not in known]
    if foreign:
        raise ModelFileError(
            f"the model has {', '.join(foreign)}, which the TensorRT plugins do not know: they do "
            "equation 2 on P3 to P5 under the rules of centermask2; run it through onnxruntime or "
            "openvino"
        )


def check_quantization(model: onnx.ModelProto) -> None:
    """Nothing, if every Q/DQ is symmetric int8 and no bias is quantized.

    Raises:
        ModelFileError: one is not; it is named.
    """
    from onnx import TensorProto, numpy_helper

    again = "quantize again for TensorRT: centermask-edge quantize --recipe tensorrt"
    tensors = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        codes = tensors.get(node.input[0])
        if codes is not None and codes.data_type == TensorProto.INT32:
            raise ModelFileError(f"bias {codes.name} is quantized to int32; {again}")
        zero = tensors.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None and node.op_type == "QuantizeLinear":
            raise ModelFileError(
                f"{node.name or node.output[0]} has no zero point and is uint8 by that; {again}"
            )
        if zero is not None and zero.data_type != TensorProto.INT8:
            kind = TensorProto.DataType.Name(zero.data_type).lower()
            raise ModelFileError(
                f"{node.name or node.output[0]} quantizes to {kind}, which TensorRT reads as "
                f"int8 without a word; {again}"
            )
        if zero is not None and numpy_helper.to_array(zero).any():
            raise ModelFileError(
                f"{node.name or node.output[0]} has a zero point other than 0, which TensorRT "
                f"does not run; {again}"
            )


def _absorb_casts(graph: onnx.GraphProto) -> None:
    """Feeds fp16 tensors to the decoding plugin instead of their widened copies.

    The plugin widens what it reads, so that nothing changes but fifteen launches fewer.
    """
    from onnx import TensorProto

    casts = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast"
        and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute)
        and node.name.startswith("cast/")
    }
    for node in graph.node:
        # The plugin wants one type for all of them.
        if node.op_type == "CMDecodeNMS" and all(name in casts for name in node.input):
            node.input[:] = [casts[name] for name in node.input]


def fix_shapes(graph: onnx.GraphProto, shape: InputShape) -> None:
    """Writes the known sizes into the inputs and outputs of a graph."""
    known = {"N": shape.batch, "H": shape.height, "W": shape.width}
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            # Files of other exporters may name the dimensions otherwise.
            named = known.get(dim.dim_param)
            if named is None and dim.dim_param and axis == 0:
                named = shape.batch
            if named is not None:
                dim.dim_value = named


def fold_roi_image(graph: onnx.GraphProto, batch: int) -> None:
    """Replaces the nodes that count the RoIs' pictures by what they count to."""
    from onnx import numpy_helper

    align = next((n for n in graph.node if n.op_type in ROI_ALIGNS), None)
    boxes = next((o for o in graph.output if o.name == "boxes"), None)
    if align is None or boxes is None:
        return
    name = align.input[1 if align.op_type == ANY_ROI_ALIGN else 4]
    each = int(boxes.type.tensor_type.shape.dim[1].dim_value)
    if not each or any(t.name == name for t in graph.initializer):
        return
    replace_nodes(graph, [n for n in graph.node if name not in n.output])
    indices = np.repeat(np.arange(batch, dtype=np.int64), each)
    graph.initializer.append(numpy_helper.from_array(indices, name))
