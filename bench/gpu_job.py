"""What one comparison is, how large the comparisons are, and what they share."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from centermask_edge.backbone import Backbone
from centermask_edge.kernels.library import Library
from centermask_edge.model import kernel_ops

Run = Callable[[], object]
CHANNELS, SIDE = 128, 14  # of the Lite mask branch


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
    """How large the jobs are: in full, or just enough to rehearse.

    Attributes:
        device: of torch.
        image: padded network input, height and width.
        rois: numbers of RoIs for RoIAlign.
        attention: numbers of RoIs for spatial attention.
        compiled: of these, where torch.compile takes part; each compiles for seconds.
        compiler: torch.compile's backend.
        candidates: wanted above the threshold of decoding.
        frames: camera pictures, height and width.
        batches: of them.
        backbones: of whole frames.
    """

    device: str
    image: tuple[int, int] = (608, 800)
    rois: tuple[int, ...] = (1, 10, 50, 200, 1000)
    attention: tuple[int, ...] = (1, 50, 200, 1000, 4000)
    compiled: tuple[int, ...] = (50, 1000)
    compiler: str = "inductor"
    candidates: tuple[int, ...] = (100, 1000, 10_000)
    frames: tuple[tuple[int, int], ...] = ((720, 1280), (1080, 1920), (2160, 3840))
    batches: tuple[int, ...] = (1, 4, 16)
    backbones: tuple[Backbone, ...] = (Backbone.V19, Backbone.V39)


REHEARSAL = Scale(
    device="cpu",
    image=(64, 96),
    rois=(2,),
    attention=(1,),
    compiled=(1,),
    compiler="eager",
    candidates=(20,),
    frames=((48, 64),),
    batches=(1, 2),
    backbones=(Backbone.V19_SLIM_DW,),
)


def _never(x: Tensor) -> bool:
    return False


@contextmanager
def plain_torch() -> Iterator[None]:
    """The network without the kernels, and without gradients.

    By plain assignment: what a mock costs would be timed as torch's.
    """
    before = kernel_ops.usable
    kernel_ops.usable = _never
    try:
        with torch.no_grad():
            yield
    finally:
        kernel_ops.usable = before


def plain(run: Run) -> Run:
    """The run inside :func:`plain_torch`."""

    def with_plain_torch() -> object:
        with plain_torch():
            return run()

    return with_plain_torch


def twice(run: Run) -> dict[str, Run]:
    """The kernel and itself: their difference is the noise."""
    return {"kernel": run, "again": run}


def launch(library: Library, name: str, params: ctypes.Structure, held: Sequence[Any]) -> Run:
    """A call of the C interface on torch's current stream; ``held``: the tensors it points to."""

    def run() -> object:
        on_gpu = held[0].is_cuda
        stream = torch.cuda.current_stream().cuda_stream if on_gpu else 0
        library.call(name, params, stream)
        return held  # the tensors live as long as the run does

    return run


def make_boxes(count: int, image: tuple[int, int], device: str) -> Tensor:
    """Boxes as detections have them: most small, some most of the picture; float32 (R, 4)."""
    random = torch.Generator().manual_seed(count)
    height, width = image
    share = torch.rand(count, 2, generator=random) ** 2 * 0.9 + 0.03
    corner = torch.rand(count, 2, generator=random) * (1 - share)
    span = torch.tensor([width, height])
    return torch.cat((corner * span, (corner + share) * span), dim=1).to(device)
