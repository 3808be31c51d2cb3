"""The noise that quantizing a part of the network puts on what the decoder and the masks read.

The network is run by ONNX Runtime up to its logits, distances, centerness, mask logits and mask
IoU, in float32 arithmetic with values rounded where the plan says (QDQ fusion is off: an integer
kernel's own saturation would be measured with it, and differs between processors). Two things make
the comparison meaningful:

* Dense outputs are compared at the cells that the float network scores highest. The rest of the
  picture is background whose exact logit decides nothing, and the distances there are untrained.
* The mask branch gets the float network's boxes. Otherwise one moved detection would compare the
  masks of different objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import require
from centermask_edge.graph.variants import DECODERS, ROI_ALIGNS
from centermask_edge.preprocess import Preprocess
from centermask_edge.quantize.bias import correct_biases
from centermask_edge.quantize.build import Options
from centermask_edge.quantize.collect import Picture, metadata_of
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.placement import Sites, place
from centermask_edge.quantize.plan import Plan
from centermask_edge.quantize.qdq import insert_qdq
from centermask_edge.quantize.rewrite import without_deconvolution
from centermask_edge.quantize.scales import Scales
from centermask_edge.quantize.weights import copied, drop_unused
from centermask_edge.quantize.wiring import Wiring, read_wiring

if TYPE_CHECKING:
    import onnx

CELLS = 256  # compared in each picture
ROIS = 16  # compared in each picture
KINDS = ("logits", "reg", "centerness", "mask", "mask_iou")

_QUIET = 3
Arrays = dict[str, NDArray[Any]]
Noise = dict[str, float]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Names of the compared tensors by kind; the dense ones from the finest level on."""

    by_kind: dict[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(name for names in self.by_kind.values() for name in names)


@dataclass(frozen=True, slots=True)
class _View:
    """One picture: what the network is fed, which cells count, what the float network gives."""

    feed: Arrays
    cells: dict[str, NDArray[np.intp]]
    rois: int
    exact: Arrays


class Probe:
    """A model, a plan and a few pictures, ready to tell the noise of any part of the plan.

    Args:
        model: float32, prepared.
        plan: whose places are examined.
        scales: ranges of the activations.
        pictures: uint8 (H, W, 3) BGR, a handful.
        options: of the quantization; bias correction is taken into account.
        threads: of ONNX Runtime; None lets it choose.

    Raises:
        ConfigError: the plan does not fit the model.
        MissingPackageError: onnxruntime is not installed.
        QuantizationError: no picture, a model without the operations of this project, or a range
            that is missing or zero.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        plan: Plan,
        scales: Scales,
        pictures: Sequence[Picture],
        options: Options | None = None,
        threads: int | None = None,
    ) -> None:
        if not pictures:
            raise QuantizationError("no pictures to measure sensitivity with; give at least one")
        self._options, self._threads = options or Options(), threads
        self._model, self._split = model, plan.split_deconvolution
        self._plain_sites = place(model, plan)
        shaped = without_deconvolution(model) if self._split else model
        self.sites = place(shaped, plan)
        self.ranges = scales.ranges(self.sites)
        self.outputs = compared(shaped)
        self._network = _cut(shaped, self.outputs)
        self._views = self._look(pictures)
        self.pictures = len(self._views)
        self.signal = {k: self._spread(n) for k, n in self.outputs.by_kind.items()}
        self.signals = {name: self._spread([name]) for name in self.outputs.names}

    def noise(self, nodes: frozenset[str]) -> Noise:
        """Sum of squared errors of every compared tensor with only these nodes quantized.

        All ranges are those of the whole plan, so the parts add up to it.
        """
        sites = _only(self.sites, nodes)
        session = _session(insert_qdq(self._base(nodes), sites, self.ranges), self._threads)
        noise = dict.fromkeys(self.outputs.names, 0.0)
        for view in self._views:
            for name, value in self._values(session, view).items():
                difference = value.astype(np.float64) - view.exact[name]
                noise[name] += float(np.square(difference).sum())
        return noise

    def _base(self, nodes: frozenset[str]) -> onnx.ModelProto:
        seen = self._options.bias_correction
        if seen is None:
            return self._network
        corrected = correct_biases(self._model, _only(self._plain_sites, nodes), seen)
        shaped = without_deconvolution(corrected) if self._split else corrected
        return _cut(shaped, self.outputs)

    def _look(self, pictures: Sequence[Picture]) -> list[_View]:
        """What the float network makes of the pictures."""
        preprocess = Preprocess(metadata_of(self._model).preprocess)
        detector = _session(self._model, self._threads)
        network = _session(self._network, self._threads)
        views = []
        for picture in pictures:
            image, placement = preprocess(picture)
            feed = {
                "image": image[None],
                "image_size": np.asarray([placement.resized_size], np.float32),
            }
            found = detector.run(["boxes", "classes", "count"], feed)
            taken = feed | _rois(*found)
            wanted = {i.name for i in network.get_inputs()}
            fed = {name: value for name, value in taken.items() if name in wanted}
            whole = _run(network, self.outputs, fed)
            view = _View(fed, best_cells(whole, self.outputs), min(int(found[2][0]), ROIS), {})
            views.append(_View(fed, view.cells, view.rois, _parts(whole, view, self.outputs)))
        return views

    def _values(self, session: Any, view: _View) -> Arrays:
        return _parts(_run(session, self.outputs, view.feed), view, self.outputs)

    def _spread(self, names: Sequence[str]) -> float:
        """Sum of squared deviations of the exact values from their mean, over all pictures."""
        values = np.concatenate(
            [view.exact[name].ravel() for view in self._views for name in names]
        )
        if not values.size:
            return 0.0
        # A common offset is no information: logits lie around -5 wherever there is nothing.
        return float(np.square(values - values.mean(dtype=np.float64)).sum())


def compared(model: onnx.ModelProto) -> Outputs:
    """The tensors that matter, found from the operations that read or make them.

    Raises:
        QuantizationError: the model has no decoding operation of this project.
    """
    decode = next((node for node in model.graph.node if node.op_type in DECODERS), None)
    if decode is None:
        raise QuantizationError(
            "the model has no CMDecodeNMS operation, so what matters in it is not known; "
            "export it with: centermask-edge export"
        )
    dense = [name for name in decode.input if name]
    levels = len(dense) // 3
    found = {kind: tuple(dense[i * levels : (i + 1) * levels]) for i, kind in enumerate(KINDS[:3])}
    if any(node.op_type in ROI_ALIGNS for node in model.graph.node):
        wiring = read_wiring(model)
        found["mask"] = (_before_sigmoid(wiring, "roi_masks"),)
        found["mask_iou"] = ("roi_iou",)
    return Outputs(found)


def best_cells(outputs: Arrays, names: Outputs, count: int = CELLS) -> dict[str, NDArray[np.intp]]:
    """Flat indices of the cells with the highest logits of a picture, by dense tensor.

    Args:
        outputs: float32 (1, C, H, W) by name.
        names: of the dense tensors.
        count: cells of all levels together.
    """
    logits = [outputs[name][0].max(0).ravel() for name in names.by_kind["logits"]]
    starts = np.cumsum([0, *(len(level) for level in logits)])
    best = np.sort(np.argsort(-np.concatenate(logits), kind="stable")[:count])
    found = {}
    for level, (start, end) in enumerate(pairwise(starts)):
        inside = best[(best >= start) & (best < end)] - start
        for kind in KINDS[:3]:
            found[names.by_kind[kind][level]] = inside
    return found


def _before_sigmoid(wiring: Wiring, tensor: str) -> str:
    """The tensor that becomes probabilities, so that errors near 0 and 1 count, too."""
    current = tensor
    while (node := wiring.maker(current)) is not None:
        if node.op_type == "Sigmoid":
            return str(node.input[0])
        if node.op_type not in ("Identity", "Reshape", "Squeeze"):
            break
        current = node.input[0]
    return tensor


def _only(sites: Sites, nodes: frozenset[str]) -> Sites:
    """The places at some nodes, on the scales of all."""
    edges = tuple(edge for edge in sites.edges if edge.node in nodes)
    weights = tuple(site for site in sites.weights if nodes.issuperset(site.nodes))
    return Sites(edges, weights, sites.groups, sites.unsigned)


def _cut(model: onnx.ModelProto, outputs: Outputs) -> onnx.ModelProto:
    """The network from the image and given RoIs to the compared tensors, without decoding."""
    from onnx import TensorProto, helper

    result = copied(model)
    graph = result.graph
    roi_align = next((n for n in graph.node if n.op_type in ROI_ALIGNS), None)
    given = {"rois", "roi_image", "roi_classes"} if roi_align is not None else set()
    needed, kept = set(outputs.names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output) and not given.intersection(node.output):
            kept.append(type(node).FromString(node.SerializeToString()))
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    inputs = [i for i in graph.input if i.name in needed]
    for name in sorted(given & needed):
        kind = TensorProto.FLOAT if name == "rois" else TensorProto.INT64
        inputs.append(helper.make_tensor_value_info(name, kind, None))
    inputs = [type(i).FromString(i.SerializeToString()) for i in inputs]
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.extend(inputs)
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.names
    )
    drop_unused(graph)
    return result


def _rois(boxes: NDArray[Any], classes: NDArray[Any], count: NDArray[Any]) -> Arrays:
    # One at least, because some operations refuse empty tensors; it does not count then.
    taken = max(min(int(count[0]), ROIS), 1)
    return {
        "rois": np.asarray(boxes[0, :taken], np.float32),
        "roi_classes": np.asarray(classes[0, :taken], np.int64),
        "roi_image": np.zeros(taken, np.int64),
    }


def _parts(values: Arrays, view: _View, outputs: Outputs) -> Arrays:
    """What counts of whole outputs: the chosen cells, the RoIs that hold something."""
    found = {}
    for name in outputs.names:
        value = values[name]
        if name in view.cells:
            flat = value[0].reshape(value.shape[1], -1)
            found[name] = flat[:, view.cells[name]]
        else:
            found[name] = value[: view.rois]
    return found


def _run(session: Any, outputs: Outputs, feed: Arrays) -> Arrays:
    names = list(outputs.names)
    return dict(zip(names, session.run(names, feed), strict=True))


def _session(model: onnx.ModelProto, threads: int | None) -> Any:
    ort = require("onnxruntime", extra="cpu", why="measure sensitivity")
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
