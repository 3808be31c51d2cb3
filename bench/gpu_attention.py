"""Spatial attention beside eager torch and torch.compile."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from gpu_job import CHANNELS, SIDE, Job, Run, Scale, plain, twice
from gpu_rois import LAYOUTS
from torch import Tensor

from centermask_edge.model.mask_heads import SpatialAttention

ops = torch.ops.centermask


def attention_jobs(scale: Scale) -> Iterator[Job]:
    """Spatial attention over K, type and layout."""
    for dtype in (torch.float32, torch.float16):
        module = SpatialAttention().to(scale.device, dtype)
        for kind, layout in LAYOUTS.items():
            for count in scale.attention:
                x = torch.randn(count, CHANNELS, SIDE, SIDE, device=scale.device).to(dtype)
                x = x.contiguous(memory_format=layout)
                yield _job(f"K {count}, {str(dtype)[6:]}, {kind}", module, x, scale)


def _job(name: str, module: SpatialAttention, x: Tensor, scale: Scale) -> Job:
    weight = module.conv.weight.detach()
    job = Job("spatial_attention", name, 2 * x.numel() * x.element_size())
    job.variants = twice(lambda: ops.spatial_attention(x, weight))
    job.variants["torch"] = plain(lambda: module(x))
    if len(x) in scale.compiled:
        job.variants["torch.compile"] = _compiled(module, x, scale.compiler)
    return job


def _compiled(module: SpatialAttention, x: Tensor, backend: str) -> Run:
    """Compiled for this very shape at the first call, by nothing that was compiled before."""
    torch.compiler.reset()
    compiled = torch.compile(module, backend=backend, dynamic=False)
    return plain(lambda: compiled(x))
