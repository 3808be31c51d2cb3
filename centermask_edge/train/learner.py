"""What one process computes in a step: the network with its losses, and the step itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from centermask_edge.config import TrainConfig
from centermask_edge.errors import ConfigError
from centermask_edge.model.centermask import CenterMask
from centermask_edge.train.batches import Batch
from centermask_edge.train.distill import Teacher
from centermask_edge.train.objective import (
    Normalisers,
    Objects,
    step_normalisers,
    training_losses,
)
from centermask_edge.train.optim import learning_rate, set_learning_rate
from centermask_edge.train.ranks import Ranks, told_by_peers

if TYPE_CHECKING:
    from centermask_edge.train.run import Run


class Learner(nn.Module):
    """The network and what is learnt beside it, as one module that gives losses.

    Args:
        model: in training.
        config: the run.
        teacher: who is imitated, if anyone; its own weights are no part of this module.
    """

    def __init__(self, model: CenterMask, config: TrainConfig, teacher: Teacher | None) -> None:
        super().__init__()
        self.model = model
        self.adapters = teacher.adapters if teacher is not None else nn.ModuleList()
        self.config = config
        self.teacher = teacher

    def forward(
        self,
        images: Tensor,
        image_sizes: Sequence[tuple[int, int]],
        objects: Sequence[Objects],
        seeds: Sequence[int],
        normalisers: Normalisers | None,
    ) -> dict[str, Tensor]:
        """The losses of a batch; see ``training_losses``."""
        return training_losses(
            self.model,
            images,
            image_sizes,
            objects,
            proposals=self.config.train_proposals,
            rois_per_image=self.config.rois_per_image,
            seeds=seeds,
            teacher=self.teacher,
            assigner=self.config.assigner,
            normalisers=normalisers,
        )


def shared(learner: Learner, ranks: Ranks) -> nn.Module:
    """The learner, with gradients averaged over all processes where there are several."""
    if ranks.world == 1:
        return learner
    with told_by_peers(ranks.world):
        return DistributedDataParallel(learner)


def make_scaler(config: TrainConfig, device: torch.device) -> torch.amp.GradScaler:
    """The scaler of the loss: at work with fp16 only, which has too few small numbers without.

    Raises:
        ConfigError: fp16 on a CPU.
    """
    if config.fp16 and device.type != "cuda":
        raise ConfigError("fp16 training needs a CUDA device; on a CPU use bf16 instead")
    return torch.amp.GradScaler(device.type, enabled=config.fp16)


def _autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    if not (config.bf16 or config.fp16):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if config.bf16 else torch.float16)


def _backward(run: Run, part: Batch, normalisers: Normalisers | None) -> dict[str, Tensor]:
    """Gradients of one part of the step; its losses, already divided by the number of parts."""
    device, parts = run.ranks.device, run.config.accumulate
    with _autocast(run.config, device):
        losses = run.learner(
            part.images.contiguous(memory_format=torch.channels_last),
            part.image_sizes,
            part.objects,
            part.seeds,
            normalisers,
        )
    losses = {name: value / parts for name, value in losses.items()}
    total = torch.stack([v.float() for v in losses.values()]).sum()
    run.scaler.scale(total).backward()
    return {name: value.detach() for name, value in losses.items()}


def train_step(run: Run, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """Forward and backward of every part, one update; the losses and the gradient norm.

    The detector's losses are those of the undivided batch exactly, for their normalisers are
    computed beforehand; the mask losses are means over the parts, as they are over processes.
    """
    config = run.config
    batch = batch.to(run.ranks.device)
    parts = batch.split(config.accumulate)
    normalisers = None
    if len(parts) > 1:
        classes = run.model.config.num_classes
        normalisers = step_normalisers(
            batch.images, batch.objects, classes, config.assigner, len(parts)
        )
    run.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(parts, start=1):
        waits = number < len(parts)
        with _alone(run.learner, waits), told_by_peers(run.ranks.world):
            for name, value in _backward(run, part, normalisers).items():
                sums[name] = sums[name] + value if name in sums else value
    return sums, _update(run)


def _alone(learner: nn.Module, waits: bool) -> AbstractContextManager[Any]:
    """Gradients of all parts but the last stay in the process."""
    if waits and isinstance(learner, DistributedDataParallel):
        return learner.no_sync()
    return nullcontext()


def _update(run: Run) -> Tensor:
    """Clip, step, average; the gradient norm. A step that is not finite changes nothing."""
    run.scaler.unscale_(run.optimizer)
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, run.config.clip_norm or math.inf)
    set_learning_rate(run.optimizer, learning_rate(run.config, run.step))
    finite = bool(torch.isfinite(norm))
    if finite or run.scaler.is_enabled():
        run.scaler.step(run.optimizer)  # leaves out what is not finite, and then scales by less
        run.scaler.update()
    if finite and run.ema is not None:
        run.ema.update(run.model)
    return norm
