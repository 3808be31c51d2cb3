"""Spatial attention-guided mask head (SAG-Mask) and mask-IoU head.

Sources: CenterMask section 3.2, equations 3 and 4; Mask Scoring R-CNN section 3 for the IoU head.
Shape legend: R RoIs, C channels, M mask side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from centermask_edge.model import kernel_ops


def _msra(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class SpatialAttention(nn.Module):
    """SAM: ``x * sigmoid(conv3x3([mean over C, max over C]))`` (CenterMask equations 3-4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh every position of (R, C, H, W)."""
        if kernel_ops.usable(x):
            return torch.ops.centermask.spatial_attention(x, self.conv.weight)  # type: ignore[no-any-return]
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        return x * torch.sigmoid(self.conv(pooled))


class MaskHead(nn.Module):
    """Convolutions, spatial attention if any, deconvolution to 28 x 28, one map per class."""

    def __init__(
        self, channels: int, convs: int, num_classes: int, *, attention: bool = True
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(convs)
        )
        self.attention = SpatialAttention() if attention else None
        self.deconv = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.predictor = nn.Conv2d(channels, num_classes, 1)
        self.apply(_msra)
        nn.init.normal_(self.predictor.weight, std=0.001)

    def attended(self, x: Tensor) -> Tensor:
        """The features (R, C, 14, 14) after convolutions and attention."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return x if self.attention is None else self.attention(x)

    def forward(self, x: Tensor) -> Tensor:
        """Mask logits (R, classes, 28, 28) from RoI features (R, C, 14, 14)."""
        return self.predictor(F.relu(self.deconv(self.attended(x))))  # type: ignore[no-any-return]


class MaskIoUHead(nn.Module):
    """Predicts, per class, the IoU of the mask with the truth from RoI features and the mask.

    The output is a plain linear layer: it may be negative or above one.
    """

    def __init__(self, channels: int, convs: int, fc: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(
                channels + (index == 0),
                channels,
                3,
                stride=2 if index == convs - 1 else 1,
                padding=1,
            )
            for index in range(convs)
        )
        self.fc1 = nn.Linear(channels * 7 * 7, fc)
        self.fc2 = nn.Linear(fc, fc)
        self.predictor = nn.Linear(fc, num_classes)
        self.apply(_msra)
        for linear in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(linear.weight, mode="fan_in", nonlinearity="relu")
            nn.init.zeros_(linear.bias)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, features: Tensor, probability: Tensor) -> Tensor:
        """IoU per class, float (R, classes).

        Args:
            features: RoIAlign output (R, C, 14, 14), before the mask head's convolutions.
            probability: mask probabilities of one class (R, 1, 28, 28).
        """
        x = torch.cat((features, F.max_pool2d(probability, 2, 2)), dim=1)
        for conv in self.convs:
            x = F.relu(conv(x))
        x = F.relu(self.fc1(x.flatten(1)))
        return self.predictor(F.relu(self.fc2(x)))  # type: ignore[no-any-return]
