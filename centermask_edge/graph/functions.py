"""The three ``centermask`` ops as ONNX model-local functions in standard operators (opset 17).

Each function is both the definition of its op and what ONNX Runtime executes. Engines with our
plugin drop the bodies; OpenVINO gets them inlined.

* ``CMDecodeNMS``: FCOS decode, per-level top-k, class-aware NMS, top K.
* ``CMPyramidRoIAlign``: level of equation 2, then aligned RoIAlign from P3, P4 or P5.
* ``CMSpatialAttention``: equations 3 and 4.

Shape legend: N pictures, C classes, M candidates, K kept detections, R RoIs, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

DOMAIN = "centermask"
OPSET = 17
STRIDES = (8, 16, 32, 64, 128)
PLUGIN_ATTRIBUTES = {"plugin_namespace": DOMAIN, "plugin_version": "1"}

HEADER = f'<domain: "{DOMAIN}", opset_import: ["": {OPSET}]>'

# Ties: of equal scores the lower level wins, then the lower class, then the earlier cell.
_LEVEL = """
  shape_{l} = Shape (logits_{l})
  cells_{l} = Slice (shape_{l}, two, four, zero)
  width_{l} = Slice (shape_{l}, three, four, zero)
  area_{l} = ReduceProd <keepdims = 1> (cells_{l})
  p_{l} = Sigmoid (logits_{l})
  c_{l} = Sigmoid (centerness_{l})
  q_{l} = Mul (p_{l}, c_{l})
  above_{l} = Greater (p_{l}, threshold)
  found_{l} = Where (above_{l}, q_{l}, minus_one)
  flat_{l} = Reshape (found_{l}, rows)
  flat_shape_{l} = Shape (flat_{l})
  flat_size_{l} = Slice (flat_shape_{l}, one, two, zero)
  k_{l} = Min (flat_size_{l}, topk)
  best_{l}, index_{l} = TopK <axis = 1, largest = 1, sorted = 1> (flat_{l}, k_{l})
  class_{l} = Div (index_{l}, area_{l})
  cell_{l} = Mod (index_{l}, area_{l})
  column_{l} = Mod (cell_{l}, width_{l})
  row_{l} = Div (cell_{l}, width_{l})
  column_f_{l} = Cast <to = 1> (column_{l})
  row_f_{l} = Cast <to = 1> (row_{l})
  stride_{l} = Constant <value_floats = [{s}.0]> ()
  half_{l} = Constant <value_floats = [{h}.0]> ()
  x_scaled_{l} = Mul (column_f_{l}, stride_{l})
  y_scaled_{l} = Mul (row_f_{l}, stride_{l})
  x_{l} = Add (x_scaled_{l}, half_{l})
  y_{l} = Add (y_scaled_{l}, half_{l})
  x1_{l} = Unsqueeze (x_{l}, minus_one_i)
  y1_{l} = Unsqueeze (y_{l}, minus_one_i)
  centre_{l} = Concat <axis = 2> (x1_{l}, y1_{l}, x1_{l}, y1_{l})
  reg_rows_{l} = Reshape (reg_{l}, quads)
  reg_cells_{l} = Transpose <perm = [0, 2, 1]> (reg_rows_{l})
  cell_nd_{l} = Unsqueeze (cell_{l}, minus_one_i)
  distance_{l} = GatherND <batch_dims = 1> (reg_cells_{l}, cell_nd_{l})
  signs_{l} = Constant <value_floats = [-{s}.0, -{s}.0, {s}.0, {s}.0]> ()
  offset_{l} = Mul (distance_{l}, signs_{l})
  box_{l} = Add (centre_{l}, offset_{l})
