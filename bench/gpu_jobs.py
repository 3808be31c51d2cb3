"""What is timed: each kernel at several sizes, beside the torch routes it replaces."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from centermask_edge.backbone import Backbone
from centermask_edge.kernels import mask_overlay as overlay
from centermask_edge.kernels import preprocess as pre
from centermask_edge.kernels.library import Library
from centermask_edge.model import kernel_ops
from centermask_edge.model.decode import detect
from centermask_edge.model.fcos import DensePredictions
from centermask_edge.model.mask_heads import SpatialAttention
from centermask_edge.model.roi import assign_levels, pyramid_roi_align

Run = Callable[[], object]
ops = torch.ops.centermask
CHANNELS, SIDE = 128, 14


@dataclass
class Job:
    """One comparison; the first variant is the kernel.

    Attributes:
        kernel: which kernel.
        name: its sizes.
        bytes: that must move at least: every input read once, every output written once.
        variants: by name; ``kernel`` and ``again`` are the same call, their difference is noise.
        note: what a reader has to know.
        waiting: variants that wait for the device in the middle.
    """

    kernel: str
    name: str
    bytes: int
    variants: dict[str, Run] = field(default_factory=dict)
    note: str = ""
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """How large the jobs are: in full, or just enough to rehearse."""

    device: str
    image: tuple[int, int] = (608, 800)
    rois: tuple[int, ...] = (1, 10, 50, 200, 1000)
    attention: tuple[int, ...] = (1, 50, 200, 1000, 4000)
    candidates: tuple[int, ...] = (100, 1000, 10_000)
    frames: tuple[tuple[int, int], ...] = ((720, 1280), (1080, 1920), (2160, 3840))
    batches: tuple[int, ...] = (1, 4, 16)
    backbones: tuple[Backbone, ...] = (Backbone.V19, Backbone.V39)


REHEARSAL = Scale("cpu", (64, 96), (2,), (1,), (20,), ((48, 64),), (1, 2), (Backbone.V19_SLIM_DW,))


@contextmanager
def plain_torch() -> Iterator[None]:
    """The network without the kernels."""
    with mock.patch.object(kernel_ops, "usable", lambda _: False):
        yield


def _plain(run: Run) -> Run:
    def with_plain_torch() -> object:
        with plain_torch():
            return run()

    return with_plain_torch


def _twice(run: Run) -> dict[str, Run]:
    return {"kernel": run, "again": run}


def make_boxes(count: int, image: tuple[int, int], device: str) -> Tensor:
    """Boxes as detections have them: most small, some most of the picture; float32 (R, 4)."""
    random = torch.Generator().manual_seed(count)
    height, width = image
    share = torch.rand(count, 2, generator=random) ** 2 * 0.9 + 0.03
    corner = torch.rand(count, 2, generator=random) * (1 - share)
    span = torch.tensor([width, height])
    return torch.cat((corner * span, (corner + share) * span), dim=1).to(device)


def _by_level_with_torchvision(levels: list[Tensor], boxes: Tensor, image: tuple[int, int]) -> Run:
    """How it is written with torchvision: a RoIAlign per level, put together by index."""
    roi_align = importlib.import_module("torchvision.ops").roi_align
    area = torch.full((len(boxes),), float(image[0] * image[1]), device=boxes.device)

    def run() -> Tensor:
        level = assign_levels(boxes, area)
        out = levels[0].new_empty((len(boxes), CHANNELS, SIDE, SIDE))
        for index, feature in enumerate(levels):
            of_level = torch.nonzero(level == index).flatten()
            out[of_level] = roi_align(
                feature, [boxes[of_level].to(feature.dtype)], SIDE, 1 / (8 << index), 0, True
            )
        return out

    return run


def roi_align_jobs(scale: Scale) -> Iterator[Job]:
    """Pyramid RoIAlign over K, type and layout."""
    height, width = scale.image
    size = torch.tensor([[float(height), float(width)]], device=scale.device)
    for dtype in (torch.float32, torch.float16):
        for layout in (torch.contiguous_format, torch.channels_last):
            levels = [
                torch.randn(1, CHANNELS, height >> n, width >> n, device=scale.device)
                .to(dtype)
                .contiguous(memory_format=layout)
                for n in (3, 4, 5)
            ]
            for count in scale.rois:
                boxes = make_boxes(count, scale.image, scale.device)
                owner = torch.zeros(count, dtype=torch.int64, device=scale.device)
                yield _roi_align_job(levels, boxes, owner, size, scale.image)


def _roi_align_job(
    levels: list[Tensor], boxes: Tensor, owner: Tensor, size: Tensor, image: tuple[int, int]
) -> Job:
    element, count = levels[0].element_size(), len(boxes)
    area = torch.full((count,), float(image[0] * image[1]), device=boxes.device)
    stride = 8.0 * 2.0 ** assign_levels(boxes, area)
    cells = ((boxes[:, 2:] - boxes[:, :2]) / stride[:, None] + 1).prod(1).sum().item()
    moved = int((cells + count * SIDE * SIDE) * CHANNELS * element)
    kind = "channels last" if levels[0].is_contiguous(memory_format=torch.channels_last) else "NCHW"
    job = Job("roi_align", f"K {count}, {str(levels[0].dtype)[6:]}, {kind}", moved)
    job.waiting = ("torch", "torchvision")
    job.variants = _twice(lambda: ops.pyramid_roi_align(*levels, boxes, owner, size, SIDE))
    job.variants["torch"] = _plain(lambda: pyramid_roi_align(levels, [boxes], [image], SIDE))
    if importlib.util.find_spec("torchvision"):
        job.variants["torchvision"] = _by_level_with_torchvision(levels, boxes, image)
    return job


def attention_jobs(scale: Scale) -> Iterator[Job]:
    """Spatial attention over K, type and layout."""
    module = SpatialAttention().to(scale.device)
    for dtype in (torch.float32, torch.float16):
        weight = module.conv.weight.detach().to(dtype)
        typed = SpatialAttention().to(scale.device, dtype)
        for layout in (torch.contiguous_format, torch.channels_last):
            for count in scale.attention:
                x = torch.randn(count, CHANNELS, SIDE, SIDE, device=scale.device).to(dtype)
                x = x.contiguous(memory_format=layout)
                kind = "NCHW" if layout == torch.contiguous_format else "channels last"
                job = Job("spatial_attention", f"K {count}, {str(dtype)[6:]}, {kind}", 0)
                job.bytes = 2 * x.numel() * x.element_size()
                job.variants = _twice(lambda x=x, weight=weight: ops.spatial_attention(x, weight))  # type: ignore[misc]
                job.variants["torch"] = _plain(lambda x=x, typed=typed: typed(x))  # type: ignore[misc]
                yield job


def make_dense(scale: Scale, classes: int, candidates: int) -> DensePredictions:
    """Predictions of which about so many pass the threshold of 0.05, box sizes as a network's."""
    random = torch.Generator().manual_seed(classes)
    height, width = scale.image
    shapes = [(-(-height // s), -(-width // s)) for s in kernel_ops.STRIDES]
    logits = [torch.randn(1, classes, *s, generator=random) for s in shapes]
    total = torch.cat([m.flatten() for m in logits])
    limit = total.topk(min(candidates, total.numel())).values[-1]
    shift = torch.logit(torch.tensor(0.05)) - limit + 1e-3
    device = scale.device
    return DensePredictions(
        [(m + shift).to(device) for m in logits],
        [(torch.rand(1, 4, *s, generator=random) * 4 + 1).to(device) for s in shapes],
        [torch.randn(1, 1, *s, generator=random).to(device) for s in shapes],
    )


def decode_jobs(scale: Scale) -> Iterator[Job]:
    """Decoding over candidates and classes."""
    settings = SimpleNamespace(
        score_threshold=0.05, nms_threshold=0.6, pre_nms_topk=1000, max_detections=50
    )
    numbers = tuple(vars(settings).values())
    for classes in (1, 80):
        for candidates in scale.candidates:
            dense = make_dense(scale, classes, candidates)
            found = sum(int((m.sigmoid() > 0.05).sum()) for m in dense.logits)
            moved = sum(m.numel() * m.element_size() for m in dense.logits)
            job = Job("decode_nms", f"{classes} classes, {candidates} candidates wanted", moved)
            job.waiting = ("torch",)
            job.note = f"{found} candidates; bytes are those of the logits"
            maps = (dense.logits, dense.reg, dense.centerness)
            job.variants = _twice(lambda maps=maps: ops.decode_nms(*maps, *numbers))  # type: ignore[misc]
            job.variants["torch"] = _plain(lambda dense=dense: detect(dense, settings))  # type: ignore[misc, arg-type]
            yield job


def preprocess_jobs(scale: Scale, library: Library) -> Iterator[Job]:
    """Preprocessing of camera frames to the Lite size, BGR and NV12, half precision."""
    for height, width in scale.frames:
        for batch in scale.batches:
            for source_format in (pre.BGR, pre.NV12):
                yield _preprocess_job(scale, library, height, width, batch, source_format)


def _preprocess_job(
    scale: Scale, library: Library, height: int, width: int, batch: int, source_format: int
) -> Job:
    import numpy as np

    nv12 = source_format == pre.NV12
    rows, line = (height * 3 // 2, width) if nv12 else (height, 3 * width)
    source = torch.randint(0, 256, (batch, rows, line), dtype=torch.uint8, device=scale.device)
    padded_height, padded_width = scale.image
    resized = (min(padded_height, padded_width * height // width), padded_width)
    plan = pre.Plan(resized, scale.image, dtype=np.float16, source_format=source_format)
    params = pre.make_params(plan, batch, height, width)
    tables = torch.from_numpy(pre.tables(library, params)).to(scale.device)
    out = torch.empty((batch, 3, *scale.image), dtype=torch.float16, device=scale.device)
    params.source, params.tables, params.output = (t.data_ptr() for t in (source, tables, out))
    params.chroma = source.data_ptr() + height * line if nv12 else None
    params.source_pitch = params.chroma_pitch = line
    params.source_stride = params.chroma_stride = rows * line
    name = f"{width}x{height}, {'NV12' if nv12 else 'BGR'}, batch {batch}"
    moved = source.numel() + out.numel() * out.element_size()
    run = _launch(library, "preprocess", params, (source, tables, out))
    return Job("preprocess", name, moved, _twice(run))


def overlay_jobs(scale: Scale, library: Library) -> Iterator[Job]:
    """Fifty masks drawn into a frame."""
    for height, width in scale.frames[:2]:
        boxes = make_boxes(50, (height, width), scale.device)
        masks = torch.rand(50, 28, 28, device=scale.device)
        frame = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, device=scale.device)
        colors = torch.randint(0, 256, (50, 3), dtype=torch.uint8, device=scale.device)
        params = overlay.Params(
            frame=frame.data_ptr(),
            masks=masks.data_ptr(),
            boxes=boxes.data_ptr(),
            colors=colors.data_ptr(),
            pitch=3 * width,
            height=height,
            width=width,
            instances=50,
            side=28,
            outline=2,
            opacity=0.45,
        )
        run = _launch(library, "mask_overlay", params, (frame, masks, boxes, colors))
        yield Job("mask_overlay", f"{width}x{height}, 50 masks", 2 * frame.numel(), _twice(run))


def _launch(library: Library, name: str, params: ctypes.Structure, held: Any) -> Run:
    def run() -> object:
        on_gpu = held[0].is_cuda
        stream = torch.cuda.current_stream().cuda_stream if on_gpu else 0
        library.call(name, params, stream)
        return held  # the tensors live as long as the run does

    return run


def all_jobs(scale: Scale, library: Library) -> Iterator[Job]:
    """Every job, one kernel after the other."""
    yield from attention_jobs(scale)
    yield from roi_align_jobs(scale)
    yield from decode_jobs(scale)
    yield from preprocess_jobs(scale, library)
    yield from overlay_jobs(scale, library)
