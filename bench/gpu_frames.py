"""Whole frames of CenterMask-Lite in torch: with the kernels, without them, and as a CUDA graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from gpu_decode import Decode
from gpu_job import Run, Scale, plain
from gpu_timing import Timer, compare

from centermask_edge.backbone import Backbone
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.fixed import FixedCenterMask
from centermask_edge.switches import ChannelAttention, RoiRules, Rules

CANDIDATES = 500  # above the threshold; of them some fifty objects are found
BASE = "torch, fp32"


@dataclass(frozen=True)
class Lite:
    """The Lite presets of ``config.ModelConfig``, where pydantic is not installed."""

    backbone: Backbone
    num_classes: int = 80
    fpn_channels: int = 128
    head_convs: int = 2
    mask_convs: int = 2
    mask_iou_convs: int = 2
    mask_iou_fc: int = 1024
    decode: Decode = field(default_factory=Decode)
    channel_attention: ChannelAttention = ChannelAttention.ESE
    residual: bool = True
    spatial_attention: bool = True
    mask_scoring: bool = True
    rules: Rules = Rules.CENTERMASK2
    roi_rules: RoiRules = field(default_factory=RoiRules)


@dataclass(frozen=True)
class FrameRun:
    """One way to run a frame; ``waits`` where it waits for the device in the middle."""

    name: str
    run: Run
    detections: int
    waits: bool


def make_model(backbone: Backbone, image: torch.Tensor) -> CenterMask:
    """A network with random weights that finds as many objects as a busy street has.

    The bias of the class scores is set so that ``CANDIDATES`` pass the threshold on this picture:
    with random weights alone there are none, and the mask branch would be idle.
    """
    torch.manual_seed(0)
    model = CenterMask(cast(Any, Lite(backbone))).eval().to(image.device)
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.05)
    with torch.no_grad():
        _, dense = model.dense(image)
        logits = torch.cat([m.flatten() for m in dense.logits])
        limit = logits.topk(min(CANDIDATES, logits.numel() // 4)).values[-1]
        assert model.head.cls_logits.bias is not None
        model.head.cls_logits.bias += torch.logit(torch.tensor(0.05)).item() - limit
    return model


def frame_runs(scale: Scale, backbone: Backbone) -> Iterator[FrameRun]:
    """Single and half precision, each without the kernels, with them, and of a fixed size."""
    image = torch.randn(1, 3, *scale.image, device=scale.device)
    yield from _variants("fp32", make_model(backbone, image), image, scale)
    half = make_model(backbone, image).half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    small = image.half().contiguous(memory_format=torch.channels_last)
    yield from _variants("fp16, channels last", half, small, scale)


def _variants(
    kind: str, model: CenterMask, image: torch.Tensor, scale: Scale
) -> Iterator[FrameRun]:
    sizes = torch.tensor([[float(side) for side in scale.image]], device=scale.device)
    fixed = FixedCenterMask(model)
    found = int(fixed(image, sizes).count[0])

    def run() -> object:
        return model(image, [scale.image])

    def run_fixed() -> object:
        return fixed(image, sizes)

    yield FrameRun(f"torch, {kind}", plain(run), found, True)
    yield FrameRun(f"kernels, {kind}", run, found, True)
    yield FrameRun(f"kernels, {kind}, fixed size", run_fixed, found, False)
    yield FrameRun(f"kernels, {kind}, fixed size, again", run_fixed, found, False)


def time_frames(
    timer: Timer, scale: Scale, backbone: Backbone, rounds: int
) -> list[dict[str, Any]]:
    """One row per way to run a frame; those of a fixed size also as CUDA graphs."""
    runs = list(frame_runs(scale, backbone))
    waiting = [entry.name for entry in runs if entry.waits]
    done = compare(timer, {entry.name: entry.run for entry in runs}, rounds, waiting)
    base = done.times.get(BASE)
    rows = []
    for entry in runs:
        row: dict[str, Any] = {"model": f"lite-{backbone.value}", "name": entry.name}
        row["note"] = f"{entry.detections} detections"
        if entry.name in done.failed:
            rows.append({**row, "failed": done.failed[entry.name]})
            continue
        times = done.times[entry.name]
        if base is not None:
            graph = times.warm_p50_us
            row["speedup"] = {BASE: base.cold_p50_us / times.cold_p50_us}
            row["speedup_as_graph"] = {BASE: base.cold_p50_us / graph} if graph else {}
        rows.append({**row, "times": dataclasses.asdict(times)})
    return rows
