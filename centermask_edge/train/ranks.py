"""The processes of one training: who this one is, and what they tell each other.

    torchrun --nproc-per-node 2 -m centermask_edge train ...

torchrun sets ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``; without them there is one process and
nothing here communicates. Rank 0 alone writes files and shows progress.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from centermask_edge.errors import CenterMaskError, ConfigError

# Others wait while rank 0 evaluates or writes.
_PATIENCE = timedelta(hours=2)


class PeerError(CenterMaskError):
    """Another process of the same training ended with an error, which it told itself."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of the training.

    Attributes:
        rank: its number.
        world: how many there are.
        device: where it computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def largest(self, values: list[float]) -> list[float]:
        """The largest of each value over all processes.

        Raises:
            PeerError: another process is gone.
        """
        return self._reduced(values, dist.ReduceOp.MAX) if self.world > 1 else values

    def mean(self, values: list[float]) -> list[float]:
        """The mean of each value over all processes.

        Raises:
            PeerError: another process is gone.
        """
        if self.world == 1:
            return values
        return [v / self.world for v in self._reduced(values, dist.ReduceOp.SUM)]

    def _reduced(self, values: list[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        with told_by_peers(self.world):
            tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
            dist.all_reduce(tensor, how)
            found: list[float] = tensor.tolist()
        return found


@contextmanager
def told_by_peers(world: int) -> Iterator[None]:
    """Turns what a broken connection raises into one line that points to the other process."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        broken = any(word in text for word in ("connection", "gloo", "nccl", "peer", "socket"))
        if world == 1 or not broken:
            raise
        raise PeerError(
            "another process of this training ended; its own message says why"
        ) from None


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a detached value over all processes, for the normalisers of losses."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value


def chosen_device(wanted: Literal["auto", "cpu", "cuda"], local_rank: int = 0) -> torch.device:
    """Where to compute; ``auto`` is the GPU if torch sees one.

    Raises:
        ConfigError: cuda is wanted and torch sees no GPU.
    """
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise ConfigError("device cuda: torch sees no CUDA device; use --device cpu or auto")
    if wanted == "cpu" or not found:
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


@contextmanager
def joined(wanted: Literal["auto", "cpu", "cuda"]) -> Iterator[Ranks]:
    """This process as one of torchrun's, or alone; leaves the group at the end.

    Raises:
        ConfigError: no such device, or the variables of torchrun are incomplete.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = chosen_device(wanted, int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1:
        yield Ranks(device=device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"WORLD_SIZE is {world} but the processes do not meet "
            f"({str(error).splitlines()[0][:120]}); start with torchrun, or unset it"
        ) from None
    try:
        yield Ranks(dist.get_rank(), world, device)
    finally:
        dist.destroy_process_group()
