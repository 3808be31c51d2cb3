"""Runs a model over calibration pictures and counts what its activations hold.

ONNX Runtime runs the graph with the wanted tensors as further outputs, a few at a time so that
memory stays bounded. The mask branch runs on the instances found and on nothing else: a histogram
of zero padding would say that masks are mostly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import require
from centermask_edge.graph.lowering import MIN_SCORE, compact_rois
from centermask_edge.graph.metadata import METADATA_KEY, ModelMetadata
from centermask_edge.graph.variants import ROI_ALIGNS
from centermask_edge.preprocess import Preprocess
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.observers import Histogram
from centermask_edge.quantize.weights import copied, with_fp32_weights
from centermask_edge.quantize.wiring import read_wiring

if TYPE_CHECKING:
    import onnx

Picture = NDArray[np.uint8]
_QUIET = 3
_BUDGET_BYTES = 1 << 30
_FLAT = 2.0  # standard deviation in grey levels below which a picture shows nothing


@dataclass(slots=True)
class Activations:
    """What was seen of each tensor; two of the same tensors can be merged.

    Attributes:
        histograms: by tensor.
        sums: float64 (C,) per channel, of 4-d and 2-d tensors: for bias correction.
        values: number of values behind each sum.
        pictures: number of pictures.
        instances: number of instances that the mask branch ran on.
    """

    histograms: dict[str, Histogram]
    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    pictures: int = 0
    instances: int = 0

    def add(self, tensor: str, array: NDArray[np.float32]) -> None:
        """Count one tensor of one picture."""
        self.histograms[tensor].add(array)
        if array.ndim in (2, 4) and array.size:
            axes = (0,) if array.ndim == 2 else (0, 2, 3)
            total = array.sum(axes, dtype=np.float64)
            self.sums[tensor] = self.sums.get(tensor, 0.0) + total
            self.values[tensor] = self.values.get(tensor, 0) + array.size // total.size

    def means(self, tensor: str) -> NDArray[np.float64] | None:
        """Mean of every channel of a tensor; None where it was not counted."""
        if tensor not in self.sums:
            return None
        return self.sums[tensor] / self.values[tensor]


def metadata_of(model: onnx.ModelProto) -> ModelMetadata:
    """The metadata of a model.

    Raises:
        QuantizationError: it has none, so its preprocessing is not known.
    """
    for prop in model.metadata_props:
        if prop.key == METADATA_KEY:
            return ModelMetadata.model_validate_json(prop.value)
    raise QuantizationError(
        f"the ONNX file has no {METADATA_KEY!r} metadata, so its preprocessing is not known; "
        "export the model with: centermask-edge export"
    )


class Collector:
    """A model ready to be observed.

    Args:
        model: as exported.
        tensors: names of those to observe.
        budget_bytes: of activations held at a time.
        threads: of ONNX Runtime; None lets it choose.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        QuantizationError: the model has no metadata.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: Sequence[str],
        budget_bytes: int = _BUDGET_BYTES,
        threads: int | None = None,
    ) -> None:
        self.preprocess = Preprocess(metadata_of(model).preprocess)
        self.tensors = tuple(tensors)
        self._budget = budget_bytes
        self._threads = threads
        self._model, self._roi_tensors = _observed(model, tensors)
        self._sessions: list[tuple[list[str], Any]] = []

    def new(self) -> Activations:
        """Nothing seen yet."""
        return Activations({name: Histogram(name) for name in self.tensors})

    def add(self, picture: Picture, seen: Activations) -> None:
        """Count one picture, uint8 (H, W, 3) BGR.

        Raises:
            QuantizationError: not such a picture, or an activation that is not finite.
        """
        _check_picture(picture)
        image, placement = self.preprocess(picture)
        feed = {
            "image": image[None],
            "image_size": np.asarray([placement.resized_size], np.float32),
        }
        if MIN_SCORE in (value.name for value in self._model.graph.input):
            feed[MIN_SCORE] = np.zeros(1, np.float32)
        if not self._sessions:
            self._sessions = list(self._open(feed))
        found = 0
        for names, session in self._sessions:
            extra = ["count"] if self._roi_tensors else []
            values = session.run([*extra, *names], feed)
            found = int(values.pop(0).sum()) if extra else 0
            for name, value in zip(names, values, strict=True):
                if found or name not in self._roi_tensors:
                    seen.add(name, value)
        seen.pictures += 1
        seen.instances += found

    def _open(self, feed: dict[str, NDArray[np.float32]]) -> Iterator[tuple[list[str], Any]]:
        """Sessions that between them give every tensor, each within the budget."""
        sizes = _sizes(self._model, self.tensors, feed, self._threads)
        for names in _chunks(sizes, self._budget // 4):
            yield names, _session(_with_outputs(self._model, names), self._threads)


def collect(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    pictures: Iterable[Picture],
    *,
    progress: Callable[[int], None] | None = None,
    threads: int | None = None,
) -> Activations:
    """What the tensors hold over all pictures.

    Args:
        model: as exported.
        tensors: names of those to observe.
        pictures: uint8 (H, W, 3) BGR.
        progress: called after each picture with the number done.
        threads: of ONNX Runtime.

    Raises:
        QuantizationError: no picture, a set that shows nothing, or an activation not finite.
    """
    collector = Collector(model, tensors, threads=threads)
    seen, coverage = collector.new(), Coverage()
    for picture in pictures:
        _check_picture(picture)
        coverage.add(picture)
        collector.add(picture, seen)
        if progress is not None:
            progress(seen.pictures)
    coverage.check()
    return seen


@dataclass(slots=True)
class Coverage:
    """Whether calibration pictures show anything.

    Attributes:
        pictures: number seen.
        flat: of them, those of one colour.
    """

    pictures: int = 0
    flat: int = 0

    def add(self, picture: Picture) -> None:
        """Look at one picture, uint8 (H, W, 3)."""
        self.pictures += 1
        # A colour is three values: the spread is taken within each channel.
        self.flat += bool(picture.reshape(-1, 3).std(axis=0).max() < _FLAT)

    def check(self) -> None:
        """Nothing, if most pictures show something.

        Raises:
            QuantizationError: there is none, or more than half are of one colour.
        """
        if self.pictures == 0:
            raise QuantizationError("no calibration pictures; give some that the model will see")
        if 2 * self.flat > self.pictures:
            raise QuantizationError(
                f"{self.flat} of {self.pictures} calibration pictures are of one colour (a black "
                "or covered camera); ranges from them would be wrong: give pictures that the "
                "model will see"
            )


def _check_picture(picture: Picture) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise QuantizationError(
            f"a calibration picture is {picture.dtype} {picture.shape}; wanted uint8 (H, W, 3) "
            "BGR as it was read: normalising is done here, as the model's metadata says"
        )


def _observed(
    model: onnx.ModelProto, tensors: Sequence[str]
) -> tuple[onnx.ModelProto, frozenset[str]]:
    """The model to run, and which of the tensors belong to the mask branch."""
    plain = with_fp32_weights(model)
    wiring = read_wiring(plain)
    below = [wiring.downstream(op) for op in ROI_ALIGNS]
    branch = frozenset(t for t in tensors if any(t in found for found in below))
    if any(node.op_type in ROI_ALIGNS for node in plain.graph.node):
        plain = compact_rois(plain)
    return plain, branch


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    from onnx import TensorProto, helper

    result = copied(model)
    have = {output.name for output in result.graph.output}
    result.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in have
    )
    return result


def _session(model: onnx.ModelProto, threads: int | None) -> Any:
    ort = require("onnxruntime", extra="cpu", why="collect calibration ranges")
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads or 0
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _sizes(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    feed: dict[str, NDArray[np.float32]],
    threads: int | None,
) -> dict[str, int]:
    """Number of elements of every tensor for that input, from a run that returns only those."""
    from onnx import TensorProto, helper

    sized = copied(model)
    for index, name in enumerate(tensors):
        output = f"elements/{index}"
        sized.graph.node.append(helper.make_node("Size", [name], [output], output))
        sized.graph.output.append(helper.make_tensor_value_info(output, TensorProto.INT64, []))
    names = [f"elements/{index}" for index in range(len(tensors))]
    values = _session(sized, threads).run(names, feed)
    return {name: int(value) for name, value in zip(tensors, values, strict=True)}


def _chunks(sizes: dict[str, int], budget: int) -> Iterator[list[str]]:
    """Names in order, cut so that each part stays within the budget or is a single tensor."""
    part: list[str] = []
    held = 0
    for name, size in sizes.items():
        if part and held + size > budget:
            yield part
            part, held = [], 0
        part.append(name)
        held += size
    if part:
        yield part
