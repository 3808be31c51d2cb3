"""RoIAlign that visits every RoI on one level only, for engines that run the standard operator.

The definition of ``CMPyramidRoIAlign`` aligns every RoI on three levels and selects. Where the RoIs
have been gathered anyway they may as well be gathered level by level: then each level aligns its
own, and the groups need only be put behind one another. The heads do not care for the order, and
the scatter behind them puts it right at no cost.

OpenVINO's RoiAlign takes about 25 times as long on planar features as on channels-last ones, and
takes the layout of the layer before; a Concat along RoIs keeps it, a Gather or a Reshape would not.
Shape legend: N pictures, R RoIs, F RoIs that are run, D channels, S output side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from centermask_edge.graph.functions import ROI_LEVELS

if TYPE_CHECKING:
    import onnx

ROI_ALIGN = "CMPyramidRoIAlign"
_GATHERED = {"run_at", "found_at", "found_rois", "found_image"}

# A level without RoIs makes tensors without elements; none is empty for all levels together.
_LEVEL = """
  run_{l} = And (run_roi, is_{l})
  where_{l} = NonZero (run_{l})
  at_{l} = Reshape (where_{l}, flat)
  rois_{l} = Gather <axis = 0> (placed, at_{l})
  image_{l} = Gather <axis = 0> (roi_image, at_{l})
  aligned_{l} = RoiAlign <coordinate_transformation_mode = "half_pixel", mode = "avg",
    output_height = {side}, output_width = {side}, sampling_ratio = 0,
    spatial_scale = {scale}> (p{l}, rois_{l}, image_{l})
"""

# OpenVINO divides by the number of samples, which a box without width, or with an infinite one, has
# none of. Such a box gives zeros, and so does any box beyond the border: it is put there.
_PLACED = """
  scale_3 = Constant <value_float = 0.125> ()
  scale_4 = Constant <value_float = 0.0625> ()
  scale_5 = Constant <value_float = 0.03125> ()
  farthest = Constant <value_float = 16777216.0> ()
  none = Constant <value_float = 0.0> ()
  beyond = Constant <value_floats = [-200.0, -200.0, -100.0, -100.0]> ()
  scale_34 = Where (is_4, scale_4, scale_3)
  scale_345 = Where (is_5, scale_5, scale_34)
  scale = Unsqueeze (scale_345, one)
  scaled = Mul (rois, scale)
  edges = Sub (scaled, half)
  low, high = Split <axis = 1> (edges)
  length = Sub (high, low)
  long = Greater (length, none)
  bounded = LessOrEqual (length, farthest)
  sampled = And (long, bounded)
  sampled_x, sampled_y = Split <axis = 1> (sampled)
  sampled_both = And (sampled_x, sampled_y)
  placed = Where (sampled_both, rois, beyond)
"""

_GROUPED = """
roi_align (float[N, D, H3, W3] p3, float[N, D, H4, W4] p4, float[N, D, H5, W5] p5,
           float[R, 4] rois, int64[R] roi_image, float[N, 2] image_size, bool[R] run_roi)
=> (float[F, D, S, S] features, int64[F] found_at)
{{
  one = Constant <value_ints = [1]> ()
  flat = Constant <value_ints = [-1]> ()
  half = Constant <value_float = 0.5> ()
  quarter = Constant <value_float = 0.25> ()
{roi_levels}{placed}{levels}
  found_at = Concat <axis = 0> (at_3, at_4, at_5)
{join}
}}
"""

_JOIN = "features = Concat <axis = 0> (aligned_3, aligned_4, aligned_5)"
# OpenVINO 2026.4 moves the quantization of a Concat before it, and the convolution behind then
# computes wrong values (off by 40 % where codes are signed). It does not move it past a Max.
_JOIN_QUANTIZED = """
  joined = Concat <axis = 0> (aligned_3, aligned_4, aligned_5)
  lowest = Constant <value_float = -3.4028235e38> ()
  features = Max (joined, lowest)
"""


def group_by_level(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its RoIs gathered level by level and aligned on their own level.

    Outputs do not change.

    Args:
        model: of ``lowering.compact_rois``: it has the tensors ``rois``, ``roi_image`` and
            ``run_roi`` (R,), and whatever follows RoIAlign reads and scatters by ``found_at``.
    """
    from centermask_edge.graph.export import sorted_nodes

    result = type(model)()
    result.CopyFrom(model)
    graph = result.graph
    align = next(node for node in graph.node if node.op_type == ROI_ALIGN)
    kept = [n for n in graph.node if n != align and not _GATHERED.intersection(n.output)]
    known = {i.name for i in graph.input} | {w.name for w in graph.initializer}
    ordered = sorted_nodes([*kept, *_nodes(align, _is_quantized(model, align))], known)
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)
    return result


def _is_quantized(model: onnx.ModelProto, align: onnx.NodeProto) -> bool:
    features = align.output[0]
    return any(n.op_type == "QuantizeLinear" and features in n.input for n in model.graph.node)


def _nodes(align: onnx.NodeProto, quantized: bool) -> list[onnx.NodeProto]:
    """What stands in for the node, in the names of the graph around it."""
    import onnx.parser
    from onnx import helper

    side = next(helper.get_attribute_value(a) for a in align.attribute if a.name == "output_size")
    text = _GROUPED.format(
        roi_levels=ROI_LEVELS,
        placed=_PLACED,
        levels="".join(_LEVEL.format(l=n, side=side, scale=1.0 / (1 << n)) for n in (3, 4, 5)),
        join=_JOIN_QUANTIZED if quantized else _JOIN,
    )
    outside = {name: name for name in ("rois", "roi_image", "run_roi", "found_at")}
    outside |= dict(zip(("p3", "p4", "p5"), align.input[:3], strict=True))
    outside |= {"image_size": align.input[5], "features": align.output[0]}
    nodes = list(onnx.parser.parse_graph(text).node)
    for node in nodes:
        node.name = f"{align.name}/{node.output[0]}"
        node.input[:] = [outside.get(n, f"{align.name}/{n}") for n in node.input]
        node.output[:] = [outside.get(n, f"{align.name}/{n}") for n in node.output]
    return nodes
