"""One quantization from start to end: collect, choose, write. The command's work, as a library.

:func:`prepare` collects ranges, resumably, beside the output; :func:`write_int8` writes the file.
Which operations stay in float is found by :mod:`centermask_edge.quantize.chosen`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from centermask_edge.engines.files import write_whole
from centermask_edge.quantize.artefact import Calibration, CalibrationPicture
from centermask_edge.quantize.build import Options, observable, prepared, quantize_model, sites_of
from centermask_edge.quantize.calibrated import calibration_file, calibration_for
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.observers import PERCENTILE, Observer
from centermask_edge.quantize.plan import Plan, load_plan
from centermask_edge.quantize.scales import ObservedScales

if TYPE_CHECKING:
    import onnx

DEFAULT_BUDGET = 0.3  # points of mask AP
# One calibration serves the plans of every engine family: what any of them needs is observed.
_FAMILIES = ("openvino", "tensorrt")


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done.

    Attributes:
        model: the FP32 file.
        out: the INT8 file.
        recipe: name or path of the plan.
        observer: how ranges are chosen.
        percentile: for ``Observer.PERCENTILE``.
        budget: points of mask AP that may be lost.
        val: COCO file to measure accuracy on, if any.
        bias_correction: shift biases by the mean error that 8 bits cause.
        equalise: even out the channels' ranges between layers first.
        fp16: judge the model in FP16, too.
        resume: use what an earlier call left, complete or interrupted.
        threads: of the processor; None takes all.
    """

    model: Path
    out: Path
    recipe: str = "openvino"
    observer: Observer = Observer.MSE
    percentile: float = PERCENTILE
    budget: float = DEFAULT_BUDGET
    val: Path | None = None
    bias_correction: bool = False
    equalise: bool = False
    fp16: bool = True
    resume: bool = True
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """All that an INT8 file is made from.

    Attributes:
        exported: the model as it came.
        model: float32, as it is to be quantized.
        plan: the recipe's.
        scales: ranges of the activations.
        calibration: what was seen.
        options: what else is done to the model.
    """

    exported: onnx.ModelProto
    model: onnx.ModelProto
    plan: Plan
    scales: ObservedScales
    calibration: Calibration
    options: Options

    def int8(self, plan: Plan) -> onnx.ModelProto:
        """The model in INT8 as a plan says.

        Raises:
            ConfigError: the plan does not fit the model.
            QuantizationError: an activation has no range, or not a usable one.
        """
        _check_ranges(self.scales.ranges(sites_of(self.model, plan)), self.scales.origin)
        return quantize_model(self.model, plan, self.scales, self.options)


def _check_ranges(ranges: Mapping[str, float], origin: str) -> None:
    for activation, largest in ranges.items():
        if not (math.isfinite(largest) and largest > 0):
            raise QuantizationError(
                f"the observer {origin} gives the activation {activation!r} a range of "
                f"{largest:g}; wanted a finite one above 0: choose another --observer, or keep "
                "the operation that reads it in float (keep_float of the recipe)"
            )


def prepare(
    job: Job,
    model: onnx.ModelProto,
    pictures: Sequence[CalibrationPicture],
    progress: Callable[[int], None] | None = None,
) -> Ready:
    """Collects ranges, or reads those that are there.

    Args:
        job: what is to be done.
        model: of ``job.model``.
        pictures: the calibration set.
        progress: called with the number of pictures done.

    Raises:
        ConfigError: the plan does not exist or does not fit the model.
        QuantizationError: see :func:`centermask_edge.quantize.calibrated.calibration_for`.
    """
    plan = load_plan(job.recipe)
    plain = prepared(model, equalise=job.equalise)
    tensors = observable(plain, [plan, *(load_plan(name) for name in _FAMILIES)])
    calibration = calibration_for(
        plain,
        tensors,
        pictures,
        calibration_file(job.out),
        resume=job.resume,
        progress=progress,
        threads=job.threads,
    )
    seen = calibration.seen
    scales = ObservedScales(seen.histograms, job.observer, job.percentile)
    options = Options(
        bias_correction=seen if job.bias_correction else None, calibration=calibration.digest
    )
    return Ready(model, plain, plan, scales, calibration, options)


def write_int8(path: Path, ready: Ready, plan: Plan) -> Path:
    """The INT8 file, whole or not at all; its path.

    Raises:
        QuantizationError: a range is missing or zero.
        ModelFileError: it cannot be written.
    """
    return write_whole(path, ready.int8(plan).SerializeToString(deterministic=True))
