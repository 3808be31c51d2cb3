"""The INT8 model: places chosen, biases corrected, Q/DQ written, a record of it added."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centermask_edge.quantize.bias import correct_biases
from centermask_edge.quantize.collect import Activations
from centermask_edge.quantize.equalise import equalised
from centermask_edge.quantize.placement import Sites, place
from centermask_edge.quantize.plan import Plan
from centermask_edge.quantize.qdq import insert_qdq
from centermask_edge.quantize.rewrite import without_deconvolution
from centermask_edge.quantize.scales import Scales
from centermask_edge.quantize.weights import with_fp32_weights

if TYPE_CHECKING:
    import onnx

INT8_KEY = "centermask_edge_int8"


@dataclass(frozen=True, slots=True)
class Options:
    """What else is done to the model.

    Attributes:
        bias_correction: what was seen of the activations, to correct biases with; None leaves
            them.
        calibration: hash of the calibration file, for the record in the model.
        fp16_weights: store the large weights that stay in float in half the space.
    """

    bias_correction: Activations | None = None
    calibration: str = ""
    fp16_weights: bool = True


def prepared(model: onnx.ModelProto, *, equalise: bool = False) -> onnx.ModelProto:
    """A copy to calibrate and quantize: float32 weights, equalised where that is wanted.

    An equalised model has other weights and other activations, so it needs a calibration of its
    own; the calibration file's hashes see to that.
    """
    plain = with_fp32_weights(model)
    return equalised(plain) if equalise else plain


def sites_of(model: onnx.ModelProto, plan: Plan) -> Sites:
    """The places a plan chooses in a model as exported or prepared."""
    return place(_shaped(model, plan), plan)


def observable(model: onnx.ModelProto, plans: Sequence[Plan]) -> tuple[str, ...]:
    """Tensors that one calibration must observe so that each of the plans can be used."""
    names = (t for plan in plans for t in sites_of(model, plan).tensors)
    return tuple(dict.fromkeys(names))


def quantize_model(
    model: onnx.ModelProto, plan: Plan, scales: Scales, options: Options | None = None
) -> onnx.ModelProto:
    """The model in INT8 as the plan says.

    Args:
        model: as exported or :func:`prepared`.
        plan: which operations.
        scales: ranges of their activations.
        options: what else to do.

    Returns:
        A checked model with the same inputs, outputs, functions and metadata, and a record of how
        it was made under ``INT8_KEY``.

    Raises:
        ConfigError: the plan does not fit the model.
        QuantizationError: a range is missing or zero.
    """
    import onnx

    from centermask_edge.graph.export import with_fp16_weights

    options = options or Options()
    plain = with_fp32_weights(model)
    if options.bias_correction is not None:
        # Before the deconvolution is split, while channels are those that were observed.
        plain = correct_biases(plain, place(plain, plan), options.bias_correction)
    plain = _shaped(plain, plan)
    sites = place(plain, plan)
    result = insert_qdq(plain, sites, scales.ranges(sites))
    if options.fp16_weights:
        result = with_fp16_weights(result)
    _add_record(result, plan, scales, options)
    onnx.checker.check_model(result)
    return result


def _shaped(model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    plain = with_fp32_weights(model)
    return without_deconvolution(plain) if plan.split_deconvolution else plain


def _add_record(model: onnx.ModelProto, plan: Plan, scales: Scales, options: Options) -> None:
    entry = model.metadata_props.add()
    entry.key = INT8_KEY
    entry.value = json.dumps(
        {
            "plan": json.loads(plan.to_json()),
            "ranges": scales.origin,
            "bias_correction": options.bias_correction is not None,
            "calibration": options.calibration,
        }
    )


def int8_record(model: onnx.ModelProto) -> dict[str, Any] | None:
    """How an INT8 model was made; None for a model that is not one."""
    for entry in model.metadata_props:
        if entry.key == INT8_KEY:
            record: dict[str, Any] = json.loads(entry.value)
            return record
    return None
