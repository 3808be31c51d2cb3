"""An engine held against ONNX Runtime on real pictures; where they differ, the first layer.

This is what a user runs on a device on which nobody ran this project. The reference is the ONNX
file the engine was built from, so quantization is in both and only the engine is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from centermask_edge.engines.base import OUTPUTS, Detections, to_detections
from centermask_edge.engines.tensorrt.compare import (
    Array,
    Compared,
    compare_detections,
    compare_tensor,
    limit_for,
    pair,
)
from centermask_edge.engines.tensorrt.manifest import Precision
from centermask_edge.engines.tensorrt.taps import (
    Tap,
    depth_of,
    find_taps,
    first_divergence,
    float_types,
    rows_of,
    tapped,
)
from centermask_edge.errors import ModelFileError, require
from centermask_edge.preprocess import Placement, Preprocess

if TYPE_CHECKING:
    import onnx

Image = NDArray[np.uint8]
Outputs = dict[str, Array]
SCORE = 0.4  # detections from this score on are compared; those of the programs' default


class Runner(Protocol):
    """A network that gives its outputs by name."""

    def outputs(self, images: Any, image_sizes: Any) -> Outputs:
        """All outputs of a batch."""

    def close(self) -> None:
        """Gives everything back."""


Build = Callable[["onnx.ModelProto", tuple[int, ...]], Runner]


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture as the network gets it."""

    images: NDArray[np.float32]
    sizes: NDArray[np.float32]
    placement: Placement


@dataclass(frozen=True, slots=True)
class Verdict:
    """What :func:`verify` found.

    Attributes:
        outputs: the engine's outputs, each at its worst picture.
        layers: intermediate tensors that were compared, in order.
        first: the first that diverges; None where none does or none was looked at.
        pictures: compared.
        objects: clear detections of the reference in them.
    """

    outputs: tuple[Compared, ...]
    layers: tuple[Compared, ...]
    first: Tap | None
    pictures: int
    objects: int

    @property
    def agrees(self) -> bool:
        """Whether rounding explains every difference."""
        return all(c.agrees for c in (*self.outputs, *self.layers))


class Reference:
    """ONNX Runtime on the CPU, with whatever outputs the model has."""

    def __init__(self, model: onnx.ModelProto) -> None:
        ort: Any = require("onnxruntime", extra="cpu", why="verify an engine")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def outputs(self, images: Any, image_sizes: Any) -> Outputs:
        """All outputs of a batch."""
        names = [node.name for node in self._session.get_outputs()]
        feed = {"image": images, "image_size": image_sizes}
        return dict(zip(names, self._session.run(names, feed), strict=True))

    def close(self) -> None:
        """Nothing."""


def load_reference(path: Path) -> onnx.ModelProto:
    """The ONNX file of an engine.

    Raises:
        ModelFileError: it is not there or damaged.
    """
    onnx: Any = require("onnx", extra="tensorrt", why="verify an engine")
    message: Any = require("google.protobuf.message", extra="tensorrt", why="verify an engine")
    if not path.is_file():
        raise ModelFileError(
            f"the ONNX file that the engine was built from is not there: {path}; put it there, or "
            "build the engine again from another with: centermask-edge build MODEL.onnx"
        )
    try:
        return onnx.load_model_from_string(path.read_bytes())  # type: ignore[no-any-return]
    except message.DecodeError:
        raise ModelFileError(f"{path} is not a valid ONNX file; export it again") from None


def samples(pictures: Iterable[Image], preprocess: Preprocess) -> list[Sample]:
    """The pictures as the network gets them."""
    found = []
    for image in pictures:
        tensor, placement = preprocess(image)
        sizes = np.array([placement.resized_size], np.float32)
        found.append(Sample(tensor[None], sizes, placement))
    return found


def verify(
    model: onnx.ModelProto,
    engine: Runner,
    precision: Precision,
    given: Sequence[Sample],
    build: Build,
    *,
    score: float = SCORE,
    layers: bool = False,
    told: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """The engine against the reference.

    Args:
        model: the ONNX file that the engine was built from.
        engine: to be judged.
        precision: it was built in.
        given: pictures.
        build: makes an engine of a model with further outputs, for one input shape.
        score: detections from this score on are compared.
        layers: look into the network even where the outputs agree.
        told: called with a line about each step that takes time.
    """
    limit = limit_for(precision, depth_of(model))
    worst: dict[str, Compared] = {}
    objects = 0
    reference = Reference(model)
    for sample in given:
        wanted = to_detections(reference.outputs(sample.images, sample.sizes))
        found = to_detections(engine.outputs(sample.images, sample.sizes))
        objects += int((wanted.scores[0, : int(wanted.count[0])] >= score).sum())
        for row in compare_detections(found, wanted, limit, score):
            worst[row.name] = row.worse(worst.get(row.name))
    outputs = tuple(worst.values())
    # Where nothing is found the outputs prove nothing, so the layers have to.
    if layers or objects == 0 or not all(row.agrees for row in outputs):
        told("the outputs differ" if objects else "no object in these pictures")
        first, seen = _look_inside(model, given[0], limit, build, told)
        order = [tap.name for tap in find_taps(model)]
        compared = tuple(seen[name] for name in order if name in seen)
        return Verdict(outputs, compared, first, len(given), objects)
    return Verdict(outputs, (), None, len(given), objects)


def _look_inside(
    model: onnx.ModelProto,
    sample: Sample,
    limit: float,
    build: Build,
    told: Callable[[str], None],
) -> tuple[Tap | None, dict[str, Compared]]:
    taps = find_taps(model)
    types = float_types(model, taps)
    taps = [tap for tap in taps if tap.name in types]

    def measure(chosen: list[Tap]) -> dict[str, Compared]:
        told(f"comparing {len(chosen)} tensors, {chosen[0].node} to {chosen[-1].node}")
        marked = tapped(model, chosen, types)
        wanted = Reference(marked).outputs(sample.images, sample.sizes)
        runner = build(marked, tuple(sample.images.shape))
        try:
            found = runner.outputs(sample.images, sample.sizes)
        finally:
            runner.close()
        return _compare_taps(chosen, found, wanted, limit)

    return first_divergence(taps, measure)


def _compare_taps(
    taps: Sequence[Tap], found: Outputs, wanted: Outputs, limit: float
) -> dict[str, Compared]:
    compared = {}
    ours, theirs = _detections(found), _detections(wanted)
    pairs = pair(ours, theirs, 0, 0.0, limit)
    slots = ours.scores.shape[1]
    for tap in taps:
        a, b = found[tap.output], wanted[tap.output]
        if tap.per_object:
            rows = rows_of(a, pairs.found, slots), rows_of(b, pairs.wanted, slots)
            if rows[0] is None or rows[1] is None or not len(pairs.found):
                continue
            a, b = rows[0], rows[1]
        compared[tap.name] = compare_tensor(tap.name, a, b, limit)
    return compared


def _detections(outputs: Outputs) -> Detections:
    return to_detections({name: outputs[name] for name in OUTPUTS})
