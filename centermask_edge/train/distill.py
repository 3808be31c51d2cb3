"""Distillation: the student imitates a trained model, in its features and in its class scores.

Both read the same pictures, so every cell of every picture teaches, whether an object is there or
not; a network without ImageNet weights learns from few pictures this way. Heads that fit start as
the teacher's. Ideas: FitNets (Romero et al., ICLR 2015), at the FPN, with a 1x1 convolution where
the widths differ; soft class labels, weighted by how far the student is off (the form of
Generalized Focal Loss, Li et al., NeurIPS 2020, equation 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from centermask_edge.config import TrainConfig
from centermask_edge.errors import ConfigError
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.fcos import DensePredictions

_HEADS = ("head", "mask_head", "mask_iou_head")
_PIXELS = ("channel_order", "mean", "std")


class Teacher:
    """A trained model, frozen.

    Args:
        model: whose P3 to P7 and class scores are imitated.
        weight: of the features' loss.
        classes: weight of the class scores' loss.
        channels: width of the student's pyramid.
    """

    def __init__(
        self, model: CenterMask, weight: float, classes: float = 0.0, channels: int | None = None
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weight, self.classes = weight, classes
        wanted = model.config.fpn_channels
        same = channels is None or channels == wanted
        levels = 0 if same or not weight else 5
        # Learnt with the student and thrown away at the end.
        self.adapters = nn.ModuleList(nn.Conv2d(channels or 0, wanted, 1) for _ in range(levels))

    def losses(
        self, images: Tensor, pyramid: Sequence[Tensor], dense: DensePredictions
    ) -> dict[str, Tensor]:
        """The losses whose weight is not zero.

        Args:
            images: float (B, 3, H, W) as the student sees them.
            pyramid: the student's P3 to P7.
            dense: the student's predictions from them.
        """
        with torch.no_grad():
            features = self.model.pyramid(images)
            logits = self.model.head(features).logits if self.classes else []
        found = {}
        if self.weight:
            found["loss_teacher"] = self.weight * self._missed(features, pyramid)
        if self.classes:
            found["loss_teacher_cls"] = self.classes * _soft_focal(dense.logits, logits)
        return found

    def _missed(self, wanted: Sequence[Tensor], pyramid: Sequence[Tensor]) -> Tensor:
        """Mean squared difference of the features, in variances of the teacher's level."""
        if self.adapters:
            pyramid = [fit(level) for fit, level in zip(self.adapters, pyramid, strict=True)]
        levels = [
            (found.float() - target.float()).square().mean() / target.float().var().clamp(min=1e-6)
            for found, target in zip(pyramid, wanted, strict=True)
        ]
        return torch.stack(levels).mean()


def _soft_focal(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Binary cross entropy to the teacher's probabilities, times the squared distance from them;
    summed, in units of the teacher's summed probability.
    """
    total, mass = [], []
    for student, teacher in zip(found, wanted, strict=True):
        logits, target = student.float(), teacher.float().sigmoid()
        off = (logits.sigmoid() - target).square()
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        total.append((off * entropy).sum())
        mass.append(target.sum())
    return torch.stack(total).sum() / torch.stack(mass).sum().clamp(min=1)


def open_teacher(student: CenterMask, config: TrainConfig) -> Teacher | None:
    """The configured teacher, if any; heads of the student that fit take its weights.

    Raises:
        ConfigError: the teacher knows other classes or sees other pixel values.
        ModelFileError: its checkpoint cannot be read.
    """
    if config.teacher is None:
        return None
    model = checkpoint.load(config.teacher)
    _check(student, model, config)
    for name in _HEADS:
        ours, theirs = getattr(student, name), getattr(model, name)
        if ours is None or theirs is None:  # without mask scoring
            continue
        state = theirs.state_dict()
        shapes = {k: v.shape for k, v in ours.state_dict().items()}
        if shapes == {k: v.shape for k, v in state.items()}:
            ours.load_state_dict(state)
    channels = student.config.fpn_channels
    return Teacher(model, config.teacher_weight, config.teacher_classes, channels)


def _check(student: CenterMask, teacher: CenterMask, config: TrainConfig) -> None:
    ours, theirs = student.config, teacher.config
    differing = ["classes"] if ours.classes != theirs.classes else []
    pixels, their_pixels = ours.preprocess, theirs.preprocess
    differing += [n for n in _PIXELS if getattr(pixels, n) != getattr(their_pixels, n)]
    if differing:
        raise ConfigError(
            f"the teacher {config.teacher} ({theirs.name}) differs from {ours.name} in "
            f"{', '.join(differing)}; give a teacher with the same classes and pixel values"
        )
