"""Overlap of masks on crops, and motion in seconds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from track_scenes import DISC, FULL, LOWER, SIZE, UPPER, Floats, box

from centermask_edge.live.track.motion import Motion
from centermask_edge.live.track.overlap import mask_iou
from centermask_edge.masks import paste_full

SHAPES = st.sampled_from([DISC, FULL, LOWER, UPPER])
BOXES = st.tuples(st.floats(60, 240), st.floats(60, 180), st.floats(20, 110), st.floats(20, 110))
FIRST = np.zeros(1, np.int64)


@settings(max_examples=150, deadline=None)
@given(BOXES, BOXES, SHAPES, SHAPES)
def test_overlap_is_that_of_the_pasted_masks(
    a: tuple[float, ...], b: tuple[float, ...], mask_a: Floats, mask_b: Floats
) -> None:
    boxes = [np.array([box(*v)], np.float32) for v in (a, b)]
    full = [
        paste_full(mask, places[0], *SIZE)
        for mask, places in zip((mask_a, mask_b), boxes, strict=True)
    ]
    expected = (full[0] & full[1]).sum() / (full[0] | full[1]).sum()
    first, second = (boxes[0], mask_a[None] >= 0.5), (boxes[1], mask_b[None] >= 0.5)
    found = mask_iou(first, second, (FIRST, FIRST))
    assert found.dtype == np.float32
    assert found[0] == pytest.approx(expected, abs=0.08)


def test_each_pair_has_its_own_overlap() -> None:
    boxes = np.array([box(100, 100), box(200, 100)], np.float32)
    shapes = np.stack([UPPER, LOWER]) >= 0.5
    pairs = np.array([0, 1, 0, 1, 0]), np.array([0, 1, 1, 2, 2])
    second = np.concatenate([boxes, boxes[:1]]), np.stack([UPPER, LOWER, LOWER]) >= 0.5
    found = mask_iou((boxes, shapes), second, pairs)
    assert found == pytest.approx([1, 1, 0, 0, 0], abs=0.08)
    assert mask_iou((boxes, shapes & False), second, pairs).max() == 0


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_two_steps_are_one_of_their_length(first_s: float, second_s: float) -> None:
    start = np.array([box(100, 100)], np.float32)
    once, twice = Motion.at(start), Motion.at(start)
    for motion in (once, twice):
        motion.predict(0.1, np.zeros(1, np.bool_))
        motion.correct(FIRST, start + np.float32(4))
    once.predict(first_s + second_s, np.zeros(1, np.bool_))
    twice.predict(first_s, np.zeros(1, np.bool_))
    twice.predict(second_s, np.zeros(1, np.bool_))
    for name in ("place", "speed", "place_var", "cross_var", "speed_var"):
        np.testing.assert_allclose(getattr(twice, name), getattr(once, name), rtol=1e-9)


def test_speed_is_learned_and_size_of_the_unseen_stays() -> None:
    motion = Motion.at(np.array([box(50, 100)], np.float32))
    for k in range(1, 15):
        motion.predict(0.1, np.zeros(1, np.bool_))
        motion.correct(FIRST, np.array([box(50 + 5 * k, 100, 30 + k, 60)], np.float32))
    assert motion.speed[0, 0] == pytest.approx(50, rel=0.05)
    sides = motion.place[0, 2:].copy()
    motion.predict(2.0, np.ones(1, np.bool_))
    np.testing.assert_array_equal(motion.place[0, 2:], sides)
    assert motion.boxes()[0, [0, 2]].mean() == pytest.approx(120 + 100, abs=8)
    assert (motion.speed_var > 0).all() and (motion.place_var > 0).all()
