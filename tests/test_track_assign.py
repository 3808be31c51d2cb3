"""The assignment is the best there is, whatever the gains."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from centermask_edge.live.track.assign import Doubles, assign

SMALL = array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5)


def best(gain: Doubles) -> float:
    """The largest total by trying everything."""
    worth = np.maximum(gain, 0)
    if worth.shape[0] > worth.shape[1]:
        worth = worth.T
    rows = range(worth.shape[0])
    orders = itertools.permutations(range(worth.shape[1]), worth.shape[0])
    return max((sum(worth[i, order[i]] for i in rows) for order in orders), default=0.0)


def check(gain: Doubles, total: float) -> None:
    rows, columns = assign(gain)
    assert rows.dtype == columns.dtype == np.int64
    assert (np.diff(rows) > 0).all() and len(set(columns.tolist())) == len(columns)
    assert (gain[rows, columns] > 0).all()
    assert gain[rows, columns].sum() == pytest.approx(total)


@settings(max_examples=150, deadline=None)
@given(arrays(np.float64, SMALL, elements=st.floats(-1, 1, width=32)))
def test_no_other_assignment_is_better(gain: Doubles) -> None:
    check(gain, best(gain))


@settings(max_examples=150, deadline=None)
@given(arrays(np.float64, SMALL, elements=st.integers(-1, 2)))
def test_ties_do_not_matter(gain: Doubles) -> None:
    check(gain, best(gain))


@pytest.mark.parametrize("shape", [(6, 6), (4, 6), (6, 4)])
@pytest.mark.parametrize("ties", [False, True])
def test_six_each_way_agree_with_trying_everything(shape: tuple[int, int], ties: bool) -> None:
    rng = np.random.default_rng(5)
    for _ in range(6):
        gain = rng.random(shape) - 0.3
        gain = np.round(3 * gain) if ties else gain
        check(gain, best(gain))


def most_by_exchange(worth: Doubles, column_of: NDArray[np.int64]) -> float:
    """The most that rows can win by handing their columns round a circle: none at the optimum.

    Longest paths, one row more each time: what a circle wins, it wins again and again.
    """
    rows = np.arange(worth.shape[0])
    wins = worth[:, column_of] - worth[rows, column_of][:, None]
    path = np.zeros(rows.size)
    for _ in range(rows.size):
        path = (wins + path).max(1)
    return float(((wins + path).max(1) - path).max())


@pytest.mark.parametrize("shape", [(100, 100), (60, 90), (90, 60)])
@pytest.mark.parametrize("steps", [0, 2, 8])
def test_nobody_can_win_by_an_exchange(shape: tuple[int, int], steps: int) -> None:
    gain = np.random.default_rng(5).random(shape) - 0.3
    gain = np.round(steps * gain) if steps else gain
    rows, columns = assign(gain)
    side = max(shape)
    worth = np.zeros((side, side))
    worth[: shape[0], : shape[1]] = np.maximum(gain, 0)
    column_of = np.full(side, -1, np.int64)
    column_of[rows] = columns
    column_of[column_of < 0] = np.setdiff1d(np.arange(side), columns)
    assert worth[np.arange(side), column_of].sum() == pytest.approx(gain[rows, columns].sum())
    assert most_by_exchange(worth, column_of) < 1e-9
    # The check can fail: two rows change columns.
    column_of[[0, 1]] = column_of[[1, 0]]
    assert steps == 2 or most_by_exchange(worth, column_of) > 1e-9


def test_what_is_no_number_is_no_gain() -> None:
    rows, columns = assign(np.array([[np.nan, 0.5], [np.nan, np.nan]]))
    assert rows.tolist() == [0] and columns.tolist() == [1]


@pytest.mark.parametrize("steps", [0, 2])
def test_a_hundred_each_way_are_quick(steps: int) -> None:
    gain = np.random.default_rng(1).random((100, 100))
    gain = np.round(steps * (gain - 0.3)) if steps else gain
    took = []
    for _ in range(9):
        start = time.thread_time()
        assign(gain)
        took.append(time.thread_time() - start)
    # 3 ms on the machine it was written on; the rest is room for slower ones.
    assert min(took) < 0.01
