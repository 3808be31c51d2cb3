"""Every feature extractor by its name."""

from __future__ import annotations

from centermask_edge.backbone import Backbone
from centermask_edge.model import mobile, resnet, vovnet
from centermask_edge.model.hrnet import WIDTHS, HRNet
from centermask_edge.model.mobile import MobileBackbone
from centermask_edge.model.resnet import ResNet
from centermask_edge.model.vovnet import VoVNet
from centermask_edge.switches import ChannelAttention

Body = VoVNet | ResNet | HRNet | MobileBackbone


def build_backbone(
    name: Backbone,
    attention: ChannelAttention = ChannelAttention.ESE,
    *,
    residual: bool = True,
) -> Body:
    """The feature extractor of that name, randomly initialised.

    Args:
        name: of the body.
        attention: of VoVNet's blocks; of no meaning to others.
        residual: whether VoVNet's blocks add their input; of no meaning to others.
    """
    if name in vovnet.SPECS:
        return VoVNet(vovnet.SPECS[name], attention, residual)
    if name in resnet.SPECS:
        return ResNet(resnet.SPECS[name])
    if name in WIDTHS:
        return HRNet(WIDTHS[name])
    return MobileBackbone(mobile.SPECS[name])
