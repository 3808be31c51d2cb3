"""Distillation: the student imitates the pyramid features of a trained model.

Both read the same pictures, so every cell of every picture teaches, whether an object is there or
not; a network without ImageNet weights learns from few pictures this way. The heads read the same
pyramid and start as the teacher's. Idea: FitNets (Romero et al., ICLR 2015), at the FPN.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from centermask_edge.config import TrainConfig
from centermask_edge.errors import ConfigError
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask

_HEADS = ("head", "mask_head", "mask_iou_head")
_SHARED = ("classes", "fpn_channels", "head_convs", "mask_convs", "mask_iou_convs", "mask_iou_fc")
_PIXELS = ("channel_order", "mean", "std")


class Teacher:
    """A trained model, frozen.

    Args:
        model: whose P3 to P7 are imitated.
        weight: of its loss.
    """

    def __init__(self, model: CenterMask, weight: float) -> None:
        self.model = model.eval().requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weight = weight

    def loss(self, images: Tensor, pyramid: Sequence[Tensor]) -> Tensor:
        """Mean squared difference of the features, in variances of the teacher's level.

        Args:
            images: float (B, 3, H, W) as the student sees them.
            pyramid: the student's P3 to P7.
        """
        with torch.no_grad():
            wanted = [level.float() for level in self.model.pyramid(images)]
        levels = [
            (found.float() - target).square().mean() / target.var().clamp(min=1e-6)
            for found, target in zip(pyramid, wanted, strict=True)
        ]
        return self.weight * torch.stack(levels).mean()


def open_teacher(student: CenterMask, config: TrainConfig) -> Teacher | None:
    """The configured teacher, if any; the student's heads take its weights.

    Raises:
        ConfigError: the teacher sees pictures otherwise, or has another pyramid or other heads.
        ModelFileError: its checkpoint cannot be read.
    """
    if config.teacher is None:
        return None
    model = checkpoint.load(config.teacher)
    _check(student, model, config)
    for name in _HEADS:
        getattr(student, name).load_state_dict(getattr(model, name).state_dict())
    return Teacher(model, config.teacher_weight)


def _check(student: CenterMask, teacher: CenterMask, config: TrainConfig) -> None:
    ours, theirs = student.config, teacher.config
    differing = [n for n in _SHARED if getattr(ours, n) != getattr(theirs, n)]
    pixels, their_pixels = ours.preprocess, theirs.preprocess
    differing += [n for n in _PIXELS if getattr(pixels, n) != getattr(their_pixels, n)]
    if differing:
        raise ConfigError(
            f"the teacher {config.teacher} ({theirs.name}) differs from {ours.name} in "
            f"{', '.join(differing)}; give a teacher with the same classes, heads and pixel values"
        )
