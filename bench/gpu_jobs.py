"""Everything that is timed by itself, in order."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_attention import attention_jobs
from gpu_decode import decode_jobs
from gpu_job import Job, Scale
from gpu_pixels import overlay_jobs, preprocess_jobs
from gpu_rois import roi_align_jobs

from centermask_edge.kernels.library import Library


def all_jobs(scale: Scale, library: Library) -> Iterator[Job]:
    """Every job, one kernel after the other; each is made when the one before is done."""
    yield from attention_jobs(scale)
    yield from decode_jobs(scale)
    yield from preprocess_jobs(scale, library)
    yield from overlay_jobs(scale, library)
    yield from roi_align_jobs(scale, library)
