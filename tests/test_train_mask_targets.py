"""Which proposals train the mask branch, and the masks drawn for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from centermask_edge.train.mask_targets import (
    mask_targets,
    pairwise_iou,
    polygon_area,
    rasterise,
    sample_foreground,
    visible_ratio,
)

SQUARE = np.array([10, 10, 30, 10, 30, 30, 10, 30], np.float64)


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_foreground_overlaps_by_half_and_includes_the_truth() -> None:
    truth = tensor([[0, 0, 10, 10], [100, 100, 120, 120]])
    proposals = tensor([[0, 0, 10, 20], [0, 0, 10, 20.1], [100, 100, 118, 120], [50, 50, 60, 60]])
    boxes, match = sample_foreground(proposals, truth, 99, None)
    assert boxes.tolist() == [*proposals[[0, 2]].tolist(), *truth.tolist()]
    assert match.tolist() == [0, 1, 0, 1]


def test_a_random_part_of_too_much_foreground() -> None:
    truth = tensor([[0, 0, 10, 10]])
    proposals = torch.cat([truth + i / 100 for i in range(40)])
    boxes, match = sample_foreground(proposals, truth, 7, torch.Generator().manual_seed(1))
    assert boxes.shape == (7, 4) and match.tolist() == [0] * 7
    assert len({tuple(b) for b in boxes.tolist()}) >= 6
    again, _ = sample_foreground(proposals, truth, 7, torch.Generator().manual_seed(1))
    other, _ = sample_foreground(proposals, truth, 7, torch.Generator().manual_seed(2))
    assert torch.equal(again, boxes) and not torch.equal(other, boxes)


def test_overlap_of_empty_boxes_is_zero() -> None:
    empty = tensor([[5, 5, 5, 5], [7, 7, 3, 9]])
    found = pairwise_iou(empty, torch.cat((empty, tensor([[0, 0, 10, 10]]))))
    assert found.tolist() == [[0.0] * 3] * 2


def test_a_square_is_drawn_where_it_lies_in_the_proposal() -> None:
    inside = rasterise([SQUARE], np.array([10.0, 10, 30, 30]))
    assert inside.shape == (28, 28) and inside.all()
    # A proposal twice as wide and high, the square in its lower right quarter.
    quarter = rasterise([SQUARE], np.array([-10.0, -10, 30, 30]))
    wanted = np.zeros((28, 28), bool)
    wanted[14:, 14:] = True
    assert (quarter != wanted).sum() <= 28  # COCO's rasteriser rounds edges to half a pixel
    assert quarter[15:, 15:].all() and not quarter[:13].any() and not quarter[:, :13].any()
    assert not rasterise([SQUARE], np.array([40.0, 40, 50, 50])).any()


def test_parts_of_an_object_are_drawn_together() -> None:
    halves = [SQUARE.copy(), SQUARE.copy()]
    halves[0][0::2] = [10, 15, 15, 10]
    halves[1][0::2] = [25, 30, 30, 25]
    mask = rasterise(halves, np.array([10.0, 10, 30, 30]))
    assert mask[:, :6].all() and mask[:, 22:].all() and not mask[:, 8:20].any()
    assert polygon_area(halves) == pytest.approx(200)


def test_visible_share() -> None:
    assert visible_ratio([SQUARE], np.array([0.0, 0, 50, 50])) == 1.0
    assert visible_ratio([SQUARE], np.array([0.0, 0, 20, 50])) == pytest.approx(0.5, abs=0.06)
    assert visible_ratio([SQUARE], np.array([60.0, 60, 90, 90])) == 1e-10
    assert visible_ratio([SQUARE], np.array([10.0, 10, 10.5, 30])) == 1e-10
    line = np.array([0, 0, 10, 10, 20, 20], np.float64)
    assert visible_ratio([line], np.array([0.0, 0, 50, 50])) == 1e-10


def test_mask_targets_follow_the_match() -> None:
    small = SQUARE / 2  # 5..15
    boxes = tensor([[10, 10, 30, 30], [5, 5, 15, 15], [5, 5, 25, 15]])
    masks, ratios = mask_targets([[SQUARE], [small]], boxes, torch.tensor([0, 1, 1]))
    assert masks.dtype == torch.float32 and ratios.dtype == torch.float64
    assert masks[0].all() and masks[1].all()
    assert masks[2][:, :13].all() and not masks[2][:, 16:].any()
    np.testing.assert_allclose(ratios, 1, atol=0.1)
