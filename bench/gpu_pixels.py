"""Preprocessing and overlay: what they reach of the copy bandwidth. torch has no such routes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from gpu_job import Job, Scale, launch, make_boxes, twice

from centermask_edge.kernels import mask_overlay as overlay
from centermask_edge.kernels import preprocess as pre
from centermask_edge.kernels.library import Library

MASKS = 50


def preprocess_jobs(scale: Scale, library: Library) -> Iterator[Job]:
    """Preprocessing of camera frames to the Lite size, BGR and NV12, half precision."""
    for height, width in scale.frames:
        for batch in scale.batches:
            for source_format in (pre.BGR, pre.NV12):
                yield _preprocess_job(scale, library, height, width, batch, source_format)


def _preprocess_job(
    scale: Scale, library: Library, height: int, width: int, batch: int, source_format: int
) -> Job:
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
    run = launch(library, "preprocess", params, (source, tables, out))
    return Job("preprocess", name, moved, twice(run))


def overlay_jobs(scale: Scale, library: Library) -> Iterator[Job]:
    """Fifty masks drawn into a frame, over and over into the same one."""
    for height, width in scale.frames[:2]:
        boxes = make_boxes(MASKS, (height, width), scale.device)
        masks = torch.rand(MASKS, 28, 28, device=scale.device)
        frame = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, device=scale.device)
        colors = torch.randint(0, 256, (MASKS, 3), dtype=torch.uint8, device=scale.device)
        params = overlay.Params(
            frame=frame.data_ptr(),
            masks=masks.data_ptr(),
            boxes=boxes.data_ptr(),
            colors=colors.data_ptr(),
            pitch=3 * width,
            height=height,
            width=width,
            instances=MASKS,
            side=28,
            outline=2,
            opacity=0.45,
        )
        run = launch(library, "mask_overlay", params, (frame, masks, boxes, colors))
        name = f"{width}x{height}, {MASKS} masks"
        note = "bytes: the whole frame read and written"
        yield Job("mask_overlay", name, 2 * frame.numel(), twice(run), note)
