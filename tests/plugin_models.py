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
    nodes = [_quantize(name) for name, kind, _ in inputs if kind == INT8]
    nodes.append(
        helper.make_node(
            op,
            [name for name, *_ in inputs],
            [name for name, *_ in outputs],
            name="node",
            domain="centermask",
            **PLUGIN,
            **attributes,
        )
    )
    nodes += [_dequantize(name) for name, kind, _ in outputs if kind == INT8]
    weights = [
        helper.make_tensor("scale", FLOAT, [], [0.125]),
        helper.make_tensor("zero", INT8, [], [0]),
    ]
    outside_in = [_outside(name, kind, sizes, "in") for name, kind, sizes in inputs]
    outside_out = [_outside(name, kind, sizes, "out") for name, kind, sizes in outputs]
    graph = helper.make_graph(nodes, "one", outside_in, outside_out, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("centermask", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def _quantize(name: str) -> onnx.NodeProto:
    return helper.make_node("QuantizeLinear", [f"{name}_in", "scale", "zero"], [name])


def _dequantize(name: str) -> onnx.NodeProto:
    return helper.make_node("DequantizeLinear", [name, "scale", "zero"], [f"{name}_out"])


def _outside(name: str, kind: int, sizes: list[Any], side: str) -> onnx.ValueInfoProto:
    if kind == INT8:
        name, kind = f"{name}_{side}", FLOAT
    return helper.make_tensor_value_info(name, kind, sizes)


def attention(path: Path, kind: int = FLOAT, **changed: Any) -> Path:
    """CMSpatialAttention on 14 x 14 RoIs."""
    shape = changed.pop("shape", ["N", 128, 14, 14])
    weight: Sized = (
        "weight",
        FLOAT if kind == INT8 else changed.pop("weight_kind", kind),
        [1, 2, 3, 3],
    )
    scales = {"x_scale": 0.125, "y_scale": 0.125} if kind == INT8 else {}
    attributes = scales | changed
    attributes = {k: v for k, v in attributes.items() if v is not None}
    inputs: list[Sized] = [("x", kind, shape), weight]
    return save(path, "CMSpatialAttention", inputs, [("y", kind, shape)], **attributes)


def align(path: Path, kind: int = FLOAT, **changed: Any) -> Path:
    """CMPyramidRoIAlign from the three levels of a 320 x 256 picture."""
    channels = changed.pop("channels", (128, 128, 128))
    index = changed.pop("index", INT64)
    rois = changed.pop("rois_kind", FLOAT)
    maps: list[Sized] = [
        (f"p{n}", kind, ["N", c, 256 >> n, 320 >> n])
        for n, c in zip((3, 4, 5), channels, strict=True)
    ]
    rest: list[Sized] = [
        ("rois", rois, ["R", 4]),
        ("roi_image", index, ["R"]),
        ("image_size", FLOAT, ["N", 2]),
    ]
    scales = {"feature_scales": [0.125] * 3, "output_scale": 0.125} if kind == INT8 else {}
    attributes = {"output_size": 14} | scales | changed
    attributes = {k: v for k, v in attributes.items() if v is not None}
    outputs: list[Sized] = [("features", kind, ["R", 128, 14, 14])]
    return save(path, "CMPyramidRoIAlign", [*maps, *rest], outputs, **attributes)


def decode(path: Path, kind: int = FLOAT, **changed: Any) -> Path:
    """CMDecodeNMS of persons on a 320 x 256 picture."""
    reg_channels = changed.pop("reg_channels", 4)
    channels = (("logits", 1), ("reg", reg_channels), ("centerness", 1))
    inputs: list[Sized] = [
        (f"{name}_{n}", kind, ["N", c, 256 >> n, 320 >> n])
        for name, c in channels
        for n in range(3, 8)
    ]
    attributes = {"score_threshold": 0.05, "nms_threshold": 0.6, "pre_nms_topk": 1000}
    attributes = attributes | {"max_detections": 50} | changed
    outputs: list[Sized] = [("boxes", FLOAT, ["N", 50, 4]), ("scores", FLOAT, ["N", 50])]
    outputs += [("classes", INT64, ["N", 50]), ("count", INT64, ["N"])]
    return save(path, "CMDecodeNMS", inputs, outputs, **attributes)
