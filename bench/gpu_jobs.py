"""Everything that is timed by itself, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gpu_attention import attention_jobs
from gpu_decode import decode_jobs
from gpu_job import Job, Scale
from gpu_pixels import overlay_jobs, preprocess_jobs
from gpu_rois import roi_align_jobs

from centermask_edge.kernels.library import Library


def job_groups(scale: Scale, library: Library) -> Mapping[str, Iterator[Job]]:
    """The jobs of each kernel; each is made when the one before is done."""
    return {
        "spatial_attention": attention_jobs(scale),
        "decode_nms": decode_jobs(scale),
        "preprocess": preprocess_jobs(scale, library),
        "mask_overlay": overlay_jobs(scale, library),
        "roi_align": roi_align_jobs(scale, library),
    }
