"""A run that begins with another network's weights: what fits is taken, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from centermask_edge.config import TrainConfig, preset
from centermask_edge.errors import ConfigError, ModelFileError
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.train.recipes import settings
from centermask_edge.train.setup import build_model

PERSON = preset("person-v19-slim")
TWO = PERSON.model_copy(update={"classes": ("cat", "dog")})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the one-class network."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("start") / "person.safetensors"
    checkpoint.save(path, CenterMask(PERSON).state_dict(), PERSON)
    return path


def test_what_fits_is_taken_and_class_layers_stay_new(trained: Path) -> None:
    model = build_model(TWO, TrainConfig(start=trained, seed=3))
    fresh = build_model(TWO, TrainConfig(seed=3)).state_dict()
    old = checkpoint.load(trained).state_dict()
    new = {
        "head.cls_logits.weight",
        "head.cls_logits.bias",
        *(k for k in fresh if fresh[k].shape != old[k].shape),
    }
    assert 4 <= len(new) <= 8
    for key, value in model.state_dict().items():
        assert torch.equal(value, fresh[key] if key in new else old[key]), key


def test_switches_of_the_network_may_differ(trained: Path) -> None:
    plain = PERSON.model_copy(update={"spatial_attention": False, "mask_scoring": False})
    taken, of = checkpoint.start_from(CenterMask(plain), trained)
    assert taken == of


def test_without_a_preset_the_network_is_the_checkpoint_s(trained: Path) -> None:
    model, run = settings(None, None, {"start": trained})
    assert model == PERSON
    assert run.start == trained
    assert run.short_sides[-1] == PERSON.preprocess.short_side


def test_another_backbone_is_refused(trained: Path) -> None:
    with pytest.raises(ModelFileError, match="fits the backbone efficientnet-lite0"):
        build_model(preset("person-efficientnet-lite0"), TrainConfig(start=trained))


def test_only_one_start(trained: Path) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        settings(None, None, {"start": trained, "init": trained})
    with pytest.raises(ConfigError, match="or --start FILE"):
        settings(None, None, {})
