"""The losses against their formulas in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import giou_loss, sigmoid
from torch import Tensor

from centermask_edge.train import losses


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_focal_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (12, 3))
    labels = rng.integers(0, 4, 12)
    valid = rng.random(12) < 0.7
    wanted = 0.0
    for row in range(12):
        for cls in range(3):
            p = sigmoid(logits[row, cls])
            if labels[row] == cls:
                term = -0.25 * (1 - p) ** 2 * np.log(p)
            else:
                term = -0.75 * p**2 * np.log(1 - p)
            wanted += float(term) * valid[row]
    found = losses.focal_loss(
        torch.from_numpy(logits).float(), torch.from_numpy(labels), torch.from_numpy(valid)
    )
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_focal_loss_of_certain_mistakes_is_finite() -> None:
    logits = tensor([[200.0], [-200.0]])
    found = losses.focal_loss(logits, torch.tensor([1, 0]), torch.tensor([True, True]))
    assert float(found) == pytest.approx(0.75 * 200 + 0.25 * 200)


def test_centerness() -> None:
    reg = tensor([[2, 3, 2, 3], [1, 3, 4, 3], [1, 1, 4, 9]])
    np.testing.assert_allclose(losses.centerness_target(reg), [1, 0.5, np.sqrt(1 / 36)], rtol=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_giou_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pred, target = rng.uniform(0, 20, (2, 9, 4))
    wanted = [giou_loss(p, t) for p, t in zip(pred, target, strict=True)]
    found = losses.giou_loss(torch.from_numpy(pred), torch.from_numpy(target))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    same = losses.giou_loss(torch.from_numpy(pred), torch.from_numpy(pred))
    np.testing.assert_allclose(same, 0, atol=1e-12)


def test_giou_loss_of_a_box_predicted_empty_is_finite() -> None:
    found = losses.giou_loss(torch.zeros((1, 4)), torch.ones((1, 4)))
    assert float(found) == pytest.approx(1 - 1 / 5 + 1 - 1, rel=1e-6)


def test_mask_loss() -> None:
    rng = np.random.default_rng(0)
    logits, target = rng.normal(0, 3, (2, 28, 28)), (rng.random((2, 28, 28)) < 0.5).astype(float)
    p = sigmoid(logits)
    wanted = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    found = losses.mask_loss(torch.from_numpy(logits), torch.from_numpy(target))
    assert float(found) == pytest.approx(wanted, rel=1e-9)
    assert float(losses.mask_loss(torch.zeros((0, 28, 28)), torch.zeros((0, 28, 28)))) == 0


def test_mask_iou_target_counts_what_the_proposal_cuts_off() -> None:
    predicted = torch.full((2, 28, 28), -1.0)
    predicted[:, :, :14] = 1.0
    truth = torch.zeros((2, 28, 28))
    truth[:, :14, :] = 1.0
    visible = torch.tensor([1.0, 0.5], dtype=torch.float64)
    found = losses.mask_iou_target(predicted, truth, visible)
    quarter, half = 14 * 14, 14 * 28
    wanted = [quarter / (half + half - quarter), quarter / (half + 2 * half - quarter)]
    np.testing.assert_allclose(found, wanted)
    nothing = torch.zeros((1, 28, 28))
    assert losses.mask_iou_target(nothing, nothing, visible[:1]).tolist() == [0.0]


def test_mask_iou_loss_leaves_out_hopeless_proposals() -> None:
    predicted = torch.tensor([0.5, 0.9, 3.0], requires_grad=True)
    target = torch.tensor([0.7, 0.5, 0.0], dtype=torch.float64)
    loss = losses.mask_iou_loss(predicted, target)
    assert float(loss.detach()) == pytest.approx((0.5 * 0.2**2 + 0.5 * 0.4**2) / 2, rel=1e-6)
    loss.backward()
    assert predicted.grad is not None
    np.testing.assert_allclose(predicted.grad, [-0.1, 0.2, 0], atol=1e-6)
    zero = losses.mask_iou_loss(predicted, torch.zeros(3, dtype=torch.float64))
    assert float(zero.detach()) == 0 and zero.requires_grad
