"""Size and cost of a network, part by part, counted without a weight in memory.

Everything is built on torch's meta device. Multiply-adds are those of convolutions,
deconvolutions and linear layers, and of norms in the convention of the reference figures: two a
value for a frozen one, five for a group norm. Activations, pooling and RoIAlign count nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod

import torch
from torch import Tensor, nn

from centermask_edge.config import ModelConfig
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.deformable import DeformableConvNorm
from centermask_edge.model.layers import FrozenBatchNorm2d
from centermask_edge.preprocess import resized_size

PICTURE = (480, 640)  # height and width: what most cameras and COCO pictures are shaped like
_ROI_SIDE, _MASK_SIDE = 14, 28
_FROZEN_NORM, _GROUP_NORM = 2, 5


@dataclass(frozen=True, slots=True)
class Parameters:
    """Trained values; norms are frozen and not among them."""

    backbone: int
    fpn: int
    p6_p7: int
    head: int
    mask: int
    mask_iou: int

    @property
    def total(self) -> int:
        """Of the whole network."""
        return sum(asdict(self).values())


@dataclass(frozen=True, slots=True)
class MultiplyAdds:
    """Multiply-adds of one picture: of the dense parts, and of the mask branch for one RoI."""

    backbone: int
    fpn: int
    head: int
    mask: int
    mask_iou: int

    def total(self, rois: int) -> int:
        """With so many RoIs."""
        return self.backbone + self.fpn + self.head + rois * (self.mask + self.mask_iou)


@dataclass(frozen=True, slots=True)
class Census:
    """Size and cost of one model.

    Attributes:
        config: the model.
        input_size: padded height and width of a 4:3 picture.
        parameters: by part.
        macs: by part.
    """

    config: ModelConfig
    input_size: tuple[int, int]
    parameters: Parameters
    macs: MultiplyAdds


def padded_size(config: ModelConfig, picture: tuple[int, int] = PICTURE) -> tuple[int, int]:
    """Height and width of the network's input for a picture of that height and width.

    >>> from centermask_edge.config import preset
    >>> padded_size(preset("lite-v39")), padded_size(preset("v39"))
    ((608, 800), (800, 1088))
    """
    how = config.preprocess
    height, width = resized_size(*picture, how.short_side, how.long_side)
    step = how.pad_multiple
    return -(-height // step) * step, -(-width // step) * step


def _size(*modules: nn.Module | None) -> int:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


def _cost(module: nn.Module, x: Tensor, out: Tensor) -> int:
    """Multiply-adds of one call of a module that does arithmetic of its own."""
    if isinstance(module, DeformableConvNorm):  # its convolution is not called as a module
        return out.numel() * prod(module.conv.weight.shape[1:])
    if isinstance(module, nn.ConvTranspose2d):
        return x.numel() * prod(module.weight.shape[1:])
    if isinstance(module, nn.Conv2d | nn.Linear):
        return out.numel() * prod(module.weight.shape[1:])
    per_value = {FrozenBatchNorm2d: _FROZEN_NORM, nn.GroupNorm: _GROUP_NORM}
    return out.numel() * per_value.get(type(module), 0)


@contextmanager
def _counting(model: nn.Module) -> Iterator[Callable[[], int]]:
    """Within it, a call gives the multiply-adds since the call before."""
    seen: list[int] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        seen.append(_cost(module, args[0], out))

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.GroupNorm)
    own = (FrozenBatchNorm2d, DeformableConvNorm)
    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kinds + own)]

    def since() -> int:
        total = sum(seen)
        seen.clear()
        return total

    try:
        yield since
    finally:
        for handle in handles:
            handle.remove()


def _parameters(model: CenterMask) -> Parameters:
    fpn = model.fpn
    return Parameters(
        _size(model.backbone),
        _size(fpn.lateral, fpn.output),
        _size(fpn.p6, fpn.p7),
        _size(model.head),
        _size(model.mask_head),
        _size(model.mask_iou_head),
    )


def _macs(model: CenterMask, size: tuple[int, int]) -> MultiplyAdds:
    roi = torch.zeros(1, model.config.fpn_channels, _ROI_SIDE, _ROI_SIDE)
    with _counting(model) as since:
        features = model.backbone(torch.zeros(1, 3, *size))
        backbone = since()
        pyramid = model.fpn(features)
        fpn = since()
        model.head(pyramid)
        head = since()
        model.mask_head(roi)
        mask = since()
        if model.mask_iou_head is not None:
            model.mask_iou_head(roi, torch.zeros(1, 1, _MASK_SIDE, _MASK_SIDE))
        return MultiplyAdds(backbone, fpn, head, mask, since())


@torch.no_grad()
def take_census(config: ModelConfig) -> Census:
    """Parameters and multiply-adds of a model."""
    size = padded_size(config)
    with torch.device("meta"):
        model = CenterMask(config).eval()
        return Census(config, size, _parameters(model), _macs(model, size))
