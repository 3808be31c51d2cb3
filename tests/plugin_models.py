"""ONNX files of one plugin node each, as our graphs have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

FLOAT, HALF, INT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8
INT64 = TensorProto.INT64
PLUGIN = {"plugin_namespace": "centermask", "plugin_version": "1"}

Sized = tuple[str, int, list[Any]]  # name, element type, sizes


def save(path: Path, op: str, inputs: list[Sized], outputs: list[Sized], **attributes: Any) -> Path:
    """The file, with our op between its inputs and outputs.

    An int8 input is quantised from a float one and an int8 output dequantised, as in a real graph.
    """
    nodes, weights, outside_in, outside_out = [], [], [], []
    weights.append(helper.make_tensor("scale", FLOAT, [], [0.125]))
    weights.append(helper.make_tensor("zero", INT8, [], [0]))
    for name, kind, sizes in inputs:
        outside_in.append((f"{name}_in" if kind == INT8 else name, sizes, kind))
        if kind == INT8:
            quantize = ["QuantizeLinear", [f"{name}_in", "scale", "zero"], [name]]
            nodes.append(helper.make_node(*quantize))
    names = ([i[0] for i in inputs], [o[0] for o in outputs])
    nodes.append(
        helper.make_node(op, *names, name="node", domain="centermask", **PLUGIN, **attributes)
    )
    for name, kind, sizes in outputs:
        outside_out.append((f"{name}_out" if kind == INT8 else name, sizes, kind))
        if kind == INT8:
            dequantize = ["DequantizeLinear", [name, "scale", "zero"], [f"{name}_out"]]
            nodes.append(helper.make_node(*dequantize))
    infos = [
        [helper.make_tensor_value_info(n, FLOAT if k == INT8 else k, s) for n, s, k in side]
        for side in (outside_in, outside_out)
    ]
    graph = helper.make_graph(nodes, "one", *infos, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("centermask", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def attention(path: Path, kind: int = FLOAT, **changed: Any) -> Path:
    """CMSpatialAttention on 14 x 14 RoIs."""
    shape = changed.pop("shape", ["N", 128, 14, 14])
    weight = ("weight", FLOAT if kind == INT8 else changed.pop("weight_kind", kind), [1, 2, 3, 3])
    scales = {"x_scale": 0.125, "y_scale": 0.125} if kind == INT8 else {}
    attributes = scales | changed
    attributes = {k: v for k, v in attributes.items() if v is not None}
    outputs = [("y", kind, shape)]
    return save(path, "CMSpatialAttention", [("x", kind, shape), weight], outputs, **attributes)


def align(path: Path, kind: int = FLOAT, **changed: Any) -> Path:
    """CMPyramidRoIAlign from the three levels of a 320 x 256 picture."""
    channels = changed.pop("channels", (128, 128, 128))
    index = changed.pop("index", INT64)
    rois = changed.pop("rois_kind", FLOAT)
    maps = [
        (f"p{n}", kind, ["N", c, 256 >> n, 320 >> n])
        for n, c in zip((3, 4, 5), channels, strict=True)
    ]
    rest = [("rois", rois, ["R", 4]), ("roi_image", index, ["R"]), ("image_size", FLOAT, ["N", 2])]
    scales = {"feature_scales": [0.125] * 3, "output_scale": 0.125} if kind == INT8 else {}
    attributes = {"output_size": 14} | scales | changed
    attributes = {k: v for k, v in attributes.items() if v is not None}
    outputs = [("features", kind, ["R", 128, 14, 14])]
    return save(path, "CMPyramidRoIAlign", [*maps, *rest], outputs, **attributes)


def decode(path: Path, kind: int = FLOAT, **changed: Any) -> Path:
    """CMDecodeNMS of persons on a 320 x 256 picture."""
    reg_channels = changed.pop("reg_channels", 4)
    channels = (("logits", 1), ("reg", reg_channels), ("centerness", 1))
    inputs = [
        (f"{name}_{n}", kind, ["N", c, 256 >> n, 320 >> n])
        for name, c in channels
        for n in range(3, 8)
    ]
    attributes = {"score_threshold": 0.05, "nms_threshold": 0.6, "pre_nms_topk": 1000}
    attributes = attributes | {"max_detections": 50} | changed
    outputs: list[Sized] = [("boxes", FLOAT, ["N", 50, 4]), ("scores", FLOAT, ["N", 50])]
    outputs += [("classes", INT64, ["N", 50]), ("count", INT64, ["N"])]
    return save(path, "CMDecodeNMS", inputs, outputs, **attributes)


def load(path: Path) -> onnx.ModelProto:
    """The model of a file."""
    return onnx.load(path)
