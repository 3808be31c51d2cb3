"""The product file made fit for one engine.

OpenVINO: the RoI branch runs only on the instances the user will see, each of them on its own
level only, and the functions are inlined because its front end does not know them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from centermask_edge.graph.roi_levels import ROI_ALIGN, group_by_level
from centermask_edge.graph.variants import ROI_ALIGNS

if TYPE_CHECKING:
    import onnx

MIN_SCORE = "min_score"  # input that lowering adds: box score below which no mask is made

# At least one RoI stays, so that no tensor of the branch is ever empty.
_COMPACT = """
compact (float[N, K] scores, float[1] min_score, bool[N, K] valid, float[R, 4] rois,
         int64[R] roi_classes, int64[R] roi_image, float[F, 28, 28] found_masks, float[F] found_iou)
=> (float[R, 28, 28] roi_masks, float[R] roi_iou)
{
  c_flat = Constant <value_ints = [-1]> ()
  c_zero = Constant <value_ints = [0]> ()
  c_one = Constant <value_ints = [1]> ()
  c_true = Constant <value = bool[1] {1}> ()
  below = Less (scores, min_score)
  enough = Not (below)
  wanted = And (valid, enough)
  valid_flat = Reshape (wanted, c_flat)
  rest = Constant <value_ints = [9223372036854775807]> ()
  valid_rest = Slice (valid_flat, c_one, rest, c_zero)
  run_roi = Concat <axis = 0> (c_true, valid_rest)
  run_at = NonZero (run_roi)
  found_at = Reshape (run_at, c_flat)
  found_rois = Gather <axis = 0> (rois, found_at)
  found_classes = Gather <axis = 0> (roi_classes, found_at)
  found_image = Gather <axis = 0> (roi_image, found_at)
  at_rows = Unsqueeze (found_at, c_one)
  roi_shape = Shape (roi_classes)
  side = Constant <value_ints = [28, 28]> ()
  masks_shape = Concat <axis = 0> (roi_shape, side)
  no_masks = ConstantOfShape <value = float[1] {0.0}> (masks_shape)
  no_iou = ConstantOfShape <value = float[1] {0.0}> (roi_shape)
  roi_masks = ScatterND (no_masks, at_rows, found_masks)
  roi_iou = ScatterND (no_iou, at_rows, found_iou)
}
"""

_INPUTS = {"rois": "found_rois", "roi_classes": "found_classes", "roi_image": "found_image"}
_OUTPUTS = {"roi_masks": "found_masks", "roi_iou": "found_iou"}


def compact_rois(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its RoI branch run on some RoIs instead of all.

    Adds the input ``min_score``, float32 (1,). Instances whose box score is below it get masks and
    mask scores of zero; for the others, and with 0 for all, the outputs do not change.
    """
    import onnx.parser
    from onnx import TensorProto, helper

    from centermask_edge.graph.export import sorted_nodes

    result = type(model)()
    result.CopyFrom(model)
    graph = result.graph
    for node in graph.node:
        if node.op_type in ROI_ALIGNS or node.name.startswith("mask/"):
            node.input[:] = [_INPUTS.get(n, n) for n in node.input]
            node.output[:] = [_OUTPUTS.get(n, n) for n in node.output]
    graph.input.append(helper.make_tensor_value_info(MIN_SCORE, TensorProto.FLOAT, [1]))
    added = list(onnx.parser.parse_graph(_COMPACT).node)
    for node in added:
        node.name = f"compact/{node.output[0]}"
    nodes = [*graph.node, *added]
    known = {i.name for i in graph.input} | {w.name for w in graph.initializer}
    ordered = sorted_nodes(nodes, known)
    del graph.node[:]
    graph.node.extend(ordered)
    return result


def lower_for_openvino(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in standard operators only; see ``compact_rois`` for its further input.

    A model without a RoI branch is inlined and otherwise left as it is.
    """
    import onnx.inliner

    found = ROI_ALIGNS.intersection(node.op_type for node in model.graph.node)
    if found:
        model = compact_rois(model)
        model = group_by_level(model) if ROI_ALIGN in found else model
    return onnx.inliner.inline_local_functions(model)
