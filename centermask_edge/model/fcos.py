"""FCOS head, shared over the pyramid levels (FCOS sections 3.1-3.3; Tian et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class DensePredictions:
    """What the head says at every cell, one entry per level P3..P7.

    logits: float (B, classes, H_l, W_l); reg: float (B, 4, H_l, W_l) distances left, top, right,
    bottom in strides, >= 0; centerness: float (B, 1, H_l, W_l) logits.
    """

    logits: list[Tensor]
    reg: list[Tensor]
    centerness: list[Tensor]


class ConvGroupNorm(nn.Module):
    """3x3 convolution with bias, group norm of 32 groups, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return F.relu(self.norm(self.conv(x)))


class FCOSHead(nn.Module):
    """Two towers; classification from one, box distances and centre-ness from the other.

    Box distances are ``relu(scale_l * x)`` in strides, or, where ``exponential``, as in the first
    release ``exp(scale_l * x)`` in pixels, here divided by the stride, which is exact.
    """

    def __init__(
        self, channels: int, convs: int, num_classes: int, *, exponential: bool = False
    ) -> None:
        super().__init__()
        self.exponential = exponential
        self.cls_tower = nn.Sequential(*(ConvGroupNorm(channels) for _ in range(convs)))
        self.box_tower = nn.Sequential(*(ConvGroupNorm(channels) for _ in range(convs)))
        self.cls_logits = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.box_pred = nn.Conv2d(channels, 4, 3, padding=1)
        self.centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.ParameterList(torch.ones(1) for _ in STRIDES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        assert self.cls_logits.bias is not None
        nn.init.constant_(self.cls_logits.bias, -math.log(99.0))  # prior probability 0.01

    def forward(self, pyramid: Sequence[Tensor]) -> DensePredictions:
        """Dense predictions from P3..P7, each (B, channels, H_l, W_l)."""
        logits, reg, centerness = [], [], []
        for feature, scale, stride in zip(pyramid, self.scales, STRIDES, strict=True):
            box = self.box_tower(feature)
            logits.append(self.cls_logits(self.cls_tower(feature)))
            raw = self.box_pred(box) * scale
            reg.append(torch.exp(raw) / stride if self.exponential else F.relu(raw))
            centerness.append(self.centerness(box))
        return DensePredictions(logits, reg, centerness)


def level_locations(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Centres of the cells of one level, row by row: float32 (H * W, 2) x, y in input pixels."""
    xs = torch.arange(width, device=device, dtype=torch.float32) * stride + stride // 2
    ys = torch.arange(height, device=device, dtype=torch.float32) * stride + stride // 2
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack((x.reshape(-1), y.reshape(-1)), dim=1)
