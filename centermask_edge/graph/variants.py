"""The ops of networks whose switches are not the default ones, as model-local functions.

The CUDA kernels and TensorRT plugins know one rule for RoIs and one for decoding. A network with
others gets ops of other names, so that no engine can take the one for the other:

* ``CMAnyRoIAlign``: equation 1 or 2 over any range of levels, aligned or as in the first release.
* ``CMOriginalDecodeNMS``: decoding by the rules of the first release.

Shape legend: N pictures, R RoIs, M candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from centermask_edge.graph.functions import HEADER, decode_text, function_texts
from centermask_edge.switches import RoiAssignment, RoiRules

if TYPE_CHECKING:
    import onnx

    from centermask_edge.config import ModelConfig

ANY_ROI_ALIGN, ORIGINAL_DECODE = "CMAnyRoIAlign", "CMOriginalDecodeNMS"
ROI_ALIGNS = frozenset({"CMPyramidRoIAlign", ANY_ROI_ALIGN})
DECODERS = frozenset({"CMDecodeNMS", ORIGINAL_DECODE})

_ALIGN = """
{header}
{name}
<output_size, plugin_namespace, plugin_version>
(rois, roi_image, image_size, {levels}) => (features)
{{
  one = Constant <value_ints = [1]> ()
  one_two_three = Constant <value_ints = [1, 2, 3]> ()
  half = Constant <value_float = 0.5> ()
  none = Constant <value_float = 0.0> ()
  farthest = Constant <value_float = 16777216.0> ()
  pixel = Constant <value_float = {pixel}> ()
  image_area = ReduceProd <axes = [1], keepdims = 0> (image_size)
  own_area = Gather <axis = 0> (image_area, roi_image)
  x0, y0, x1, y1 = Split <axis = 1> (rois)
  inner_w = Sub (x1, x0)
  inner_h = Sub (y1, y0)
  w = Add (inner_w, pixel)
  h = Add (inner_h, pixel)
  area_1 = Mul (w, h)
  area = Squeeze (area_1, one)
{limits}{choices}{aligned}
  features = CastLike ({result}, p{first})
}}
"""
_ABOVE_SHARE = """
  share_{l} = Constant <value_float = {threshold!r}> ()
  limit_{l} = Mul (own_area, share_{l})
  above_{l} = Greater (area, limit_{l})
"""
_ABOVE_PIXELS = """
  limit_{l} = Constant <value_float = {threshold!r}> ()
  above_{l} = GreaterOrEqual (area, limit_{l})
"""
# OpenVINO divides by the number of samples, of which a box without width has none: such a box, and
# any of another level, is put beyond the border, where samples count as zero.
_SAMPLED = """
  scale_{l} = Constant <value_float = {scale}> ()
  scaled_{l} = Mul (rois, scale_{l})
  edges_{l} = Sub (scaled_{l}, half)
  low_{l}, high_{l} = Split <axis = 1> (edges_{l})
  length_{l} = Sub (high_{l}, low_{l})
  long_{l} = Greater (length_{l}, none)
  bounded_{l} = LessOrEqual (length_{l}, farthest)
  sampled_{l} = And (long_{l}, bounded_{l})
  sampled_x_{l}, sampled_y_{l} = Split <axis = 1> (sampled_{l})
  sampled_both_{l} = And (sampled_x_{l}, sampled_y_{l})
  use_{l} = And (sampled_both_{l}, is_{l}_1)
"""
_LEVEL = """
  f_{l} = Cast <to = 1> (p{l})
  is_{l}_1 = Unsqueeze (is_{l}, one)
{use}
  beyond_{l} = Constant <value_floats = [-{far}.0, -{far}.0, -{near}.0, -{near}.0]> ()
  rois_{l} = Where (use_{l}, rois, beyond_{l})
  raw_{l} = RoiAlign <coordinate_transformation_mode = "{mode}", mode = "avg",
    output_height: int = @output_size, output_width: int = @output_size,
    sampling_ratio = {samples}, spatial_scale = {scale}> (f_{l}, rois_{l}, roi_image)
