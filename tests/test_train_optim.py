"""Learning rate, parameter groups and the moving average, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from centermask_edge.config import PRESETS, TrainConfig
from centermask_edge.model.centermask import CenterMask
from centermask_edge.train.optim import Ema, learning_rate, make_optimizer, set_learning_rate

PAPER = TrainConfig()


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (0, 0.01 * 0.001),
        (500, 0.01 * (0.001 * 0.5 + 0.5)),
        (999, 0.01 * (0.001 * 0.001 + 0.999)),
        (1000, 0.01),
        (299_999, 0.01),
        (300_000, 0.001),
        (339_999, 0.001),
        (340_000, 0.0001),
        (359_999, 0.0001),
    ],
)
def test_the_papers_schedule(step: int, wanted: float) -> None:
    assert learning_rate(PAPER, step) == pytest.approx(wanted, rel=1e-9)


def test_the_rate_grows_with_the_batch() -> None:
    half = PAPER.model_copy(update={"batch_size": 8})
    assert learning_rate(half, 5000) == pytest.approx(0.005)


def test_cosine_falls_from_the_end_of_the_warm_up_to_zero() -> None:
    config = TrainConfig(steps=110, warmup_steps=10, schedule="cosine")
    assert learning_rate(config, 10) == pytest.approx(0.01)
    assert learning_rate(config, 60) == pytest.approx(0.005)
    assert learning_rate(config, 35) == pytest.approx(0.01 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate(config, 110) == pytest.approx(0)
    assert learning_rate(config, 500) == pytest.approx(0)
    rates = [learning_rate(config, step) for step in range(10, 110)]
    assert rates == sorted(rates, reverse=True) and min(rates) > 0


def test_a_run_shorter_than_its_warm_up_has_a_rate() -> None:
    config = TrainConfig(steps=5, warmup_steps=10, schedule="cosine")
    assert [learning_rate(config, s) > 0 for s in range(5)] == [True] * 5


@pytest.fixture(scope="module")
def model() -> CenterMask:
    return CenterMask(PRESETS["person-efficientnet-lite0"])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_do_not_decay_and_the_backbone_has_its_own_rate(model: CenterMask, name: str) -> None:
    config = TrainConfig.model_validate(
        {"optimizer": name, "backbone_lr_factor": 0.1, "weight_decay": 0.01, "momentum": 0.8}
    )
    optimizer = make_optimizer(model, config)
    set_learning_rate(optimizer, 0.5)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    norms = 0
    for key, parameter in model.named_parameters():
        norm = ".norm." in key and not key.startswith("backbone.")
        norms += norm
        wanted = (0.05 if key.startswith("backbone.") else 0.5, 0.0 if norm else 0.01)
        assert found.pop(id(parameter)) == pytest.approx(wanted), key
    assert not found and norms == 2 * 2 * model.config.head_convs
    assert type(optimizer) is {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
    if name == "sgd":
        assert {g["momentum"] for g in optimizer.param_groups} == {0.8}


def test_frozen_parameters_are_left_out(model: CenterMask) -> None:
    model.backbone.freezable()[0].requires_grad_(False)
    try:
        held = sum(len(g["params"]) for g in make_optimizer(model, PAPER).param_groups)
    finally:
        model.requires_grad_(True)
    assert held == len(list(model.parameters())) - 1


def test_average_of_the_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    seen = torch.zeros(1)
    model.register_buffer("seen", seen)
    with torch.no_grad():
        model.weight.fill_(1.0)
    ema = Ema(model, 0.5)
    wanted = 1.0
    for step, weight in enumerate((2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0), start=1):
        with torch.no_grad():
            model.weight.fill_(weight)
        ema.update(model)
        decay = min(0.5, (1 + step) / (10 + step))  # the first steps forget faster
        wanted = decay * wanted + (1 - decay) * weight
        assert float(ema.shadow["weight"]) == pytest.approx(wanted, rel=1e-6)
    seen.fill_(7.0)
    state = ema.state(model)
    assert float(state["weight"]) == pytest.approx(wanted, rel=1e-6)
    assert float(state["seen"]) == 7.0
    assert float(model.weight.detach()) == 512.0  # the model itself is not touched
