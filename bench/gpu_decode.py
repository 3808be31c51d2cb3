"""Decoding beside the torch route, and beside torchvision's NMS on torch's candidates."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any, cast

import torch
from gpu_job import Job, Run, Scale, plain, twice

from centermask_edge.model import kernel_ops
from centermask_edge.model.decode import candidates, detect
from centermask_edge.model.fcos import DensePredictions

ops = torch.ops.centermask


@dataclass(frozen=True)
class Decode:
    """The defaults of ``config.DecodeConfig``, where pydantic is not installed (tested equal)."""

    score_threshold: float = 0.05
    nms_threshold: float = 0.6
    pre_nms_topk: int = 1000
    max_detections: int = 50


def make_dense(scale: Scale, classes: int, wanted: int) -> DensePredictions:
    """Predictions of which about so many pass the threshold of 0.05, box sizes as a network's."""
    random = torch.Generator().manual_seed(classes)
    height, width = scale.image
    shapes = [(-(-height // s), -(-width // s)) for s in kernel_ops.STRIDES]
    logits = [torch.randn(1, classes, *s, generator=random) for s in shapes]
    total = torch.cat([m.flatten() for m in logits])
    limit = total.topk(min(wanted, total.numel())).values[-1]
    shift = torch.logit(torch.tensor(0.05)) - limit + 1e-3
    device = scale.device
    return DensePredictions(
        [(m + shift).to(device) for m in logits],
        [(torch.rand(1, 4, *s, generator=random) * 4 + 1).to(device) for s in shapes],
        [torch.randn(1, 1, *s, generator=random).to(device) for s in shapes],
    )


def decode_jobs(scale: Scale) -> Iterator[Job]:
    """Decoding over candidates and classes."""
    for classes in (1, 80):
        for wanted in scale.candidates:
            yield _job(make_dense(scale, classes, wanted), f"{classes} classes, {wanted}")


def _job(dense: DensePredictions, sizes: str) -> Job:
    settings = Decode()
    found = sum(int((m.sigmoid() > settings.score_threshold).sum()) for m in dense.logits)
    moved = sum(m.numel() * m.element_size() for m in dense.logits)
    job = Job("decode_nms", f"{sizes} candidates wanted", moved)
    job.waiting = ("torch", "torchvision")
    job.note = f"{found} candidates; bytes are those of the logits"
    maps = (dense.logits, dense.reg, dense.centerness)
    job.variants = twice(lambda: ops.decode_nms(*maps, *astuple(settings)))
    job.variants["torch"] = plain(lambda: detect(dense, cast(Any, settings)))
    if importlib.util.find_spec("torchvision"):
        job.variants["torchvision"] = plain(_with_torchvision(dense, settings))
    return job


def _with_torchvision(dense: DensePredictions, settings: Decode) -> Run:
    """As ``decode.detect``, its NMS by torchvision on the device."""

    def run() -> object:
        batched_nms = importlib.import_module("torchvision.ops").batched_nms
        found = candidates(dense, 0, cast(Any, settings))
        keep = batched_nms(found.boxes, found.scores, found.classes, settings.nms_threshold)
        keep = keep[: settings.max_detections]
        return found.boxes[keep], found.scores[keep], found.classes[keep]

    return run
