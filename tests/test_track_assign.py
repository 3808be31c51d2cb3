"""The assignment is the best there is, whatever the gains."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

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


@pytest.mark.parametrize("shape", [(100, 100), (60, 90), (90, 60)])
@pytest.mark.parametrize("ties", [False, True])
def test_large_ones_agree_with_scipy(shape: tuple[int, int], ties: bool) -> None:
    scipy = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(5)
    gain = rng.random(shape) - 0.3
    if ties:
        gain = np.round(8 * gain)
    worth = np.maximum(gain, 0)
    check(gain, worth[scipy.linear_sum_assignment(-worth)].sum())


def test_what_is_no_number_is_no_gain() -> None:
    rows, columns = assign(np.array([[np.nan, 0.5], [np.nan, np.nan]]))
    assert rows.tolist() == [0] and columns.tolist() == [1]


def test_a_hundred_each_way_are_quick() -> None:
    gain = np.random.default_rng(1).random((100, 100))
    took = []
    for _ in range(9):
        start = time.thread_time()
        assign(gain)
        took.append(time.thread_time() - start)
    # 2.8 ms on the machine it was written on; the rest is room for slower ones.
    assert min(took) < 0.01