"""

_DECODE = """
{header}
{name}
<score_threshold, nms_threshold, pre_nms_topk, max_detections, plugin_namespace, plugin_version>
({inputs}) => (boxes, scores, classes, count)
{{
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  three = Constant <value_ints = [3]> ()
  four = Constant <value_ints = [4]> ()
  minus_one_i = Constant <value_ints = [-1]> ()
  minus_one = Constant <value_float = -1.0> ()
  zero_f = Constant <value_float = 0.0> ()
  rows = Constant <value_ints = [0, -1]> ()
  quads = Constant <value_ints = [0, 4, -1]> ()
  threshold = Constant <value_float: float = @score_threshold> ()
  iou = Constant <value_float: float = @nms_threshold> ()
  topk_s = Constant <value_int: int = @pre_nms_topk> ()
  keep_s = Constant <value_int: int = @max_detections> ()
  topk = Unsqueeze (topk_s, zero)
  keep = Unsqueeze (keep_s, zero)
{levels}
  batch = Slice (shape_3, zero, one, zero)
  pad_shape = Concat <axis = 0> (batch, keep)
  pad_box_shape = Concat <axis = 0> (batch, keep, four)
  pad_scores = ConstantOfShape <value = float[1] {{0.0}}> (pad_shape)
  pad_classes = ConstantOfShape <value = int64[1] {{0}}> (pad_shape)
  pad_boxes = ConstantOfShape <value = float[1] {{0.0}}> (pad_box_shape)
  all_q = Concat <axis = 1> ({best}, pad_scores)
  all_classes = Concat <axis = 1> ({classes}, pad_classes)
  {made} = Concat <axis = 1> ({boxes}, pad_boxes)
  positive_q = Relu (all_q)
{rules}
  num_classes_1 = Slice (shape_3, one, two, zero)
  num_classes = Squeeze (num_classes_1, zero)
  start = Constant <value_int = 0> ()
  step = Constant <value_int = 1> ()
  class_range = Range (start, num_classes, step)
  class_column = Unsqueeze (class_range, one)
  class_of = Unsqueeze (all_classes, one)
  same_class = Equal (class_of, class_column)
  score_row = Unsqueeze (all_scores, one)
  class_scores = Where (same_class, score_row, zero_f)
  selected = NonMaxSuppression ({counted}, class_scores, keep, iou, zero_f)
  image_and_box = Constant <value_ints = [0, 2]> ()
  selected_nd = Gather <axis = 1> (selected, image_and_box)
  selected_shape = Shape (selected)
  selected_count = Slice (selected_shape, zero, one, zero)
  ones = ConstantOfShape <value = float[1] {{1.0}}> (selected_count)
  score_shape = Shape (all_scores)
  nothing = ConstantOfShape <value = float[1] {{0.0}}> (score_shape)
  kept = ScatterND (nothing, selected_nd, ones)
  kept_scores = Mul (all_scores, kept)
  scores, order = TopK <axis = 1, largest = 1, sorted = 1> (kept_scores, keep)
  order_nd = Unsqueeze (order, minus_one_i)
  top_boxes = GatherND <batch_dims = 1> (all_boxes, order_nd)
  top_classes = GatherElements <axis = 1> (all_classes, order)
  valid = Greater (scores, zero_f)
  valid_i = Cast <to = 7> (valid)
  valid_box = Unsqueeze (valid, minus_one_i)
  boxes = Where (valid_box, top_boxes, zero_f)
  classes = Mul (top_classes, valid_i)
  count = ReduceSum <keepdims = 0> (valid_i, one)
}}
"""

# Level of each RoI: is_3, is_4 and is_5, bool (R,), of which one is true (CenterMask eq. 2).
ROI_LEVELS = """
  image_area = ReduceProd <axes = [1], keepdims = 0> (image_size)
  own_area = Gather <axis = 0> (image_area, roi_image)
  x0, y0, x1, y1 = Split <axis = 1> (rois)
  w = Sub (x1, x0)
  h = Sub (y1, y0)
  area_1 = Mul (w, h)
  area = Squeeze (area_1, one)
  limit_5 = Mul (own_area, half)
  limit_4 = Mul (own_area, quarter)
  is_5 = Greater (area, limit_5)
  above_4 = Greater (area, limit_4)
  not_5 = Not (is_5)
  is_4 = And (above_4, not_5)
  is_3 = Not (above_4)
