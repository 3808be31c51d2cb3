"""Inverted-residual backbones: MobileNetV2 (1.0x) and EfficientNet-Lite0 to -Lite2.

Sources: MobileNetV2 table 2 (Sandler et al., 2018); EfficientNet table 1 (Tan and Le, 2019) with
the Lite changes: no squeeze-and-excitation, ReLU6, width of the stem and depths of the first and
last stage not scaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from centermask_edge.backbone import Backbone
from centermask_edge.model.layers import ConvNorm


@dataclass(frozen=True, slots=True)
class MobileStage:
    """One row of the architecture table: ``repeats`` blocks, the first with ``stride``."""

    expand: int
    channels: int
    repeats: int
    stride: int
    kernel: int = 3


@dataclass(frozen=True, slots=True)
class MobileSpec:
    """A whole backbone; ``outputs`` are the stages whose last block gives strides 8, 16, 32."""

    stages: tuple[MobileStage, ...]
    outputs: tuple[int, int, int]
    eps: float
    same_padding: bool


MOBILENET_V2 = MobileSpec(
    stages=(
        MobileStage(1, 16, 1, 1),
        MobileStage(6, 24, 2, 2),
        MobileStage(6, 32, 3, 2),
        MobileStage(6, 64, 4, 2),
        MobileStage(6, 96, 3, 1),
        MobileStage(6, 160, 3, 2),
        MobileStage(6, 320, 1, 1),
    ),
    outputs=(2, 4, 6),
    eps=1e-5,
    same_padding=False,
)

EFFICIENTNET_LITE0 = MobileSpec(
    stages=(
        MobileStage(1, 16, 1, 1),
        MobileStage(6, 24, 2, 2),
        MobileStage(6, 40, 2, 2, kernel=5),
        MobileStage(6, 80, 3, 2),
        MobileStage(6, 112, 3, 1, kernel=5),
        MobileStage(6, 192, 4, 2, kernel=5),
        MobileStage(6, 320, 1, 1),
    ),
    outputs=(2, 4, 6),
    eps=1e-3,
    same_padding=True,
)


def scaled(spec: MobileSpec, width: float, depth: float) -> MobileSpec:
    """A wider and deeper EfficientNet-Lite; channels are rounded to multiples of 8.

    >>> [s.channels for s in scaled(EFFICIENTNET_LITE0, 1.1, 1.2).stages]
    [16, 24, 48, 88, 120, 208, 352]
    """

    def channels(wanted: float) -> int:
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    last = len(spec.stages) - 1
    return replace(
        spec,
        stages=tuple(
            replace(
                stage,
                channels=channels(width * stage.channels),
                repeats=stage.repeats if i in (0, last) else math.ceil(depth * stage.repeats),
            )
            for i, stage in enumerate(spec.stages)
        ),
    )


SPECS: dict[Backbone, MobileSpec] = {
    Backbone.MOBILENET_V2: MOBILENET_V2,
    Backbone.EFFICIENTNET_LITE0: EFFICIENTNET_LITE0,
    Backbone.EFFICIENTNET_LITE1: scaled(EFFICIENTNET_LITE0, 1.0, 1.1),
    Backbone.EFFICIENTNET_LITE2: scaled(EFFICIENTNET_LITE0, 1.1, 1.2),
}


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1 without activation; added to the input where it fits."""

    def __init__(self, in_channels: int, stage: MobileStage, stride: int, spec: MobileSpec) -> None:
        super().__init__()
        hidden = in_channels * stage.expand
        act = nn.ReLU6()
        self.expand: ConvNorm | None = None
        if stage.expand != 1:
            self.expand = ConvNorm(in_channels, hidden, 1, activation=act, eps=spec.eps)
        self.depthwise = ConvNorm(
            hidden,
            hidden,
            stage.kernel,
            stride=stride,
            groups=hidden,
            activation=act,
            eps=spec.eps,
            same_padding=spec.same_padding,
        )
        self.project = ConvNorm(hidden, stage.channels, 1, eps=spec.eps)
        self.residual = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        y: Tensor = self.project(self.depthwise(x if self.expand is None else self.expand(x)))
        return x + y if self.residual else y


class MobileBackbone(nn.Module):
    """Stem and inverted residuals up to stride 32; the classifier's last 1x1 is left out."""

    def __init__(self, spec: MobileSpec) -> None:
        super().__init__()
        self.stem = ConvNorm(
            3,
            32,
            3,
            stride=2,
            activation=nn.ReLU6(),
            eps=spec.eps,
            same_padding=spec.same_padding,
        )
        width = 32
        stages: list[nn.Module] = []
        for stage in spec.stages:
            blocks: list[nn.Module] = []
            for index in range(stage.repeats):
                blocks.append(
                    InvertedResidual(width, stage, stage.stride if index == 0 else 1, spec)
                )
                width = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.outputs = spec.outputs
        self.out_channels = tuple(spec.stages[index].channels for index in spec.outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of strides 8, 16 and 32 from float (B, 3, H, W); H, W multiples of 32."""
        x = self.stem(x)
        features = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.outputs:
                features.append(x)
        return features

    def freezable(self) -> list[nn.Module]:
        """Stem and stages, shallowest first, for training with the first ones fixed."""
        return [self.stem, *self.stages]
