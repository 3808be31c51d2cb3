"""Blocks, pyramid and heads against their formulas, and every backbone's strides and channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain import shake
from torch import Tensor, nn

from centermask_edge.config import PRESETS, Backbone
from centermask_edge.model.centermask import CenterMask, build_backbone
from centermask_edge.model.fcos import FCOSHead
from centermask_edge.model.fpn import FPN
from centermask_edge.model.mask_heads import MaskHead, MaskIoUHead
from centermask_edge.model.vovnet import OSABlock

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# --- blocks and heads -------------------------------------------------------------------------


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_aggregation_takes_the_input_first_and_once(separable: bool, residual: bool) -> None:
    block = OSABlock(12, 8, 12, 2, separable=separable, residual=residual)
    shake(block)
    x = torch.randn(1, 12, 6, 6)
    current = x if block.reduction is None else block.reduction(x)
    first = block.layers[0](current)
    second = block.layers[1](first)
    assert block.ese is not None and block.se is None
    out = block.ese(block.concat(torch.cat((x, first, second), dim=1)))
    torch.testing.assert_close(block(x), out + x if residual else out)
    assert (block.reduction is not None) == separable
    assert not residual or bool((block(x) < 0).any())  # the sum with the input is not rectified


def test_pyramid_is_its_formula() -> None:
    fpn = FPN((4, 5, 6), 32)
    features = [torch.randn(1, c, n, n) for c, n in ((4, 8), (5, 4), (6, 2))]
    p3, p4, p5, p6, p7 = fpn(features)
    c3, c4, c5 = (lateral(f) for lateral, f in zip(fpn.lateral, features, strict=True))
    c4 = c4 + c5.repeat_interleave(2, 2).repeat_interleave(2, 3)
    c3 = c3 + c4.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for found, output, wanted in zip((p3, p4, p5), fpn.output, (c3, c4, c5), strict=True):
        torch.testing.assert_close(found, output(wanted))
    torch.testing.assert_close(p6, fpn.p6(p5))
    torch.testing.assert_close(p7, fpn.p7(p6.clamp(min=0)))
    sides = [tuple(p.shape[2:]) for p in (p3, p4, p5, p6, p7)]
    assert sides == [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]


def test_head_starts_from_its_prior_and_shares_its_towers() -> None:
    head = FCOSHead(64, 2, 3)
    pyramid = [torch.randn(1, 64, n, n) for n in (4, 4, 2, 1, 1)]
    pyramid[1] = pyramid[0]
    with torch.no_grad():
        head.scales[1].fill_(3.0)
        found = head(pyramid)
    torch.testing.assert_close(found.logits[0], found.logits[1])
    torch.testing.assert_close(found.reg[1], 3 * found.reg[0])
    assert all(bool((level >= 0).all()) for level in found.reg)
    assert float(found.logits[0].sigmoid().mean()) == pytest.approx(0.01, rel=0.2)
    first = (found.logits[0], found.reg[0], found.centerness[0])
    assert [level.shape[1] for level in first] == [3, 4, 1]


def test_mask_heads_give_one_map_and_one_number_a_class() -> None:
    features = torch.randn(3, 32, 14, 14)
    logits = MaskHead(32, 2, 5)(features)
    assert logits.shape == (3, 5, 28, 28)
    head = MaskIoUHead(32, 2, 64, 5)
    probability = torch.rand(3, 1, 28, 28)
    iou = head(features, probability)
    assert iou.shape == (3, 5)
    # The mask is the last input channel, by its largest value in every 2 x 2.
    pooled = probability.view(3, 1, 14, 2, 14, 2).amax((3, 5))
    wanted = head.convs[0](torch.cat((features, pooled), 1))
    seen: list[Tensor] = []
    head.convs[0].register_forward_hook(lambda module, args, out: seen.append(out))
    head(features, probability)
    torch.testing.assert_close(seen[0], wanted)


# --- backbones --------------------------------------------------------------------------------

CHANNELS = {
    Backbone.V19: (512, 768, 1024),
    Backbone.V19_DW: (512, 768, 1024),
    Backbone.V39: (512, 768, 1024),
    Backbone.V19_SLIM: (256, 384, 512),
    Backbone.V19_SLIM_DW: (256, 384, 512),
    Backbone.MOBILENET_V2: (32, 96, 320),
    Backbone.V57: (512, 768, 1024),
    Backbone.V99: (512, 768, 1024),
    Backbone.V39_DCN: (512, 768, 1024),
    Backbone.V57_DCN: (512, 768, 1024),
    Backbone.V99_DCN: (512, 768, 1024),
    Backbone.R50: (512, 1024, 2048),
    Backbone.R101: (512, 1024, 2048),
    Backbone.X101: (512, 1024, 2048),
    Backbone.HRNET_W18: (36, 72, 144),
    Backbone.HRNET_W32: (64, 128, 256),
    Backbone.HRNET_W48: (96, 192, 384),
    Backbone.EFFICIENTNET_LITE0: (40, 112, 320),
    Backbone.EFFICIENTNET_LITE1: (40, 112, 320),
    Backbone.EFFICIENTNET_LITE2: (48, 120, 352),
}


@pytest.mark.parametrize("name", Backbone)
@pytest.mark.parametrize(("height", "width"), [(64, 96), (32, 160)])
def test_strides_and_channels_of_every_backbone(name: Backbone, height: int, width: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
        features = backbone(torch.zeros(2, 3, height, width))
    wanted = [
        (2, channels, height // stride, width // stride)
        for channels, stride in zip(CHANNELS[name], (8, 16, 32), strict=True)
    ]
    assert [tuple(f.shape) for f in features] == wanted
    assert tuple(backbone.out_channels) == CHANNELS[name]


@pytest.mark.parametrize("name", Backbone)
def test_freezable_parts_are_the_whole_backbone(name: Backbone) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
    parts = [id(p) for module in backbone.freezable() for p in module.parameters()]
    assert sorted(parts) == sorted(id(p) for p in backbone.parameters())
    assert len(backbone.freezable()) >= 5


@pytest.mark.parametrize("name", [Backbone.MOBILENET_V2, Backbone.EFFICIENTNET_LITE0])
def test_inverted_residuals_add_only_what_fits(name: Backbone) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
    stages: Any = backbone.stages
    for stage in stages:
        for index, block in enumerate(stage):
            # First blocks change width or size, all others repeat it.
            assert block.residual == (index > 0)
            assert block.project.activation is None
            assert isinstance(block.depthwise.activation, nn.ReLU6)
    assert stages[0][0].expand is None


# The full model of a body is its Lite model in other widths: one stands for all.
ONE_SIZE = [name for name in PRESETS if name.startswith(("lite-", "person-"))]


@pytest.mark.parametrize("name", [*ONE_SIZE, "v99"])
def test_every_preset_is_a_network(name: str) -> None:
    config = PRESETS[name]
    with torch.device("meta"):
        model = CenterMask(config)
        pyramid, dense = model.dense(torch.zeros(1, 3, 64, 64))
        probability, iou = model.masks(
            torch.zeros(2, config.fpn_channels, 14, 14), torch.zeros(2, dtype=torch.int64)
        )
    assert [tuple(p.shape[1:]) for p in pyramid] == [
        (config.fpn_channels, n, n) for n in (8, 4, 2, 1, 1)
    ]
    assert [level.shape[1] for level in dense.logits] == [config.num_classes] * 5
    assert probability.shape == (2, 28, 28) and iou.shape == (2,)
