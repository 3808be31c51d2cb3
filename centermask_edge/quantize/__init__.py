"""From a float32 ONNX file to one that computes in 8 bits: places, ranges, Q/DQ, and a record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from centermask_edge.quantize.collect import Picture, collect
from centermask_edge.quantize.observers import Observer
from centermask_edge.quantize.placement import place
from centermask_edge.quantize.plan import Plan, load_plan
from centermask_edge.quantize.qdq import insert_qdq
from centermask_edge.quantize.scales import choose_ranges
from centermask_edge.quantize.weights import with_fp32_weights

if TYPE_CHECKING:
    import onnx

__all__ = ["Observer", "Plan", "load_plan", "max_int8"]


def max_int8(
    model: onnx.ModelProto, pictures: Iterable[Picture], plan: str = "tensorrt"
) -> onnx.ModelProto:
    """The model in INT8 with ranges from the largest values seen: the shortest way to one.

    Args:
        model: as exported.
        pictures: uint8 (H, W, 3) BGR; a few dozen with objects that the model finds.
        plan: name or path of a plan.

    Raises:
        ConfigError: no such plan.
        QuantizationError: the pictures show nothing, or an activation has no range.
    """
    import onnx

    plain = with_fp32_weights(model)
    sites = place(plain, load_plan(plan))
    seen = collect(plain, sites.tensors, pictures)
    result = insert_qdq(plain, sites, choose_ranges(seen.histograms, sites))
    onnx.checker.check_model(result)
    return result
