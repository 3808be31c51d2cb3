"""RoIAlign against plain loops, its gradient, and which level a RoI is taken from."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from centermask_edge.model.roi import _axis_weights, assign_levels, pyramid_roi_align, roi_align

pytestmark = pytest.mark.usefixtures("one_thread")

F32 = np.float32


def bilinear(feature: NDArray[np.float64], y: float, x: float) -> NDArray[np.float64]:
    """Value at a point of (C, H, W): zero beyond [-1, size], the border's between there and it."""
    _, height, width = feature.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(len(feature))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = feature[:, top, left] * (1 - fx) + feature[:, top, right] * fx
    lower = feature[:, bottom, left] * (1 - fx) + feature[:, bottom, right] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)


def positions(low: np.float32, high: np.float32, scale: float, side: int) -> list[list[float]]:
    """Sample coordinates of every bin along one axis, in cells."""
    start = low * F32(scale) - F32(0.5)
    length = (high * F32(scale) - F32(0.5)) - start
    samples = max(math.ceil(length / F32(side)), 0)
    size = length / F32(side)
    return [
        [
            float(start + F32(b) * size + (F32(i) + F32(0.5)) * size / F32(samples))
            for i in range(samples)
        ]
        for b in range(side)
    ]


def plain_roi_align(feature: Tensor, boxes: Tensor, scale: float, side: int) -> NDArray[np.float64]:
    values = feature.double().numpy()
    out = np.zeros((len(boxes), feature.shape[0], side, side))
    for r, (x0, y0, x1, y1) in enumerate(boxes.numpy()):
        rows, columns = positions(y0, y1, scale, side), positions(x0, x1, scale, side)
        for i in range(side):
            for j in range(side):
                points = [(y, x) for y in rows[i] for x in columns[j]]
                for y, x in points:
                    out[r, :, i, j] += bilinear(values, y, x) / len(points)
    return out


def feature(seed: int, height: int = 9, width: int = 11, channels: int = 2) -> Tensor:
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(seed))


def check(boxes: list[list[float]], *, side: int = 3, scale: float = 0.125, seed: int = 0) -> None:
    rois = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    picture = feature(seed)
    found = roi_align(picture, rois, scale, side)
    assert found.shape == (len(rois), 2, side, side) and found.dtype == torch.float32
    np.testing.assert_allclose(found, plain_roi_align(picture, rois, scale, side), atol=2e-5)


edge = st.integers(-400, 800).map(lambda v: v / 4)  # the picture is 88 x 72 pixels


@settings(max_examples=60)
@given(
    st.lists(st.tuples(edge, edge, edge, edge).map(list), max_size=4),
    st.sampled_from([1, 2, 3, 5]),
    st.sampled_from([1 / 8, 1 / 16, 1 / 32]),
    st.integers(0, 99),
)
def test_equal_to_plain_loops(boxes: list[list[float]], side: int, scale: float, seed: int) -> None:
    """Inside, across the border, outside, empty, and with the corners the wrong way round."""
    check(boxes, side=side, scale=scale, seed=seed)


def test_the_networks_own_size() -> None:
    check([[3, 5, 80, 60], [-7.5, 20, 30, 90], [40, 40, 41, 42]], side=14)


def test_samples_on_the_rim_count() -> None:
    """A sample exactly at -1 or at the size still counts; a hair beyond it is zero."""
    ones = torch.ones(1, 4, 4)
    at = torch.tensor([[-8.0, 8, 0, 16], [32.0, 8, 40, 16]])  # one sample a bin, at -1 and at 4
    assert roi_align(ones, at, 0.125, 1).flatten().tolist() == [1, 1]
    beyond = at + torch.tensor([[-0.01, 0, -0.01, 0], [0.01, 0, 0.01, 0]])
    assert roi_align(ones, beyond, 0.125, 1).flatten().tolist() == [0, 0]


