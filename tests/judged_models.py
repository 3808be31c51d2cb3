"""A model whose masks pass through one convolution, in float and in 8 bits, and a set it fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tiny_model
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scenes import write_scenes

from centermask_edge.data.augment import read_bgr
from centermask_edge.data.coco import read_coco
from centermask_edge.engines import EngineName, open_engine
from centermask_edge.engines.segment import Segmenter

GOOD_SCALE = 1 / 127
BROKEN_SCALE = GOOD_SCALE / 100  # what lies above a hundredth is cut off: no mask reaches 0.5


def write_model(path: Path, scale: float | None = None) -> Path:
    """The tiny model; masks through Q/DQ of that scale and an int8 weight, or all in float."""
    model = tiny_model.build()
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["raw_masks" if name == "masks" else name for name in node.output]
    weight = np.ones((tiny_model.K, 1, 1, 1), np.float32)
    data, filters = "raw_masks", "weight"
    if scale is None:
        graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    else:
        data, filters = "raw_masks/dequantized", "weight/dequantized"
        arrays: dict[str, NDArray[Any]] = {
            "scale": np.array(scale, np.float32),
            "zero_code": np.array(0, np.int8),
            "weight/quantized": np.full(weight.shape, 127, np.int8),
            "weight/scale": np.array(1 / 127, np.float32),
        }
        for name, value in arrays.items():
            graph.initializer.append(numpy_helper.from_array(value, name))
        graph.node.extend(
            [
                helper.make_node("QuantizeLinear", ["raw_masks", "scale", "zero_code"], ["codes"]),
                helper.make_node("DequantizeLinear", ["codes", "scale", "zero_code"], [data]),
                helper.make_node(
                    "DequantizeLinear", ["weight/quantized", "weight/scale", "zero_code"], [filters]
                ),
            ]
        )
    graph.node.append(
        helper.make_node("Conv", [data, filters], ["masks"], "copy/Conv", group=tiny_model.K)
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_truth(folder: Path, model: Path, count: int = 6) -> Path:
    """Drawn pictures, annotated with just what a model finds in them."""
    path = write_scenes(folder, count=count, size=(160, 128))
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 7, "name": "person"}, {"id": 9, "name": "dog"}]
    for row in content["annotations"]:
        row["category_id"] = 7
    path.write_text(json.dumps(content))
    segment = Segmenter(open_engine(model, EngineName.ONNXRUNTIME, threads=1))
    rows: list[dict[str, Any]] = []
    for sample in read_coco(path, ("person", "dog")):
        found = segment(read_bgr(sample))
        for box, row in zip(found.boxes.tolist(), found.to_coco(), strict=True):
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": sample.image_id,
                    "category_id": (7, 9)[row["class_id"]],
                    "bbox": sides,
                    "area": sides[2] * sides[3],
                    "iscrowd": 0,
                    "segmentation": row["segmentation"],
                }
            )
    path.write_text(json.dumps({**content, "annotations": rows}))
    return path


def convolutions() -> onnx.ModelProto:
    """Convolutions and a matrix product of known size; two of them in 8 bits.

    The input is (1, 3, 32, 64): 8 filters of 3x3 at half the size, the same by groups of 2, back
    up by a 2x2 deconvolution to 4 channels, and a product with a 4 x 5 matrix over the channels.
    """
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w1", "s", "z"], ["dw1"]),
        helper.make_node("Conv", ["dq", "dw1"], ["a"], "first", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["a", "w2"], ["b"], "grouped", pads=[1, 1, 1, 1], group=4),
        helper.make_node("ConvTranspose", ["b", "w3"], ["c"], "up", strides=[2, 2]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["qc"]),
        helper.make_node("DequantizeLinear", ["qc", "s", "z"], ["dc"]),
        helper.make_node("Transpose", ["dc"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("DequantizeLinear", ["w4", "s", "z"], ["dw4"]),
        helper.make_node("MatMul", ["t", "dw4"], ["out"], "product"),
        helper.make_node("Identity", ["image_size"], ["size"]),
    ]
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {
        "s": np.array(0.05, np.float32),
        "z": np.array(0, np.int8),
        "w1": rng.integers(-90, 90, (8, 3, 3, 3), dtype=np.int8),
        "w2": rng.standard_normal((8, 2, 3, 3)).astype(np.float32),
        "w3": rng.standard_normal((8, 4, 2, 2)).astype(np.float32),
        "w4": rng.integers(-90, 90, (4, 5), dtype=np.int8),
    }
    value = helper.make_tensor_value_info
    inputs = [
        value("image", TensorProto.FLOAT, ["N", 3, "H", "W"]),
        value("image_size", TensorProto.FLOAT, ["N", 2]),
    ]
    outputs = [
        value("out", TensorProto.FLOAT, ["N", "H", "W", 5]),
        value("size", TensorProto.FLOAT, ["N", 2]),
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "convolutions", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
