"""RoIAlign beside the torch route, and beside torchvision's called level by level."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence

import torch
from gpu_job import CHANNELS, SIDE, Job, Run, Scale, launch, make_boxes, plain, twice
from torch import Tensor

from centermask_edge.kernels.library import INT8, Library
from centermask_edge.kernels.roi_align import Params
from centermask_edge.model.roi import assign_levels, pyramid_roi_align

ops = torch.ops.centermask
LAYOUTS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
PACKS = {"NCHW": 1, "CHW32": 32, "channels last": CHANNELS}  # int8: TensorRT's layouts


def roi_align_jobs(scale: Scale, library: Library) -> Iterator[Job]:
    """Pyramid RoIAlign over K, type and layout."""
    for dtype in (torch.float32, torch.float16):
        for kind, layout in LAYOUTS.items():
            levels = [p.to(dtype).contiguous(memory_format=layout) for p in make_levels(scale)]
            for count in scale.rois:
                yield _float_job(levels, kind, count, scale)
    for kind, pack in PACKS.items():
        for count in scale.rois:
            yield _int8_job(kind, pack, count, scale, library)


def make_levels(scale: Scale) -> list[Tensor]:
    """P3 to P5 of one picture, float32 (1, C, H, W)."""
    height, width = scale.image
    return [
        torch.randn(1, CHANNELS, height >> n, width >> n, device=scale.device) for n in (3, 4, 5)
    ]


def _moved(boxes: Tensor, image: tuple[int, int], element: int) -> int:
    """Bytes of the cells under the boxes and of the output; of a level at most all of it."""
    area = torch.full((len(boxes),), float(image[0] * image[1]), device=boxes.device)
    levels = assign_levels(boxes, area)
    read = 0.0
    for level in range(3):
        sides = (boxes[levels == level, 2:] - boxes[levels == level, :2]) / (8 << level) + 1
        whole = (image[0] >> level + 3) * (image[1] >> level + 3)
        read += min(float(sides.prod(1).sum()), whole)
    return int((read + len(boxes) * SIDE * SIDE) * CHANNELS * element)


def _float_job(levels: Sequence[Tensor], kind: str, count: int, scale: Scale) -> Job:
    boxes = make_boxes(count, scale.image, scale.device)
    owner = torch.zeros(count, dtype=torch.int64, device=scale.device)
    size = torch.tensor([[float(side) for side in scale.image]], device=scale.device)
    moved = _moved(boxes, scale.image, levels[0].element_size())
    job = Job("roi_align", f"K {count}, {str(levels[0].dtype)[6:]}, {kind}", moved)
    job.waiting = ("torch", "torchvision")
    job.variants = twice(lambda: ops.pyramid_roi_align(*levels, boxes, owner, size, SIDE))
    job.variants["torch"] = plain(lambda: pyramid_roi_align(levels, [boxes], [scale.image], SIDE))
    if importlib.util.find_spec("torchvision"):
        job.variants["torchvision"] = _by_level_with_torchvision(levels, boxes, scale.image)
    return job


def _by_level_with_torchvision(
    levels: Sequence[Tensor], boxes: Tensor, image: tuple[int, int]
) -> Run:
    """How it is written with torchvision: a RoIAlign per level, put together by index."""
    area = torch.full((len(boxes),), float(image[0] * image[1]), device=boxes.device)

    def run() -> Tensor:
        roi_align = importlib.import_module("torchvision.ops").roi_align
        level = assign_levels(boxes, area)
        out = levels[0].new_empty((len(boxes), CHANNELS, SIDE, SIDE))
        for index, feature in enumerate(levels):
            of_level = torch.nonzero(level == index).flatten()
            out[of_level] = roi_align(
                feature, [boxes[of_level].to(feature.dtype)], SIDE, 1 / (8 << index), 0, True
            )
        return out

    return run


def _int8_job(kind: str, pack: int, count: int, scale: Scale, library: Library) -> Job:
    """Through the C interface: torch has no such route."""
    levels = [(level * 40).clamp(-127, 127).to(torch.int8) for level in make_levels(scale)]
    boxes = make_boxes(count, scale.image, scale.device)
    size = torch.tensor([[float(side) for side in scale.image]], device=scale.device)
    out = torch.empty(count * CHANNELS * SIDE * SIDE, dtype=torch.int8, device=scale.device)
    params = Params(
        rois=boxes.data_ptr(),
        image_size=size.data_ptr(),
        output=out.data_ptr(),
        images=1,
        channels=CHANNELS,
        rois_count=count,
        rois_per_image=count,
        side=SIDE,
        type=INT8,
        pack=pack,
        index_bytes=4,
        feature_scale=(0.025,) * 3,
        output_scale=0.025,
    )
    for index, level in enumerate(levels):
        params.features[index] = level.data_ptr()
        params.height[index], params.width[index] = level.shape[2:]
    job = Job("roi_align", f"K {count}, int8, {kind}", _moved(boxes, scale.image, 1))
    job.variants = twice(launch(library, "roi_align", params, (out, *levels, boxes, size)))
    job.note = "torch has no int8 route"
    return job
