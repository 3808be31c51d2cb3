"""HRNetV2-W18, -W32 and -W48: branches of four resolutions that stay apart (Wang et al., 2019).

The published HRNet detectors concatenate the branches; here those of strides 8, 16 and 32 go into
the same FPN as every other body's. Shape legend: B batch, C channels, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from centermask_edge.backbone import Backbone
from centermask_edge.model.layers import ConvNorm

WIDTHS = {Backbone.HRNET_W18: 18, Backbone.HRNET_W32: 32, Backbone.HRNET_W48: 48}
_STEM = 64
_BLOCKS = 4  # of every branch of a module, and of the first stage
_MODULES = (1, 4, 3)  # of the stages with two, three and four branches


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; the sum with the input is rectified."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3, activation=nn.ReLU())
        self.conv2 = ConvNorm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return F.relu(self.conv2(self.conv1(x)) + x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the width; the sum with the input is rectified."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        relu = nn.ReLU()
        self.shortcut = None if in_channels == 4 * width else ConvNorm(in_channels, 4 * width, 1)
        self.conv1 = ConvNorm(in_channels, width, 1, activation=relu)
        self.conv2 = ConvNorm(width, width, 3, activation=relu)
        self.conv3 = ConvNorm(width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, 4 * width, H, W)."""
        out = self.conv3(self.conv2(self.conv1(x)))
        return F.relu(out + (x if self.shortcut is None else self.shortcut(x)))


def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """From one branch to the size and width of another; only the last of a chain is linear."""
    if source == target:
        return nn.Identity()
    if source > target:  # to be enlarged
        return ConvNorm(widths[source], widths[target], 1)
    chain = [
        ConvNorm(widths[source], widths[source], 3, stride=2, activation=nn.ReLU())
        for _ in range(target - source - 1)
    ]
    return nn.Sequential(*chain, ConvNorm(widths[source], widths[target], 3, stride=2))


class FusionModule(nn.Module):
    """Blocks on each branch, then every branch becomes the sum of all."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(_BLOCKS))) for width in widths
        )
        everyone = range(len(widths))
        self.paths = nn.ModuleList(
            nn.ModuleList(_path(widths, source, target) for source in everyone)
            for target in everyone
        )

    def forward(self, branches: Sequence[Tensor]) -> list[Tensor]:
        """Map branches of falling resolution to the same shapes."""
        found = [run(x) for run, x in zip(self.branches, branches, strict=True)]
        fused = []
        for target, paths in enumerate(self.paths):
            assert isinstance(paths, nn.ModuleList)
            total: Tensor | None = None
            for source, (path, x) in enumerate(zip(paths, found, strict=True)):
                term = path(x)
                if source > target:
                    scale = float(2 ** (source - target))
                    term = F.interpolate(term, scale_factor=scale, mode="nearest")
                total = term if total is None else total + term
            assert total is not None
            fused.append(F.relu(total))
        return fused


class HRNet(nn.Module):
    """HRNetV2 with branches of strides 4, 8, 16 and 32; the last three are its features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        relu = nn.ReLU()
        self.stem = nn.Sequential(
            ConvNorm(3, _STEM, 3, stride=2, activation=relu),
            ConvNorm(_STEM, _STEM, 3, stride=2, activation=relu),
        )
        first = [Bottleneck(_STEM if i == 0 else 4 * _STEM, _STEM) for i in range(_BLOCKS)]
        self.first = nn.Sequential(*first)
        widths = [width * 2**i for i in range(4)]
        # The first stage's one branch splits in two; later ones grow from the lowest.
        self.entries = nn.ModuleList(
            [
                ConvNorm(4 * _STEM, widths[0], 3, activation=relu),
                ConvNorm(4 * _STEM, widths[1], 3, stride=2, activation=relu),
                ConvNorm(widths[1], widths[2], 3, stride=2, activation=relu),
                ConvNorm(widths[2], widths[3], 3, stride=2, activation=relu),
            ]
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(FusionModule(widths[: number + 2]) for _ in range(modules))
            for number, modules in enumerate(_MODULES)
        )
        self.out_channels = tuple(widths[1:])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of strides 8, 16 and 32 from float (B, 3, H, W); H, W multiples of 32."""
        x = self.first(self.stem(x))
        branches = [self.entries[0](x)]
        lowest = x
        for entry, stage in zip(list(self.entries)[1:], self.stages, strict=True):
            branches.append(entry(lowest))
            assert isinstance(stage, nn.ModuleList)
            for module in stage:
                branches = module(branches)
            lowest = branches[-1]
        return branches[1:]

    def freezable(self) -> list[nn.Module]:
        """Parts in their order, for training with the first ones fixed."""
        grown = [nn.ModuleList([e, s]) for e, s in zip(self.entries[1:], self.stages, strict=True)]
        return [self.stem, nn.ModuleList([self.first, self.entries[0]]), *grown]