"""

# The overlap in whole pixels is that of boxes which reach one further.
_ORIGINAL_RULES = """
  all_scores = Identity (positive_q)
  nearest = Constant <value_float = 1.0> ()
  sides = Sub (image_size, nearest)
  height_1, width_1 = Split <axis = 1> (sides)
  limits = Concat <axis = 1> (width_1, height_1, width_1, height_1)
  limits_1 = Unsqueeze (limits, one)
  above_zero = Relu (made_boxes)
  all_boxes = Min (above_zero, limits_1)
  further = Constant <value_floats = [0.0, 0.0, 1.0, 1.0]> ()
  counted_boxes = Add (all_boxes, further)
"""


def _choices(levels: tuple[int, ...]) -> str:
    """``is_l`` of every level, bool (R,), of which one is true; a NaN lies on the first."""
    lines = []
    for level in levels:
        below_next = f"Not (above_{level + 1})"
        if level == levels[0] == levels[-1]:
            lines.append(f"  is_{level} = Equal (roi_image, roi_image)")
        elif level == levels[0]:
            lines.append(f"  is_{level} = {below_next}")
        elif level == levels[-1]:
            lines.append(f"  is_{level} = Identity (above_{level})")
        else:
            lines += [f"  under_{level} = {below_next}"]
            lines += [f"  is_{level} = And (above_{level}, under_{level})"]
    return "\n".join(lines)


def _aligned(rules: RoiRules, level: int) -> str:
    stride = 1 << level
    scale = 1.0 / stride
    use = f"  use_{level} = Identity (is_{level}_1)"
    return _LEVEL.format(
        l=level,
        use=use if rules.original else _SAMPLED.format(l=level, scale=scale),
        far=20 * stride,
        near=10 * stride,
        mode="output_half_pixel" if rules.original else "half_pixel",
        samples=2 if rules.original else 0,
        scale=scale,
    )


def roi_align_text(rules: RoiRules) -> str:
    """``CMAnyRoIAlign`` for given rules in ONNX's textual syntax."""
    first, *others = rules.levels
    canonical = rules.assignment is RoiAssignment.CANONICAL
    above = _ABOVE_PIXELS if canonical else _ABOVE_SHARE
    picked, lines = f"raw_{first}", []
    for level in others:
        lines.append(f"  mask_{level} = Unsqueeze (is_{level}, one_two_three)")
        lines.append(f"  picked_{level} = Where (mask_{level}, raw_{level}, {picked})")
        picked = f"picked_{level}"
    return _ALIGN.format(
        header=HEADER,
        name=ANY_ROI_ALIGN,
        levels=", ".join(f"p{level}" for level in rules.levels),
        first=first,
        pixel=1.0 if rules.original else 0.0,
        limits="".join(above.format(l=n, threshold=rules.threshold(n)) for n in others),
        choices=_choices(rules.levels),
        aligned="".join(_aligned(rules, n) for n in rules.levels) + "\n".join(lines),
        result=picked,
    )


def original_decode_text() -> str:
    """``CMOriginalDecodeNMS`` in ONNX's textual syntax; its last input is ``image_size``."""
    return decode_text(
        ORIGINAL_DECODE, ["image_size"], "made_boxes", _ORIGINAL_RULES, "counted_boxes"
    )


def functions_of(config: ModelConfig) -> list[onnx.FunctionProto]:
    """The functions that a model with this configuration calls, as protocol buffers."""
    import onnx.parser

    decode, align, attention = function_texts()
    rules = config.roi_rules
    texts = [original_decode_text() if rules.original else decode]
    texts.append(align if rules == RoiRules() else roi_align_text(rules))
    texts += [attention] if config.spatial_attention else []
    return [onnx.parser.parse_function(text) for text in texts]