"""

# A RoI of another level becomes empty, which RoiAlign answers without sampling.
_ALIGN_LEVEL = """
  is_{l}_1 = Unsqueeze (is_{l}, minus_one_i)
  rois_{l} = Where (is_{l}_1, rois, zero_f)
  raw_{l} = RoiAlign <coordinate_transformation_mode = "half_pixel", mode = "avg",
    output_height: int = @output_size, output_width: int = @output_size,
    sampling_ratio = 0, spatial_scale = {scale}> (f_{l}, rois_{l}, roi_image)
"""

_ALIGN = """
{header}
CMPyramidRoIAlign
<output_size, plugin_namespace, plugin_version>
(p3, p4, p5, rois, roi_image, image_size) => (features)
{{
  one = Constant <value_ints = [1]> ()
  one_two_three = Constant <value_ints = [1, 2, 3]> ()
  minus_one_i = Constant <value_ints = [-1]> ()
  zero_f = Constant <value_float = 0.0> ()
  half = Constant <value_float = 0.5> ()
  quarter = Constant <value_float = 0.25> ()
  f_3 = Cast <to = 1> (p3)
  f_4 = Cast <to = 1> (p4)
  f_5 = Cast <to = 1> (p5)
{roi_levels}{levels}
  mask_5 = Unsqueeze (is_5, one_two_three)
  mask_4 = Unsqueeze (is_4, one_two_three)
  lower = Where (mask_4, raw_4, raw_3)
  features_f = Where (mask_5, raw_5, lower)
  features = CastLike (features_f, p3)
}}
"""

_ATTENTION = """
{header}
CMSpatialAttention
<plugin_namespace, plugin_version>
(x, weight) => (y)
{{
  mean = ReduceMean <axes = [1], keepdims = 1> (x)
  max = ReduceMax <axes = [1], keepdims = 1> (x)
  pooled = Concat <axis = 1> (mean, max)
  response = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (pooled, weight)
  gate = Sigmoid (response)
  y = Mul (x, gate)
}}
"""


def dense_names(kind: str) -> list[str]:
    """Names of the dense outputs of one kind, P3 to P7: ``logits_3`` ... ``logits_7``."""
    return [f"{kind}_{level}" for level in range(3, 8)]


def _join(names: Sequence[str]) -> str:
    return ", ".join(names)


def decode_text(
    name: str = "CMDecodeNMS",
    inputs: Sequence[str] = (),
    made: str = "all_boxes",
    rules: str = "  all_scores = Sqrt (positive_q)",
    counted: str = "all_boxes",
) -> str:
    """The decoding function; ``graph.variants`` has other rules than the default ones.

    Args:
        name: of the function.
        inputs: further ones.
        made: what the boxes are called before the rules.
        rules: makes ``all_scores``, and ``all_boxes`` where the boxes were called otherwise.
        counted: boxes whose overlap decides.
    """
    dense = dense_names("logits") + dense_names("reg") + dense_names("centerness")
    levels = "".join(
        _LEVEL.format(l=level, s=stride, h=stride // 2)
        for level, stride in zip(range(3, 8), STRIDES, strict=True)
    )
    return _DECODE.format(
        header=HEADER,
        name=name,
        inputs=_join([*dense, *inputs]),
        made=made,
        rules=rules,
        counted=counted,
        levels=levels,
        best=_join(dense_names("best")),
        classes=_join(dense_names("class")),
        boxes=_join(dense_names("box")),
    )


def function_texts() -> list[str]:
    """The three functions in ONNX's textual syntax."""
    align = _ALIGN.format(
        header=HEADER,
        roi_levels=ROI_LEVELS,
        levels="".join(_ALIGN_LEVEL.format(l=n, scale=1.0 / (1 << n)) for n in (3, 4, 5)),
    )
    return [decode_text(), align, _ATTENTION.format(header=HEADER)]


def functions() -> list[onnx.FunctionProto]:
    """The three functions as protocol buffers."""
    import onnx.parser

    return [onnx.parser.parse_function(text) for text in function_texts()]
