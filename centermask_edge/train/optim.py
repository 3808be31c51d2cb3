"""Optimiser, learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from centermask_edge.config import TrainConfig
from centermask_edge.model.layers import LearnedBatchNorm2d
from centermask_edge.train.fake_quant import ActivationQuantizer

REFERENCE_BATCH = 16  # the batch that base_lr is stated for


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then steps of x0.1 or a cosine.

    >>> round(learning_rate(TrainConfig(steps=100, warmup_steps=0, batch_size=8), 0), 6)
    0.005
    """
    lr = config.base_lr * config.batch_size / REFERENCE_BATCH
    if step < config.warmup_steps:
        alpha = step / config.warmup_steps
        return lr * (config.warmup_factor * (1 - alpha) + alpha)
    if config.schedule == "cosine":
        span = max(config.steps - config.warmup_steps, 1)
        return lr * 0.5 * (1 + math.cos(math.pi * min((step - config.warmup_steps) / span, 1)))
    passed = sum(step >= milestone * config.steps for milestone in config.milestones)
    return float(lr * 0.1**passed)


def make_optimizer(
    model: nn.Module, config: TrainConfig, beside: nn.Module | None = None
) -> torch.optim.Optimizer:
    """SGD with momentum (the paper's recipe) or AdamW; no weight decay on norms and ranges.

    Each parameter group carries ``lr_factor``, by which the schedule is multiplied.

    Args:
        model: the network.
        config: the run.
        beside: what is learnt with it and is no part of it.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    norm = _parameters_of(model, nn.GroupNorm, LearnedBatchNorm2d)
    ranges = _parameters_of(model, ActivationQuantizer)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = config.backbone_lr_factor if name.startswith("backbone.") else 1.0
        if id(parameter) in ranges:
            factor = config.range_lr_factor
        decay = 0.0 if id(parameter) in norm | ranges else config.weight_decay
        groups.setdefault((factor, decay), []).append(parameter)
    if beside is not None and len(extra := list(beside.parameters())):
        groups.setdefault((1.0, config.weight_decay), []).extend(extra)
    described = [
        {"params": params, "weight_decay": decay, "lr_factor": factor}
        for (factor, decay), params in groups.items()
    ]
    lr = learning_rate(config, 0)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(described, lr=lr)
    return torch.optim.SGD(described, lr=lr, momentum=config.momentum)


def _parameters_of(model: nn.Module, *kinds: type[nn.Module]) -> set[int]:
    return {id(p) for m in model.modules() if isinstance(m, kinds) for p in m.parameters()}


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group ``lr`` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


class Ema:
    """Exponential moving average of the parameters, with a short memory at the start.

    The statistics of learned batch norms belong to the weights and are averaged with them.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.shadow = {k: v.detach().clone() for k, v in self._averaged(model)}

    @staticmethod
    def _averaged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        yield from model.named_parameters()
        for name, module in model.named_modules():
            if isinstance(module, LearnedBatchNorm2d):
                yield from module.named_buffers(name)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self._averaged(model):
            self.shadow[name].lerp_(value.detach(), 1 - decay)

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """A full state dict with averaged parameters and the model's own buffers."""
        return {**model.state_dict(), **self.shadow}
