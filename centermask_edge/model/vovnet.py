"""VoVNetV2: one-shot aggregation blocks with residual and eSE (CenterMask section 2.5, figure 3).

Without both it is VoVNetV1; with SE in the place of eSE, a row of CenterMask table 4.

Shape legend: B batch, C channels, H W rows and columns of the input picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from centermask_edge.backbone import Backbone
from centermask_edge.model.deformable import DeformableConvNorm
from centermask_edge.model.layers import ConvNorm, SeparableConvNorm
from centermask_edge.switches import ChannelAttention


@dataclass(frozen=True, slots=True)
class VoVNetSpec:
    """Widths and depths of one VoVNetV2; one entry per stage 2..5."""

    stem: tuple[int, int, int]
    layer_channels: tuple[int, int, int, int]
    out_channels: tuple[int, int, int, int]
    layers: int
    blocks: tuple[int, int, int, int]
    separable: bool = False
    deformable: bool = False  # the 3x3 layers of stages 3 to 5


_SLIM = ((64, 80, 96, 112), (112, 256, 384, 512))
_BASE = ((128, 160, 192, 224), (256, 512, 768, 1024))
_ONE = (1, 1, 1, 1)

SPECS: dict[Backbone, VoVNetSpec] = {
    Backbone.V19_SLIM_DW: VoVNetSpec((64, 64, 64), *_SLIM, 3, _ONE, separable=True),
    Backbone.V19_DW: VoVNetSpec((64, 64, 64), *_BASE, 3, _ONE, separable=True),
    Backbone.V19_SLIM: VoVNetSpec((64, 64, 128), *_SLIM, 3, _ONE),
    Backbone.V19: VoVNetSpec((64, 64, 128), *_BASE, 3, _ONE),
    Backbone.V39: VoVNetSpec((64, 64, 128), *_BASE, 5, (1, 1, 2, 2)),
    Backbone.V57: VoVNetSpec((64, 64, 128), *_BASE, 5, (1, 1, 4, 3)),
    Backbone.V99: VoVNetSpec((64, 64, 128), *_BASE, 5, (1, 3, 9, 3)),
    Backbone.V39_DCN: VoVNetSpec((64, 64, 128), *_BASE, 5, (1, 1, 2, 2), deformable=True),
    Backbone.V57_DCN: VoVNetSpec((64, 64, 128), *_BASE, 5, (1, 1, 4, 3), deformable=True),
    Backbone.V99_DCN: VoVNetSpec((64, 64, 128), *_BASE, 5, (1, 3, 9, 3), deformable=True),
}
_SE_REDUCTION = 4  # the parameters of CenterMask table 4 tell it


class EffectiveSE(nn.Module):
    """Channel attention with one full-width layer (eSE, CenterMask equation 5).

    The gate is the hard sigmoid ``relu6(z + 3) / 6`` of the official networks; the paper writes a
    plain sigmoid.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel of (B, C, H, W) by its gate."""
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class SqueezeExcite(nn.Module):
    """Channel attention with two layers over a fourth of the width (SE, Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // _SE_REDUCTION, 1)
        self.expand = nn.Conv2d(channels // _SE_REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel of (B, C, H, W) by its gate."""
        squeezed = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(squeezed))


def _layer(width: int, channels: int, separable: bool, deformable: bool) -> nn.Module:
    """One 3x3 layer of a block."""
    if separable:
        return SeparableConvNorm(width, channels)
    if deformable:
        return DeformableConvNorm(width, channels)
    return ConvNorm(width, channels, 3, activation=nn.ReLU())


class OSABlock(nn.Module):
    """A chain of 3x3 layers whose outputs, and the block's input, are aggregated once."""

    def __init__(
        self,
        in_channels: int,
        layer_channels: int,
        out_channels: int,
        layers: int,
        *,
        separable: bool = False,
        residual: bool,
        deformable: bool = False,
        attention: ChannelAttention = ChannelAttention.ESE,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.reduction: ConvNorm | None = None
        width = in_channels
        if separable and in_channels != layer_channels:
            self.reduction = ConvNorm(in_channels, layer_channels, 1, activation=nn.ReLU())
            width = layer_channels
        chain: list[nn.Module] = []
        for _ in range(layers):
            chain.append(_layer(width, layer_channels, separable, deformable))
            width = layer_channels
        self.layers = nn.ModuleList(chain)
        self.concat = ConvNorm(
            in_channels + layers * layer_channels, out_channels, 1, activation=nn.ReLU()
        )
        self.ese = EffectiveSE(out_channels) if attention is ChannelAttention.ESE else None
        self.se = SqueezeExcite(out_channels) if attention is ChannelAttention.SE else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        outputs = [x]
        current = x if self.reduction is None else self.reduction(x)
        for layer in self.layers:
            current = layer(current)
            outputs.append(current)
        out: Tensor = self.concat(torch.cat(outputs, dim=1))
        for attention in (self.ese, self.se):
            out = out if attention is None else attention(out)
        return out + x if self.residual else out


class VoVNet(nn.Module):
    """VoVNet up to stride 32. Stage 1 is the stem; stages 2 to 5 have strides 4, 8, 16, 32."""

    def __init__(
        self,
        spec: VoVNetSpec,
        attention: ChannelAttention = ChannelAttention.ESE,
        residual: bool = True,
    ) -> None:
        super().__init__()
        first, second, third = spec.stem
        relu = nn.ReLU()
        if spec.separable:
            stem: list[nn.Module] = [
                ConvNorm(3, first, 3, stride=2, activation=relu),
                SeparableConvNorm(first, second),
                SeparableConvNorm(second, third, stride=2),
            ]
        else:
            stem = [
                ConvNorm(3, first, 3, stride=2, activation=relu),
                ConvNorm(first, second, 3, activation=relu),
                ConvNorm(second, third, 3, stride=2, activation=relu),
            ]
        self.stem = nn.Sequential(*stem)
        stages: list[nn.Module] = []
        width = third
        for number, (layer_ch, out_ch, blocks) in enumerate(
            zip(spec.layer_channels, spec.out_channels, spec.blocks, strict=True)
        ):
            stage: list[nn.Module] = []
            for index in range(blocks):
                stage.append(
                    OSABlock(
                        width,
                        layer_ch,
                        out_ch,
                        spec.layers,
                        separable=spec.separable,
                        residual=residual and index > 0,
                        deformable=spec.deformable and number > 0,
                        attention=attention,
                    )
                )
                width = out_ch
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.out_channels = spec.out_channels[1:]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of strides 8, 16 and 32 from float (B, 3, H, W); H, W multiples of 32."""
        x = self.stem(x)
        features = []
        for index, stage in enumerate(self.stages):
            if index > 0:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            x = stage(x)
            features.append(x)
        return features[1:]

    def freezable(self) -> list[nn.Module]:
        """Stem and stages, shallowest first, for training with the first ones fixed."""
        return [self.stem, *self.stages]
