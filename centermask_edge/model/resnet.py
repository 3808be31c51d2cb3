"""ResNet-50 and -101, and ResNeXt-101-32x8d (He et al., 2016; Xie et al., 2017).

The official networks start from two lines of ImageNet weights: the ResNets stride in the 1x1
convolution, as the first Caffe models did, the ResNeXt in the 3x3. Shape legend: B batch,
C channels, H W rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from centermask_edge.backbone import Backbone
from centermask_edge.model.layers import ConvNorm

STEM = 64


@dataclass(frozen=True, slots=True)
class ResNetSpec:
    """Depths of the four stages, groups of the 3x3 convolution and channels of one in stage 2."""

    blocks: tuple[int, int, int, int]
    groups: int = 1
    group_channels: int = 64
    stride_in_first: bool = True


SPECS: dict[Backbone, ResNetSpec] = {
    Backbone.R50: ResNetSpec((3, 4, 6, 3)),
    Backbone.R101: ResNetSpec((3, 4, 23, 3)),
    Backbone.X101: ResNetSpec((3, 4, 23, 3), 32, 8, stride_in_first=False),
}


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, each with its norm; the sum with the input is rectified."""

    def __init__(
        self, in_channels: int, width: int, out_channels: int, stride: int, spec: ResNetSpec
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if spec.stride_in_first else (1, stride)
        relu = nn.ReLU()
        self.shortcut: ConvNorm | None = None
        if in_channels != out_channels:
            self.shortcut = ConvNorm(in_channels, out_channels, 1, stride=stride)
        self.conv1 = ConvNorm(in_channels, width, 1, stride=first, activation=relu)
        self.conv2 = ConvNorm(width, width, 3, stride=second, groups=spec.groups, activation=relu)
        self.conv3 = ConvNorm(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        out = self.conv3(self.conv2(self.conv1(x)))
        return F.relu(out + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """A ResNet up to stride 32: stem of stride 4, stages 2 to 5 of strides 4, 8, 16, 32."""

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM, 7, stride=2, activation=nn.ReLU())
        width, out_channels, current = spec.groups * spec.group_channels, 256, STEM
        stages: list[nn.Module] = []
        for number, blocks in enumerate(spec.blocks):
            stage: list[nn.Module] = []
            for index in range(blocks):
                stride = 2 if number > 0 and index == 0 else 1
                stage.append(Bottleneck(current, width, out_channels, stride, spec))
                current = out_channels
            stages.append(nn.Sequential(*stage))
            width, out_channels = 2 * width, 2 * out_channels
        self.stages = nn.ModuleList(stages)
        self.out_channels = (512, 1024, 2048)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of strides 8, 16 and 32 from float (B, 3, H, W); H, W multiples of 32."""
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[1:]

    def freezable(self) -> list[nn.Module]:
        """Stem and stages, shallowest first, for training with the first ones fixed."""
        return [self.stem, *self.stages]
