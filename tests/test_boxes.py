from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from centermask_edge import boxes


def random_boxes(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 80, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 40, (count, 2))], 1).astype(np.float32)


def test_iou_by_hand() -> None:
    first = np.array([[0, 0, 4, 4], [0, 0, 0, 0]], np.float32)
    second = np.array([[2, 0, 6, 4], [0, 0, 4, 4], [9, 9, 10, 10], [0, 0, 0, 0]], np.float32)
    wanted = np.array([[8 / 24, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(boxes.iou(first, second), wanted, rtol=1e-6)


@given(st.integers(0, 10_000))
def test_iou_is_symmetric_and_in_range(seed: int) -> None:
    first, second = random_boxes(seed, 5), random_boxes(seed + 1, 7)
    matrix = boxes.iou(first, second)
    np.testing.assert_allclose(matrix, boxes.iou(second, first).T, rtol=1e-6)
    assert ((matrix >= 0) & (matrix <= 1)).all()
    np.testing.assert_allclose(np.diag(boxes.iou(first, first)), 1, rtol=1e-5)


def test_clip() -> None:
    box = np.array([[-5, -5, 200, 90], [10, 20, 30, 40]], np.float32)
    clipped = boxes.clip(box, 50, 100)
    assert clipped.tolist() == [[0, 0, 100, 50], [10, 20, 30, 40]]
    assert clipped.dtype == np.float32


def test_nms_keeps_the_best_of_each_class() -> None:
    box = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    scores = np.array([0.5, 0.9, 0.8, 0.1], np.float32)
    classes = np.array([0, 0, 1, 0])
    assert boxes.nms(box, scores, classes, 0.6).tolist() == [1, 2, 3]
    assert boxes.nms(box, scores, classes, 0.95).tolist() == [1, 2, 0, 3]


def test_nms_spares_an_overlap_of_exactly_the_threshold() -> None:
    box = np.array([[0, 0, 2, 1], [1, 0, 2, 1]], np.float32)
    args = (np.array([0.9, 0.8], np.float32), np.array([0, 0]))
    assert boxes.nms(box, *args, 0.5).tolist() == [0, 1]
    assert boxes.nms(box, *args, 0.4999).tolist() == [0]


@given(st.integers(0, 10_000))
def test_nms_leaves_no_overlap_and_drops_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    box, scores = random_boxes(seed, 30), rng.random(30).astype(np.float32)
    classes = rng.integers(0, 3, 30)
    kept = boxes.nms(box, scores, classes, 0.3)
    rivals = (boxes.iou(box, box) > 0.3) & (classes[:, None] == classes[None])
    for index in range(30):
        beaten = [k for k in kept if rivals[index, k] and scores[k] > scores[index]]
        assert (index in kept) == (not beaten)
    assert (np.diff(scores[kept]) <= 0).all()


def test_nothing_in_nothing_out() -> None:
    none = np.zeros((0, 4), np.float32)
    assert boxes.iou(none, none).shape == (0, 0)
    assert boxes.nms(none, none[:, 0], np.zeros(0, np.int64), 0.5).shape == (0,)
