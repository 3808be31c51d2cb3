"""Official names and ours, for every model of the official code that we have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from centermask_edge.config import PRESETS, Backbone
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.convert import official_presets
from centermask_edge.model.official import (
    from_official,
    from_official_key,
    to_official,
    to_official_key,
)
from centermask_edge.model.reference import OFFICIAL_CONFIGS, Reference

GOLDEN = Reference.open(None)
every_config = pytest.mark.parametrize("config", OFFICIAL_CONFIGS)

# Section of the official parameter count, and the module of ours that holds it.
PARTS = {
    "backbone_body": "backbone",
    "fcos_head": "head",
    "mask_head": "mask_head",
    "maskiou_head": "mask_iou_head",
}
# Millions, as published with the official code's configurations.
TOTALS = {
    "lite_V_19": 20.116,
    "lite_V_39": 35.109,
    "lite_V_19_slim": 12.446,
    "lite_V_19_slim_dw": 11.177,
    "lite_Mv2": 11.488,
    "lite_V_19_dw": 15.452,
    "lite_R_50": 33.564,
    "V_39": 52.609,
    "V_57": 68.869,
    "V_99": 96.915,
    "R_50": 51.228,
    "R_101": 70.168,
    "X_101": 114.312,
    "V_39_dcn": 54.383,
    "V_57_dcn": 71.856,
    "V_99_dcn": 102.329,
}


def build(config: str) -> CenterMask:
    with torch.device("meta"):
        return CenterMask(GOLDEN.preset(config))


@every_config
def test_every_official_tensor_has_its_place_and_shape(config: str) -> None:
    ours, unknown = from_official(GOLDEN.shapes(config))
    wanted = {key: tuple(value.shape) for key, value in build(config).state_dict().items()}
    assert unknown == []
    assert ours == wanted


@every_config
def test_names_survive_the_way_there_and_back(config: str) -> None:
    model = build(config)
    names = to_official(model.state_dict(), model.config.backbone)
    assert set(names) == set(GOLDEN.shapes(config))
    for key in model.state_dict():
        assert from_official_key(to_official_key(key, model.config.backbone)) == key


@pytest.mark.parametrize("name", official_presets())
def test_every_official_preset_goes_there_and_back(name: str) -> None:
    with torch.device("meta"):
        model = CenterMask(PRESETS[name])
    state = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    names = to_official(state, model.config.backbone)
    assert len(names) == len(state)
    assert from_official(names) == (state, [])


@every_config
def test_no_two_official_names_mean_the_same_tensor(config: str) -> None:
    shapes = GOLDEN.shapes(config)
    assert len(from_official(shapes)[0]) == len(shapes)


@every_config
def test_parameter_counts(config: str) -> None:
    counts = GOLDEN.parameters(config)
    model = build(config)

    def size(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert size(model) == counts["total"]
    assert round(size(model) / 1e6, 3) == TOTALS[config]
    assert {part: size(getattr(model, ours)) for part, ours in PARTS.items()} == {
        part: counts[part] for part in PARTS
    }
    assert size(model.fpn) == counts["fpn"] + counts["fpn_top_block"]


def test_every_official_body_is_compared() -> None:
    ours = {config.backbone for config in PRESETS.values() if config.backbone.is_official}
    assert {PRESETS[name].backbone for name in OFFICIAL_CONFIGS.values()} == ours


@pytest.mark.parametrize(
    "key",
    [
        "pixel_mean",
        "roi_heads.box_head.fc1.weight",
        "backbone.bottom_up.features.1.conv.2.weight",  # an activation has no tensors
        "backbone.bottom_up.features.0.conv.0.weight",
        "backbone.bottom_up.features.18.conv.0.weight",
        "backbone.bottom_up.stem.stem_1/other.weight",
        "proposal_generator.fcos_head.cls_tower.2.weight",  # an activation
        "backbone.bottom_up.res6.0.conv1.weight",
        "backbone.bottom_up.res2.0.conv1.bias",
        "backbone.fpn_lateral2.weight",
        "",
    ],
)
def test_a_foreign_name_is_not_understood(key: str) -> None:
    assert from_official_key(key) is None
    assert from_official({key: np.zeros(1)}) == ({}, [key])


@pytest.mark.parametrize("key", ["fpn.lateral.0.gamma.weight", "neck.weight", "stages.0.weight"])
def test_a_name_that_is_not_ours_has_no_official_one(key: str) -> None:
    with pytest.raises(KeyError):
        to_official_key(key, Backbone.V19)


@pytest.mark.parametrize("backbone", [Backbone.EFFICIENTNET_LITE2, Backbone.HRNET_W18])
def test_a_backbone_that_was_never_official_has_no_official_names(backbone: Backbone) -> None:
    with pytest.raises(KeyError):
        to_official_key("fpn.p6.weight", backbone)
