"""What several tests share: formulas in plain numpy, and networks with statistics worth a test."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from centermask_edge.model.layers import FrozenBatchNorm2d

Doubles = NDArray[np.float64]


def sigmoid(x: Doubles) -> Doubles:
    return np.asarray(1 / (1 + np.exp(-x)))


def giou_loss(a: Doubles, b: Doubles) -> float:
    """GIoU loss of two boxes of distances, by their corners."""
    ax, bx = (-a[0], -a[1], a[2], a[3]), (-b[0], -b[1], b[2], b[3])

    def area(x: tuple[float, ...]) -> float:
        return (x[2] - x[0]) * (x[3] - x[1])

    inner = (max(ax[0], bx[0]), max(ax[1], bx[1]), min(ax[2], bx[2]), min(ax[3], bx[3]))
    outer = (min(ax[0], bx[0]), min(ax[1], bx[1]), max(ax[2], bx[2]), max(ax[3], bx[3]))
    union = area(ax) + area(bx) - area(inner)
    return 1 - ((area(inner) + 1) / (union + 1) - (area(outer) - union) / area(outer))


def shake(module: torch.nn.Module) -> None:
    """Random statistics in every frozen norm of a module."""
    for norm in module.modules():
        if isinstance(norm, FrozenBatchNorm2d):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.2, 2.0)
