from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from centermask_edge.model.checks import (
    Check,
    Table,
    at_most,
    largest_difference,
    match,
    number,
    relative_error,
)

BOXES = np.array([[0, 0, 10, 10], [0, 0, 10.5, 10], [30, 30, 40, 40], [5, 5, 5, 5]], np.float32)
CLASSES = np.array([0, 0, 1, 0])


def table(*passed: bool) -> Table:
    return Table("t", "n", ("a",), tuple(Check(("x",), "1", p) for p in passed))


def test_one_failed_check_fails_the_table_and_so_does_none() -> None:
    assert table(True, True).passed
    assert not table(True, False).passed
    assert not table().passed


def test_a_table_says_which_row_failed() -> None:
    part = table(True, False)
    assert part.rows() == [["x", "1", "pass"], ["x", "1", "FAIL"]]
    assert part.to_markdown().count("| x | 1 | FAIL |") == 1
    assert part.to_json()["passed"] is False


@pytest.mark.parametrize(
    ("values", "passed"),
    [([], True), ([1e-4, 0.0], True), ([1.1e-4], False), ([0.0, np.nan], False), ([np.inf], False)],
)
def test_limit_is_included_and_nothing_odd_passes(values: list[float], passed: bool) -> None:
    assert at_most("x", values, 1e-4).passed is passed


def test_numbers_stay_short() -> None:
    assert [number(v) for v in (0.0, 1.234e-7, 2.0)] == ["0", "1.2e-07", "2.0e+00"]


def test_shapes_that_differ_are_infinitely_far_apart() -> None:
    a, b = np.zeros((2, 3)), np.zeros((3, 2))
    assert relative_error(a, b) == largest_difference(a, b) == float("inf")
    assert relative_error(np.zeros(0), np.zeros(0)) == 0


def test_relative_error_is_by_the_largest_value() -> None:
    assert relative_error(np.array([0.0, 9.0]), np.array([1.0, 10.0])) == pytest.approx(0.1)
    assert relative_error(np.array([0.5]), np.array([0.0])) == 0.5


def test_near_twins_are_told_apart_by_their_corners() -> None:
    assert match(BOXES, CLASSES, BOXES[[1, 0]], CLASSES[[1, 0]]).tolist() == [1, 0]


def test_each_detection_is_used_once() -> None:
    assert match(BOXES[:1], CLASSES[:1], BOXES[:2], CLASSES[:2]).tolist() == [0, -1]


def test_class_and_overlap_must_fit() -> None:
    assert match(BOXES[:1], np.array([1]), BOXES[:1], CLASSES[:1]).tolist() == [-1]
    assert match(BOXES[:1] + 8, CLASSES[:1], BOXES[:1], CLASSES[:1]).tolist() == [-1]


def test_a_box_without_area_still_finds_itself() -> None:
    assert match(BOXES[3:], CLASSES[3:], BOXES[3:], CLASSES[3:]).tolist() == [0]


def test_nothing_to_match() -> None:
    none, no_class = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    assert match(none, no_class, BOXES, CLASSES).tolist() == [-1] * 4
    assert match(BOXES, CLASSES, none, no_class).tolist() == []


@given(st.integers(0, 10_000))
def test_a_shuffled_copy_is_found_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (12, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 30, (12, 2))], 1).astype(np.float32)
    classes = rng.integers(0, 3, 12)
    order = rng.permutation(12)
    found = match(boxes[order], classes[order], boxes, classes)
    np.testing.assert_array_equal(order[found], np.arange(12))
