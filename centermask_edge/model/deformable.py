"""Deformable convolution with modulation (Zhu et al., 2019) in standard operators.

No compiled extension and no operator of an engine's own: the samples are one ``grid_sample``,
which ONNX has as GridSample. Parity with the official code is not known: it has no CPU form.
Shape legend: B batch, C channels, H W rows and columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from centermask_edge.model.layers import FrozenBatchNorm2d

TAPS = 9  # of a 3x3 convolution


class DeformableConvNorm(nn.Module):
    """3x3 convolution whose taps move and weigh themselves, frozen batch norm, ReLU.

    A plain convolution gives three numbers a tap: in channels 0..17 the shifts (row, then column,
    tap by tap), in 18..26 the logit of the tap's weight.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(in_channels, 3 * TAPS, 3, padding=1)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm: nn.Module = FrozenBatchNorm2d(out_channels)
        nn.init.zeros_(self.offset.weight)  # starts as a plain convolution of half the size
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        channels, height, width = x.shape[1:]
        moves = self.offset(x)
        samples = F.grid_sample(
            x, self._grid(moves, height, width), padding_mode="zeros", align_corners=False
        )
        weights = torch.sigmoid(moves[:, None, 2 * TAPS :])
        taps = samples.reshape(-1, channels, TAPS, height, width) * weights.to(samples.dtype)
        kernel = self.conv.weight.flatten(1)[:, :, None, None]
        out = F.conv2d(taps.reshape(-1, channels * TAPS, height, width), kernel)
        return F.relu(self.norm(out))

    def _grid(self, moves: Tensor, height: int, width: int) -> Tensor:
        """Where the taps look, (B, TAPS * H, W, 2) as grid_sample counts: -1 to 1 over x, y."""
        shifts = moves[:, : 2 * TAPS].reshape(-1, TAPS, 2, height, width)
        tap = torch.arange(TAPS, device=moves.device)
        rows = torch.arange(height, device=moves.device)[:, None] - 1
        columns = torch.arange(width, device=moves.device) - 1
        y = shifts[:, :, 0] + (rows + (tap // 3)[:, None, None])
        x = shifts[:, :, 1] + (columns + (tap % 3)[:, None, None])
        grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=4)
        return grid.reshape(-1, TAPS * height, width, 2)
