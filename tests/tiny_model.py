"""An ONNX file with the inputs, outputs and metadata of ours and almost no network in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from centermask_edge.config import DecodeConfig, PreprocessConfig
from centermask_edge.graph.metadata import METADATA_KEY, ModelMetadata

K = 5
# Fractions of the picture, then pixels for the mean of what the network saw.
BOXES = np.array([[0.1, 0.2, 0.5, 0.9], [0.4, 0.1, 0.8, 0.6], [-0.2, 0.5, 0.2, 1.3]], np.float32)
SCORES = np.array([0.9, 0.6, 0.3], np.float32)


def metadata(**preprocess: object) -> ModelMetadata:
    config = {"short_side": 64, "long_side": 128, **preprocess}
    return ModelMetadata(
        preset="tiny",
        classes=("person", "dog"),
        preprocess=PreprocessConfig.model_validate(config),
        decode=DecodeConfig.model_validate({"max_detections": K}),
        training={"run": "none"},
    )


def _masks() -> np.ndarray:
    y, x = np.mgrid[:28, :28] - 13.5
    disc = 1 / (1 + np.exp(np.hypot(x, y) - 11))
    return np.repeat(disc[None].astype(np.float32), len(SCORES), axis=0)


def _padded(values: np.ndarray, dtype: type) -> np.ndarray:
    padded = np.zeros((1, K, *values.shape[1:]), dtype)
    padded[0, : len(values)] = values
    return padded


def build(found: int = len(SCORES), record: str | None = None) -> onnx.ModelProto:
    """A model that finds its first ``found`` constant instances in every picture.

    Boxes scale with ``image_size``; every mask score is the mean of ``image``, so that a test can
    see what the network was given.
    """
    batch_first = {"boxes": (K, 4), "scores": (K,), "classes": (K,), "masks": (K, 28, 28)}
    constants = {
        "c_boxes": _padded(BOXES[:found], np.float32),
        "c_scores": _padded(SCORES[:found], np.float32),
        "c_classes": _padded(np.array([0, 1, 0])[:found], np.int64),
        "c_masks": _padded(_masks()[:found], np.float32),
        "c_count": np.array([found], np.int64),
        "xy": np.array([1, 0, 1, 0], np.int64),
        "one": np.array([1], np.int64),
        "minus": np.array([-1], np.int64),
        "live": (_padded(np.ones(found), np.float32)),
    }
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"], axis=0),
        helper.make_node("Gather", ["image_size", "xy"], ["whwh"], axis=1),
        helper.make_node("Unsqueeze", ["whwh", "one"], ["sizes"]),
        helper.make_node("Mul", ["c_boxes", "sizes"], ["boxes"]),
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["means"]),
        helper.make_node("Mul", ["means", "live"], ["mask_scores"]),
        helper.make_node("Expand", ["c_count", "n"], ["count"]),
    ]
    constants["zero"] = np.array([0], np.int64)
    for name in ("scores", "classes", "masks"):
        tail = f"{name}_tail"
        constants[tail] = np.array(batch_first[name], np.int64)
        nodes.append(helper.make_node("Concat", ["n", tail], [f"{name}_shape"], axis=0))
        nodes.append(helper.make_node("Expand", [f"c_{name}", f"{name}_shape"], [name]))
    integers = {"classes", "count"}
    outputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name in integers else TensorProto.FLOAT, ["N", *tail]
        )
        for name, tail in {**batch_first, "mask_scores": (K,), "count": ()}.items()
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"]),
        helper.make_tensor_value_info("image_size", TensorProto.FLOAT, ["N", 2]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(
        model, {METADATA_KEY: metadata().to_json() if record is None else record}
    )
    onnx.checker.check_model(model)
    return model


def save(path: Path, found: int = len(SCORES), record: str | None = None) -> Path:
    onnx.save(build(found, record), path)
    return path
