"""Settings: their presets, and what they refuse."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from centermask_edge.config import (
    COCO_CLASSES,
    PRESETS,
    ModelConfig,
    PreprocessConfig,
    TrainConfig,
    preset,
)
from centermask_edge.errors import ConfigError


def test_coco_has_eighty_classes() -> None:
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    assert (COCO_CLASSES[0], COCO_CLASSES[-1]) == ("person", "toothbrush")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name: str) -> None:
    config = preset(name)
    assert config.name == name
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_an_unknown_preset_is_told_which_there_are() -> None:
    wanted = r"unknown preset 'v20'; nearest are v99, .*v19; .*models lists all"
    with pytest.raises(ConfigError, match=wanted):
        preset("v20")


@pytest.mark.parametrize(
    "values",
    [
        {"seed": -1},
        {"short_sides": []},
        {"long_side": 0},
        {"steps": 0},
        {"masked_share": 1.5},
        {"ema_decay": 1.0},
        {"optimizer": "adam"},
        {"stepz": 10},
    ],
)
def test_a_run_that_cannot_be_is_refused(values: dict[str, object]) -> None:
    (key,) = values
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate(values)
    assert caught.value.errors()[0]["loc"] == (key,)
    assert json.dumps(TrainConfig().model_dump(mode="json"))  # and the defaults are a file's


def test_sides_in_order() -> None:
    with pytest.raises(ValidationError, match="long_side 300 is smaller than short_side 400"):
        PreprocessConfig(short_side=400, long_side=300)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        preset("lite-v19").name = "other"  # type: ignore[misc]
