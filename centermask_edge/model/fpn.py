"""Feature pyramid P3 to P7 (FPN, Lin et al. 2017; P6 and P7 as in FCOS section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Lateral 1x1, nearest top-down sums, output 3x3; P6 from P5, P7 from relu(P6). No norm."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels
        )
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        for conv in (*self.lateral, *self.output, self.p6, self.p7):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """P3..P7, each (B, channels, H / 2^l, W / 2^l), from features of strides 8, 16, 32."""
        sums: list[Tensor] = []
        for feature, lateral in zip(reversed(features), reversed(self.lateral), strict=True):
            current = lateral(feature)
            if sums:
                current = current + F.interpolate(sums[-1], scale_factor=2.0, mode="nearest")
            sums.append(current)
        sums.reverse()
        pyramid = [conv(x) for conv, x in zip(self.output, sums, strict=True)]
        p6 = self.p6(pyramid[-1])
        return [*pyramid, p6, self.p7(F.relu(p6))]
