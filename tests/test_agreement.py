from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from centermask_edge.config import PRESETS
from centermask_edge.engines.agreement import (
    Difference,
    Runner,
    agreement_checks,
    checkpoint_checks,
    compare_instances,
    engine_table,
)
from centermask_edge.instances import Instances
from centermask_edge.model.centermask import CenterMask

PICTURE = np.zeros((60, 80, 3), np.uint8)


def instances(count: int = 3) -> Instances:
    """Squares along the diagonal with round masks, best first."""
    corner = 20 * np.arange(count, dtype=np.float32)
    y, x = np.mgrid[:28, :28] - 13.5
    disc = (1 / (1 + np.exp(np.hypot(x, y) - 10))).astype(np.float32)
    return Instances(
        np.stack([corner, corner, corner + 18, corner + 18], axis=1),
        np.linspace(0.9, 0.5, count, dtype=np.float32),
        np.linspace(0.8, 0.4, count, dtype=np.float32),
        np.arange(count),
        np.repeat(disc[None], count, axis=0),
        (60, 80),
    )


def test_equal_instances_do_not_differ_in_whatever_order() -> None:
    wanted = instances()
    difference = compare_instances(wanted, wanted.select(np.array([2, 0, 1])))
    assert difference.pixels > 300
    assert difference == Difference(3, 3, pixels=difference.pixels)
    assert difference.passed


def test_nothing_agrees_with_nothing_but_proves_nothing() -> None:
    none = instances(0)
    assert compare_instances(none, none) == Difference()
    assert not Difference().passed


def test_a_missing_and_a_further_detection_are_lone() -> None:
    three, two = instances(3), instances(2)
    missing, further = compare_instances(three, two), compare_instances(two, three)
    assert (missing.lone, further.lone) == (1, 1)
    assert not missing.passed and not further.passed
    other_class = replace(three, classes=three.classes + 1)
    assert compare_instances(three, other_class).lone == 6


@pytest.mark.parametrize(
    ("name", "step", "limit"), [("scores", 0.01, 1e-3), ("mask_scores", 0.02, 1e-3)]
)
def test_a_score_beyond_its_limit_fails(name: str, step: float, limit: float) -> None:
    wanted = instances()
    values = getattr(wanted, name)
    near, far = values.copy(), values.copy()
    near[1] += limit / 2
    far[1] += step
    assert compare_instances(wanted, replace(wanted, **{name: near})).passed
    difference = compare_instances(wanted, replace(wanted, **{name: far}))
    assert not difference.passed
    assert max(difference.score, difference.mask_score) == pytest.approx(step, rel=1e-3)


def test_mask_pixels_are_compared_at_their_place_in_the_picture() -> None:
    wanted = instances(1)
    smaller = wanted.masks.copy()
    smaller[:, :, 14:] = 0
    difference = compare_instances(wanted, replace(wanted, masks=smaller))
    assert difference.differing == pytest.approx(difference.pixels / 2, abs=8)
    assert not difference.passed
    moved = compare_instances(wanted, replace(wanted, boxes=wanted.boxes + 2))
    assert moved.box == 2 and moved.differing > 30


def test_the_worst_picture_decides() -> None:
    good, bad = Difference(2, 2, pixels=10), Difference(1, 1, score=0.5, pixels=10)
    both = good | bad
    assert (both.wanted, both.pixels, both.score) == (3, 20, 0.5)
    assert good.passed and not both.passed


def test_a_check_names_model_and_engines() -> None:
    wanted = Runner("first", lambda picture: instances(2))
    same, fewer = Runner("same", wanted.segment), Runner("fewer", lambda picture: instances(1))
    checks = agreement_checks("model", wanted, [same, fewer], [PICTURE, PICTURE])
    assert [check.passed for check in checks] == [True, False]
    assert checks[1].cells[:5] == ("model", "fewer / first", "2", "2 / 4", "2")
    assert not engine_table(checks).passed


def test_engines_agree_on_a_network_of_ours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = PRESETS["person-efficientnet-lite0"]
    small = config.preprocess.model_copy(update={"short_side": 96, "long_side": 160})
    network = CenterMask(config.model_copy(update={"preprocess": small})).eval()
    with torch.no_grad():
        assert network.head.cls_logits.bias is not None
        assert network.head.box_pred.bias is not None
        network.head.cls_logits.weight.mul_(30)
        network.head.cls_logits.bias.fill_(-3.5)
        network.head.box_pred.bias.fill_(3.0)
        network.mask_head.predictor.weight.mul_(300)
    rng = np.random.default_rng(0)
    pictures: list[NDArray[np.uint8]] = [
        rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((96, 160), (150, 120))
    ]
    checks = checkpoint_checks("person", network, tmp_path, pictures)
    assert [check.passed for check in checks] == [True, True], engine_table(checks).rows()
    assert "onnxruntime" in checks[0].cells[1] and "openvino" in checks[1].cells[1]
    # Enough was found for this to mean something.
    assert int(checks[0].cells[3].split(" / ")[0]) > 5
