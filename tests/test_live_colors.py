"""Colours stay with what stays in its place."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from centermask_edge.instances import Instances
from centermask_edge.live.outputs.colors import ColorMemory


def found(*corners: tuple[float, float], side: float = 10) -> Instances:
    boxes = np.array([(x, y, x + side, y + side) for x, y in corners], np.float32).reshape(-1, 4)
    k = len(corners)
    scores = np.linspace(0.9, 0.5, k, dtype=np.float32)
    masks = np.zeros((k, 28, 28), np.float32)
    return Instances(boxes, scores, scores, np.zeros(k, np.int64), masks, (1000, 1000))


def test_a_colour_follows_its_object_and_not_its_rank() -> None:
    memory = ColorMemory()
    assert memory.assign(found((0, 0), (50, 0), (90, 0))) == [0, 1, 2]
    assert memory.assign(found((92, 0), (1, 1), (51, 0))) == [2, 0, 1]


def test_a_newcomer_takes_no_colour_that_is_in_use() -> None:
    memory = ColorMemory()
    memory.assign(found((0, 0), (50, 0)))
    assert memory.assign(found((200, 0), (50, 0), (0, 0))) == [2, 1, 0]


def test_one_colour_goes_to_the_better_of_two() -> None:
    memory = ColorMemory()
    memory.assign(found((0, 0)))
    assert memory.assign(found((1, 0), (2, 0))) == [0, 1]


def test_a_colour_is_kept_for_an_object_missed_for_some_frames() -> None:
    memory = ColorMemory()
    memory.assign(found((0, 0), (50, 0)))
    for _ in range(5):
        assert memory.assign(found((50, 0))) == [1]
    assert memory.assign(found((0, 0), (50, 0))) == [0, 1]


def test_and_given_away_in_the_end() -> None:
    memory = ColorMemory()
    memory.assign(found((0, 0)))
    for _ in range(20):
        assert memory.assign(found()) == []
    assert memory.assign(found((500, 500))) == [0]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6), max_size=8)
)
def test_no_two_in_a_frame_share_a_number(frames: list[list[tuple[int, int]]]) -> None:
    memory = ColorMemory()
    for corners in frames:
        numbers = memory.assign(found(*corners))
        assert len(numbers) == len(set(numbers)) == len(corners)
        assert all(0 <= n < 70 for n in numbers)