def test_boxes_without_an_inside_are_zero() -> None:
    boxes = torch.tensor([[20.0, 20, 20, 40], [20, 20, 40, 20], [20, 20, 20, 20], [40, 40, 20, 20]])
    assert not roi_align(feature(0), boxes, 0.125, 14).any()
    assert roi_align(feature(0), boxes[:0], 0.125, 14).shape == (0, 2, 14, 14)


def test_huge_boxes() -> None:
    check([[-300, -200, 500, 300], [-2000, 10, 3000, 20], [0, 0, 700, 900]], side=2)


def plain_weights(start: float, length: float, extent: int, side: int) -> NDArray[np.float64]:
    """Weights (side, extent) of one axis, every sample of a huge RoI made."""
    first, size = F32(start), F32(length) / F32(side)
    samples = math.ceil(size)
    weights = np.zeros((side, extent))
    for b in range(side):
        step = (np.arange(samples, dtype=F32) + F32(0.5)) * size / F32(samples)
        at = first + F32(b) * size + step
        at = np.clip(at[(at >= -1) & (at <= extent)], 0, extent - 1)
        low = at.astype(np.int64)
        np.add.at(weights[b], low, 1 - (at - low))
        np.add.at(weights[b], np.minimum(low + 1, extent - 1), at - low)
    return weights / samples


@settings(max_examples=40)
@given(
    st.sampled_from([1e2, 1e4, 1e6]), st.floats(0, 1), st.floats(0.1, 2), st.sampled_from([2, 14])
)
def test_samples_of_huge_boxes_are_left_out_only_where_they_are_zero(
    size: float, before: float, share: float, side: int
) -> None:
    """At 1e6 cells float32 positions are off by a sixteenth, and some fall into the picture."""
    start, length = -size * before, size * share
    found = _axis_weights(torch.tensor([start]), torch.tensor([length]), 40, side)[0]
    wanted = plain_weights(start, length, 40, side)
    scale = max(wanted.max(), 1e-12)
    np.testing.assert_allclose(found / scale, wanted / scale, atol=1e-5)


@pytest.mark.parametrize("size", [1e5, 1e7, 1e10, 3e38, float("inf"), float("nan")])
def test_a_box_beyond_all_measure_costs_no_more_than_its_picture(size: float) -> None:
    """Samples grow with the box; those beyond the picture are zero and must not be made."""
    boxes = torch.tensor([[-size, -size, size, size], [0, 0, size, 50], [size, 0, size, 9]])
    start = time.perf_counter()
    found = roi_align(feature(0, 40, 60), boxes, 0.125, 14)
    assert bool(found.isfinite().all())
    assert time.perf_counter() - start < 5


def test_gradients() -> None:
    picture = feature(1, 5, 6).double().requires_grad_()
    boxes = torch.tensor([[3.0, 5, 30, 33], [-10, -10, 60, 20], [41, 30, 70, 60], [9, 9, 9, 20]])
    assert torch.autograd.gradcheck(lambda x: roi_align(x, boxes, 0.125, 3), (picture,))


def test_the_kind_of_number_is_kept() -> None:
    boxes = torch.tensor([[3.0, 5, 30, 33]])
    rough = roi_align(feature(0).bfloat16(), boxes, 0.125, 14)
    assert rough.dtype == torch.bfloat16
    exact = roi_align(feature(0), boxes, 0.125, 14)
    np.testing.assert_allclose(rough.float(), exact, atol=0.03)


# --- levels -----------------------------------------------------------------------------------


