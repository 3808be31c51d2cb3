"""INT8 on this processor: the dense part and the mask branch, against FP32 and the measured peak.

    python bench/int8_cpu.py --json docs/results/int8_speed.json

Everything that is compared runs in turns, in one process, so that a noisy neighbour meets all of it
alike: a ratio holds where the milliseconds do not. The Lite models have random weights (their speed
does not depend on them); ranges come from frames of the bundled clip.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from int8_peak import open_peak
from int8_variants import Picture, ours, peers

import centermask_edge
from centermask_edge.cli.report import write_json
from centermask_edge.config import PRESETS
from centermask_edge.engines.openvino import import_openvino
from centermask_edge.graph.export import build
from centermask_edge.graph.lowering import lower_for_openvino
from centermask_edge.graph.trace import DENSE_OUTPUTS
from centermask_edge.live.sources.opening import open_source
from centermask_edge.measure.stages import processor_name, usable_processors
from centermask_edge.model.centermask import CenterMask
from centermask_edge.quantize.coverage_macs import coverage
from centermask_edge.resources import shipped_model

_CLIP = Path(centermask_edge.__file__).parent / "_clips" / "people.mp4"
_FRAMES, _EVERY = 6, 20
_ROIS = 50
_WARM_UP = 3
SHIPPED = "shipped person model"
# Network inputs: a short side of 600 in 4:3 for the Lite models, as the paper's; 16:9 for ours.
SIZES = {"lite-v19": (608, 800), "lite-v19-slim": (608, 800), SHIPPED: (352, 640)}
_KINDS = {
    "roi_image": onnx.TensorProto.INT64,
    "roi_classes": onnx.TensorProto.INT64,
    "run_roi": onnx.TensorProto.BOOL,
}


@dataclass(frozen=True, slots=True)
class Runner:
    """Something to time, and its multiply-adds."""

    name: str
    run: Callable[[], None]
    macs: float


def frames() -> list[Picture]:
    """A few frames of the bundled clip."""
    source = open_source(str(_CLIP))
    try:
        return [f.image for f in islice(source, 0, _FRAMES * _EVERY, _EVERY)]
    finally:
        source.close()


def network(name: str) -> onnx.ModelProto:
    """The ONNX model of a name in ``SIZES``."""
    if name == SHIPPED:
        return onnx.load(str(shipped_model()))
    import torch

    torch.manual_seed(0)
    model = CenterMask(PRESETS[name]).eval()
    # Scores of random weights find nothing; the mask branch needs instances to calibrate on.
    torch.nn.init.zeros_(model.head.cls_logits.bias)  # type: ignore[arg-type]
    return build(model, {"run": "random weights"})


def part(model: onnx.ModelProto, feed: dict[str, Any], outputs: list[str]) -> onnx.ModelProto:
    """The part of a graph as OpenVINO gets it, from the tensors of a feed to others."""
    inlined = lower_for_openvino(model)
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = inlined.graph
    shapes = {name: list(value.shape) for name, value in feed.items()}
    known = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    for name in {*feed, *outputs} - known:
        kind = _KINDS.get(name, kinds.FLOAT)
        graph.value_info.append(helper.make_tensor_value_info(name, kind, shapes.get(name)))
    extracted = onnx.utils.Extractor(inlined).extract_model(list(feed), outputs)
    for value in extracted.graph.input:
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shapes[value.name]))
    return _channels_last(extracted)


def _channels_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a convolution that changes nothing behind each level of the pyramid.

    OpenVINO takes RoIAlign's layout from the layer before: in a network a convolution, whose
    output is channels-last; from a graph input it would be planar, 25 times as slow.
    """
    graph = model.graph
    levels = [v for v in graph.input if v.name in ("p3", "p4", "p5")]
    added = []
    for value in levels:
        channels = value.type.tensor_type.shape.dim[1].dim_value
        one = onnx.numpy_helper.from_array(np.ones((channels, 1, 1, 1), "f4"), f"{value.name}/one")
        graph.initializer.append(one)
        added.append(
            onnx.helper.make_node(
                "Conv", [value.name, one.name], [f"{value.name}/last"], group=channels
            )
        )
    last = {value.name: f"{value.name}/last" for value in levels}
    for node in graph.node:
        node.input[:] = [last.get(name, name) for name in node.input]
    nodes = [type(n).FromString(n.SerializeToString()) for n in (*added, *graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


class _Compiled:
    """A part of a network compiled for one shape, on random input."""

    def __init__(self, proto: onnx.ModelProto, feed: dict[str, Any], kind: str, threads: int):
        ov = import_openvino()
        core = ov.Core()
        model = core.read_model(proto.SerializeToString())
        model.reshape({name: list(value.shape) for name, value in feed.items()})
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": kind,
            "INFERENCE_NUM_THREADS": threads,
        }
        self._request = core.compile_model(model, "CPU", config).create_infer_request()
        self._feed = feed

    def __call__(self) -> None:
        self._request.infer(self._feed, share_inputs=True)


def dense_feed(size: tuple[int, int]) -> dict[str, Any]:
    """A picture of noise of about the values that networks see."""
    rng = np.random.default_rng(0)
    return {"image": rng.normal(0, 1, (1, 3, *size)).astype(np.float32)}


def branch_feed(size: tuple[int, int], classes: int) -> dict[str, Any]:
    """Fifty RoIs over a pyramid of noise, sides of a twentieth to nearly all of the picture's."""
    rng = np.random.default_rng(0)
    height, width = size
    feed: dict[str, Any] = {
        f"p{level}": np.abs(rng.normal(0, 1, (1, 128, height >> level, width >> level))).astype(
            "f4"
        )
        for level in (3, 4, 5)
    }
    sides = rng.uniform(0.05, 0.95, (_ROIS, 2))
    low = rng.uniform(0, 1, (_ROIS, 2)) * (1 - sides)
    high = low + sides
    scale = np.array([width, height, width, height])
    feed["rois"] = (np.concatenate([low, high], 1) * scale).astype(np.float32)
    feed["roi_image"] = np.zeros(_ROIS, np.int64)
    feed["run_roi"] = np.ones(_ROIS, np.bool_)
    feed["image_size"] = np.array([[height, width]], np.float32)
    if classes > 1:
        feed["roi_classes"] = rng.integers(0, classes, _ROIS)
    return feed


def runners(
    name: str, variants: dict[str, onnx.ModelProto], branch: bool, threads: int
) -> list[Runner]:
    """The dense part, or the mask branch, of every variant; FP32 also in bfloat16."""
    size, classes = SIZES[name], 1 if name == SHIPPED else 80
    feed = branch_feed(size, classes) if branch else dense_feed(size)
    outputs = ["roi_masks", "roi_iou"] if branch else DENSE_OUTPUTS
    plain = part(variants["fp32"], feed, outputs)
    layers = coverage(variants["fp32"], size).layers
    macs = float(sum(layer.macs for layer in layers if layer.name.startswith("mask/") is branch))
    made = [
        Runner(key, _Compiled(part(model, feed, outputs), feed, "f32", threads), macs)
        for key, model in variants.items()
    ]
    made.insert(1, Runner("bf16", _Compiled(plain, feed, "bf16", threads), macs))
    return made


def timed(made: list[Runner], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every runner, in turns; who goes first changes."""
    times: dict[str, list[float]] = {runner.name: [] for runner in made}
    for turn in range(_WARM_UP + rounds):
        first = turn % len(made)
        for runner in made[first:] + made[:first]:
            start = time.perf_counter()
            runner.run()
            if turn >= _WARM_UP:
                times[runner.name].append((time.perf_counter() - start) * 1e3)
    return times


def rows(made: list[Runner], times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Median, p95, gain over FP32 and share of the peak of every runner.

    The peak is what the processor can do at most, so of its turns the fastest counts: in the others
    threads of the runner before were still spinning.
    """
    medians = {name: float(np.median(values)) for name, values in times.items()}
    medians["peak"] = min(times.get("peak", [math.nan]))
    speed = {r.name: r.macs / medians[r.name] for r in made}  # multiply-adds a millisecond
    return [
        {
            "variant": r.name,
            "median_ms": round(medians[r.name], 2),
            "p95_ms": round(float(np.percentile(times[r.name], 95)), 2),
            "gain": round(medians["fp32"] / medians[r.name], 2),
            "of_peak": round(speed[r.name] / speed["peak"], 3) if "peak" in speed else None,
            "peak_gmacs_per_s": round(speed["peak"] / 1e6, 1) if "peak" in speed else None,
        }
        for r in made
        if r.name != "peak"
    ]


def compare(name: str, rounds: int, threads: int) -> list[dict[str, Any]]:
    """Both tables of one model."""
    model, pictures = network(name), frames()
    variants = {"fp32": model, **ours(model, pictures)}
    for peer, quantize in peers():
        try:
            variants[peer] = quantize(model, pictures)
        except Exception as error:  # a peer that fails is a line of the table
            sys.stderr.write(f"{peer} fails on {name}: {error}\n")
    found = []
    for branch in (False, True):
        chosen = {k: v for k, v in variants.items() if not branch or not k.startswith("nvidia")}
        made = runners(name, chosen, branch, threads)
        peak = open_peak(threads)
        if peak is not None:
            made.append(Runner("peak", peak, peak.macs))
        label = f"mask branch, {_ROIS} RoIs" if branch else "dense part"
        for row in rows(made, timed(made, rounds)):
            found.append(
                {"model": name, "part": label, "gmacs": round(made[0].macs / 1e9, 2), **row}
            )
            sys.stdout.write(f"{found[-1]}\n")
    return found


def main() -> int:
    """0; the tables are in the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=usable_processors())
    parser.add_argument("--models", nargs="*", default=list(SIZES), choices=list(SIZES))
    options = parser.parse_args()
    ov = import_openvino()
    found = [
        row for name in options.models for row in compare(name, options.rounds, options.threads)
    ]
    facts = {
        "processor": processor_name(),
        "threads": options.threads,
        "openvino": ov.__version__.split("-")[0],
        "rounds": options.rounds,
    }
    write_json(options.json, {**facts, "rows": found})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
