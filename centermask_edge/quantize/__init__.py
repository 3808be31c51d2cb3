"""From a float32 ONNX file to one that computes in 8 bits: places, ranges, Q/DQ, and a record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from centermask_edge.quantize.build import (
    Options,
    observable,
    prepared,
    quantize_model,
    sites_of,
)
from centermask_edge.quantize.collect import Activations, Picture, collect
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.observers import Observer
from centermask_edge.quantize.plan import Plan, load_plan
from centermask_edge.quantize.scales import FixedScales, ObservedScales, Scales

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Activations",
    "FixedScales",
    "ObservedScales",
    "Observer",
    "Options",
    "Plan",
    "QuantizationError",
    "Scales",
    "collect",
    "load_plan",
    "max_int8",
    "observable",
    "prepared",
    "quantize_model",
    "sites_of",
]


def max_int8(
    model: onnx.ModelProto, pictures: Iterable[Picture], plan: str = "tensorrt"
) -> onnx.ModelProto:
    """The model in INT8 with ranges from the largest values seen: the shortest way to one.

    Args:
        model: as exported.
        pictures: uint8 (H, W, 3) BGR; a few dozen with objects that the model finds.
        plan: name or path of a plan.

    Raises:
        ConfigError: no such plan, or one that does not fit the model.
        QuantizationError: the pictures show nothing, or an activation has no range.
    """
    chosen = load_plan(plan)
    seen = collect(model, sites_of(model, chosen).tensors, pictures)
    return quantize_model(model, chosen, ObservedScales(seen.histograms))
