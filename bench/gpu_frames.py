"""Whole frames of CenterMask-Lite in torch: with the kernels, without them, and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from gpu_jobs import Scale, plain_torch

from centermask_edge.backbone import Backbone
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.fixed import FixedCenterMask

Run = Callable[[], object]
WANTED = 50  # detections a frame


@dataclass(frozen=True)
class Decode:
    """The defaults of ``config.DecodeConfig``, where pydantic is not installed (tested equal)."""

    score_threshold: float = 0.05
    nms_threshold: float = 0.6
    pre_nms_topk: int = 1000
    max_detections: int = 50


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


def make_model(backbone: Backbone, image: torch.Tensor) -> CenterMask:
    """A network with random weights that finds as many objects as a busy street has.

    The bias of the class scores is set so that some 500 candidates pass the threshold on this
    picture: with random weights alone there are none, and the mask branch would be idle.
    """
    torch.manual_seed(0)
    model = CenterMask(cast(Any, Lite(backbone))).eval().to(image.device)
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.05)
    with torch.no_grad():
        _, dense = model.dense(image)
        logits = torch.cat([m.flatten() for m in dense.logits])
        limit = logits.topk(min(500, logits.numel() // 4)).values[-1]
        assert model.head.cls_logits.bias is not None
        model.head.cls_logits.bias += torch.logit(torch.tensor(0.05)).item() - limit
    return model


def frame_runs(scale: Scale, backbone: Backbone) -> Iterator[tuple[str, Run, str]]:
    """Variants of one frame: name, run, note."""
    height, width = scale.image
    image = torch.randn(1, 3, height, width, device=scale.device)
    model = make_model(backbone, image)
    sizes = torch.tensor([[float(height), float(width)]], device=scale.device)

    def plain() -> object:
        with plain_torch(), torch.no_grad():
            return model(image, [scale.image])

    def with_kernels() -> object:
        with torch.no_grad():
            return model(image, [scale.image])

    fixed = FixedCenterMask(model)
    found = int(fixed(image, sizes).count[0])
    yield "torch, fp32", plain, f"{found} detections"
    yield "kernels, fp32", with_kernels, f"{found} detections"
    yield "kernels, fp32, fixed size", lambda: fixed(image, sizes), f"{found} detections"
    half = FixedCenterMask(
        make_model(backbone, image).half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    )
    small = image.half().contiguous(memory_format=torch.channels_last)
    count = int(half(small, sizes).count[0])
    yield (
        "kernels, fp16, channels last, fixed size",
        lambda: half(small, sizes),
        f"{count} detections",
    )
