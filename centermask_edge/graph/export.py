"""Writes the one ONNX file: two traced halves, our ops between them, metadata.

    image, image_size -> dense half -> CMDecodeNMS -> CMPyramidRoIAlign -> mask half
                      -> boxes, scores, mask_scores, classes, masks, count

Named tensors that lowering relies on: ``rois`` (R, 4), ``roi_image`` (R,), ``roi_classes`` (R,),
``roi_features``, ``roi_masks`` (R, 28, 28), ``roi_iou`` (R,), ``valid`` (N, K); R = N * K.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from centermask_edge.config import ModelConfig
from centermask_edge.errors import ModelFileError
from centermask_edge.graph.functions import DOMAIN, OPSET, PLUGIN_ATTRIBUTES, dense_names
from centermask_edge.graph.metadata import METADATA_KEY, ModelMetadata
from centermask_edge.graph.simplify import simplified
from centermask_edge.graph.variants import ANY_ROI_ALIGN, ORIGINAL_DECODE, functions_of
from centermask_edge.switches import RoiRules

if TYPE_CHECKING:
    import onnx

    from centermask_edge.model.centermask import CenterMask

# Weights below this many elements stay in fp32: they cost nothing and include every bias.
_FP16_MIN_SIZE = 2048

_GLUE = """
glue (float[N, 3, H, W] image, float[N, 2] image_size)
=> (float[N, {k}] mask_scores, float[N, {k}, 28, 28] masks)
{{
  quad = Constant <value_ints = [-1, 4]> ()
  flat = Constant <value_ints = [-1]> ()
  per_image = Constant <value_ints = [-1, {k}]> ()
  per_image_mask = Constant <value_ints = [-1, {k}, 28, 28]> ()
  axis_1 = Constant <value_ints = [1]> ()
  axes_23 = Constant <value_ints = [2, 3]> ()
  zero_f = Constant <value_float = 0.0> ()
  zero_i = Constant <value_int = 0> ()
  one_i = Constant <value_int = 1> ()
  slots = Constant <value_ints = {slots}> ()
  rois = Reshape (boxes, quad)
  roi_classes = Reshape (classes, flat)
  count_column = Unsqueeze (count, axis_1)
  valid = Less (slots, count_column)
  count_shape = Shape (count)
  images = Squeeze (count_shape)
  image_range = Range (zero_i, images, one_i)
  image_column = Unsqueeze (image_range, axis_1)
  box_shape = Shape <start = 0, end = 2> (boxes)
  image_grid = Expand (image_column, box_shape)
  roi_image = Reshape (image_grid, flat)
  mask_rows = Reshape (roi_masks, per_image_mask)
  valid_1 = Unsqueeze (valid, axes_23)
  masks = Where (valid_1, mask_rows, zero_f)
  iou_rows = Reshape (roi_iou, per_image)
  weighted = Mul (scores, iou_rows)
  mask_scores = Where (valid, weighted, zero_f)
}}
"""


def _prefixed(model: onnx.ModelProto, prefix: str, keep: Iterable[str]) -> onnx.GraphProto:
    """The graph with every tensor and node renamed, except the tensors to keep."""
    kept = set(keep)

    def rename(name: str) -> str:
        return name if not name or name in kept else f"{prefix}/{name}"

    graph = model.graph
    for node in graph.node:
        node.name = f"{prefix}/{node.name.lstrip('/')}"
        node.input[:] = [rename(n) for n in node.input]
        node.output[:] = [rename(n) for n in node.output]
    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    return graph


def _our_nodes(config: ModelConfig) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    from onnx import helper

    decode, rules = config.decode, config.roi_rules
    dense = dense_names("logits") + dense_names("reg") + dense_names("centerness")
    plain_decode, plain_roi = not rules.original, rules == RoiRules()
    levels = [f"p{level}" for level in rules.levels]
    rois = ["rois", "roi_image", "image_size"]
    return (
        helper.make_node(
            "CMDecodeNMS" if plain_decode else ORIGINAL_DECODE,
            dense if plain_decode else [*dense, "image_size"],
            ["boxes", "scores", "classes", "count"],
            name="decode_nms",
            domain=DOMAIN,
            score_threshold=decode.score_threshold,
            nms_threshold=decode.nms_threshold,
            pre_nms_topk=decode.pre_nms_topk,
            max_detections=decode.max_detections,
            **PLUGIN_ATTRIBUTES,
        ),
        helper.make_node(
            "CMPyramidRoIAlign" if plain_roi else ANY_ROI_ALIGN,
            [*levels, *rois] if plain_roi else [*rois, *levels],
            ["roi_features"],
            name="roi_align",
            domain=DOMAIN,
            output_size=14,
            **PLUGIN_ATTRIBUTES,
        ),
    )


def _glue(config: ModelConfig) -> list[onnx.NodeProto]:
    import onnx.parser

    k = config.decode.max_detections
    text = _GLUE.format(k=k, slots="[" + ", ".join(str(i) for i in range(k)) + "]")
    nodes = list(onnx.parser.parse_graph(text).node)
    for node in nodes:
        node.name = f"glue/{node.output[0]}"
    return nodes


def _outputs(k: int) -> list[onnx.ValueInfoProto]:
    from onnx import TensorProto, helper

    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    return [
        helper.make_tensor_value_info("boxes", f32, ["N", k, 4]),
        helper.make_tensor_value_info("scores", f32, ["N", k]),
        helper.make_tensor_value_info("mask_scores", f32, ["N", k]),
        helper.make_tensor_value_info("classes", i64, ["N", k]),
        helper.make_tensor_value_info("masks", f32, ["N", k, 28, 28]),
        helper.make_tensor_value_info("count", i64, ["N"]),
    ]


def sorted_nodes(nodes: list[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """Nodes in an order in which every input is made before it is used."""
    waiting, ordered = list(nodes), []
    while waiting:
        ready = [n for n in waiting if all(not i or i in known for i in n.input)]
        assert ready, f"cycle or missing tensor near {waiting[0].name}"
        for node in ready:
            known.update(node.output)
        chosen = {id(n) for n in ready}
        ordered += ready
        waiting = [n for n in waiting if id(n) not in chosen]
    return ordered


def build(model: CenterMask, training: dict[str, str]) -> onnx.ModelProto:
    """The whole network as one ONNX model with fp32 weights.

    Args:
        model: the network, its weights and its configuration.
        training: what is known of the weights: run, commit, data; stored in the metadata.
    """
    import onnx
    from onnx import TensorProto, helper

    from centermask_edge.graph.trace import dense_outputs, trace_dense, trace_masks

    config = model.config
    roi = ["roi_features", "roi_classes", "roi_masks", "roi_iou"]
    dense = _prefixed(simplified(trace_dense(model)), "dense", ["image", *dense_outputs(config)])
    masks = _prefixed(trace_masks(model), "mask", roi)
    weights = [*dense.initializer, *masks.initializer]
    nodes = [*dense.node, *masks.node, *_our_nodes(config), *_glue(config)]
    nodes = sorted_nodes(nodes, {"image", "image_size", *(w.name for w in weights)})
    graph = helper.make_graph(
        nodes,
        "centermask",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"]),
            helper.make_tensor_value_info("image_size", TensorProto.FLOAT, ["N", 2]),
        ],
        _outputs(config.decode.max_detections),
        initializer=weights,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    proto = helper.make_model(
        graph,
        opset_imports=opsets,
        functions=functions_of(config),
        producer_name="centermask-edge",
    )
    proto.ir_version = 8
    metadata = ModelMetadata(
        preset=config.name,
        classes=config.classes,
        preprocess=config.preprocess,
        decode=config.decode,
        training={**training, "weights_sha256": weights_digest(model)},
    )
    helper.set_model_props(proto, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(proto)
    return proto


def weights_digest(model: CenterMask) -> str:
    """SHA-256 over names, shapes and little-endian float32 bytes of the state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().numpy().astype("<f4")
        digest.update(f"{name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def with_fp16_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with large weights stored as float16 and cast to float32 when loaded.

    Halves the file; the arithmetic stays float32 on weights rounded to 11 bits.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts: list[Any] = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor)
        if array.size < _FP16_MIN_SIZE:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), f"{name}_fp16"))
        casts.append(
            helper.make_node(
                "Cast", [f"{name}_fp16"], [name], name=f"cast/{name}", to=TensorProto.FLOAT
            )
        )
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def export(
    model: CenterMask, path: Path, training: dict[str, str], *, fp16_weights: bool = False
) -> Path:
    """Write the ONNX file; it appears whole or not at all.

    Args:
        model: the network to write.
        path: the file.
        training: what is known of the weights; stored in the metadata.
        fp16_weights: store large weights in half the space.

    Raises:
        ModelFileError: the file cannot be written.
        MissingPackageError: onnx is not installed.
    """
    proto = build(model, training)
    if fp16_weights:
        proto = with_fp16_weights(proto)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(proto.SerializeToString())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise ModelFileError(f"cannot write {path}: {error.strerror}") from None
    return path