def level(box: list[float], area: float = 1024.0 * 512) -> int:
    return int(assign_levels(torch.tensor([box]), torch.tensor([area]))[0])


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        ([0.0, 0, 1024, 512], 2),  # the whole picture: P5
        ([0.0, 0, 513, 512], 2),
        ([0.0, 0, 512, 512], 1),  # exactly half: P4
        ([0.0, 0, 511, 512], 1),
        ([0.0, 0, 257, 512], 1),
        ([0.0, 0, 256, 512], 0),  # exactly a quarter: P3
        ([0.0, 0, 1, 1], 0),
        ([-1000.0, -1000, 3000, 3000], 2),  # unclipped
        ([5.0, 5, 5, 5], 0),  # no area
        ([5.0, 5, 9, 5], 0),
        ([9.0, 5, 5, 9], 0),  # corners the wrong way round
        ([0.0, 0, float("nan"), 5], 0),
        ([0.0, 0, float("inf"), 5], 2),
    ],
)
def test_levels(box: list[float], wanted: int) -> None:
    assert level(box) == wanted


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(32, 1333), st.integers(32, 1333))
def test_levels_follow_the_shares(width: int, height: int, rows: int, columns: int) -> None:
    share = width * height / (rows * columns)
    wanted = 2 if share > 0.5 else 1 if share > 0.25 else 0
    near = min(abs(share - 0.5), abs(share - 0.25)) < 1e-5 and share not in (0.25, 0.5)
    assert near or level([0.0, 0, width, height], float(rows * columns)) == wanted


# --- all levels and pictures ------------------------------------------------------------------


def numbered(batch: int) -> list[Tensor]:
    """P3..P7 whose every value says its picture and level: 10 * picture + level."""
    sides = (64, 32, 16, 8, 4)
    return [
        torch.full((batch, 3, n, n), 10.0) * torch.arange(batch).view(-1, 1, 1, 1) + lvl
        for lvl, n in enumerate(sides)
    ]


def test_features_come_in_the_order_of_the_rois() -> None:
    small, middle, large = [10.0, 10, 60, 60], [10.0, 10, 400, 310], [1.0, 1, 500, 500]
    boxes = [
        torch.tensor([large, small, middle, small]),
        torch.zeros((0, 4)),
        torch.tensor([middle]),
        torch.tensor([small, large]),
    ]
    found = pyramid_roi_align(numbered(4), boxes, [(512, 512)] * 4)
    assert found.shape == (7, 3, 14, 14)
    wanted = [2, 0, 1, 0, 21, 30, 32]
    torch.testing.assert_close(
        found, torch.tensor(wanted).float().view(-1, 1, 1, 1).expand_as(found)
    )


def test_the_size_of_each_picture_decides() -> None:
    box = torch.tensor([[0.0, 0, 300, 300]])
    found = pyramid_roi_align(numbered(2), [box, box], [(512, 512), (310, 310)])
    assert found[:, 0, 7, 7].tolist() == [1, 12]


def test_boxes_are_in_pixels_of_the_input() -> None:
    """The same feature, a ramp in pixels, is read the same on every level."""
    pyramid = []
    for stride in (8, 16, 32):
        n = 512 // stride
        ramp = torch.arange(n).float() * stride + stride / 2
        pyramid.append(ramp.expand(1, 1, n, n).contiguous())
    boxes = [[100.0, 50, 156, 106], [40.0, 40, 440, 340], [20.0, 30, 480, 490]]
    found = pyramid_roi_align(pyramid, [torch.tensor(boxes)], [(512, 512)])
    for row, (x0, _, x1, _) in zip(found[:, 0], boxes, strict=True):
        middle = x0 + (torch.arange(14) + 0.5) * (x1 - x0) / 14
        np.testing.assert_allclose(row, middle.expand(14, 14), rtol=1e-5)


def test_no_rois_at_all() -> None:
    none = torch.zeros((0, 4))
    assert pyramid_roi_align(numbered(2), [none, none], [(9, 9)] * 2).shape == (0, 3, 14, 14)
    assert pyramid_roi_align(numbered(1), [none], [(9, 9)], side=7).shape == (0, 3, 7, 7)


def test_gradients_reach_the_right_picture_and_level() -> None:
    pyramid = [level.requires_grad_() for level in numbered(2)]
    boxes = [torch.zeros((0, 4)), torch.tensor([[10.0, 10, 400, 310]])]
    pyramid_roi_align(pyramid, boxes, [(512, 512)] * 2).sum().backward()
    assert pyramid[0].grad is None or not pyramid[0].grad.any()
    gradient = pyramid[1].grad
    assert gradient is not None and not gradient[0].any() and gradient[1].any()
