"""Observers against their definitions, worked out the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.observers import (
    BINS,
    Histogram,
    Observer,
    merged,
    squared_error,
    threshold,
)


def values(seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    x = rng.laplace(size=20_000) * scale
    x[rng.random(x.size) < 0.3] = 0
    return x.astype(np.float32)


def histogram(*parts: NDArray[np.float32]) -> Histogram:
    result = Histogram("x")
    for part in parts:
        result.add(part)
    return result


def test_counts_are_those_of_numpy() -> None:
    x = values()
    found = histogram(x)
    size = np.abs(x[x != 0])
    edges = np.arange(BINS + 1) * found.width
    wanted = np.histogram(size, edges)[0]
    assert np.array_equal(found.counts, wanted)
    assert found.zeros == np.count_nonzero(x == 0)
    assert found.maximum == size.max()
    assert math.log2(found.width) == int(math.log2(found.width))
    assert size.max() <= found.width * BINS < 2 * size.max()


def test_parts_count_as_the_whole_in_any_order_and_scale() -> None:
    parts = [values(seed, scale) for seed, scale in ((1, 0.01), (2, 30.0), (3, 1.0))]
    whole = histogram(np.concatenate(parts))
    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0)):
        found = histogram(*(parts[i] for i in order))
        assert np.array_equal(found.counts, whole.counts)
        assert (found.width, found.zeros, found.maximum) == (
            whole.width,
            whole.zeros,
            whole.maximum,
        )
    both = merged("group", [histogram(part) for part in parts])
    assert np.array_equal(both.counts, whole.counts)
    assert both.total == whole.total == sum(p.size for p in parts)


def test_memory_stays_constant() -> None:
    found = Histogram("x")
    for power in range(-20, 20):
        found.add(np.full(10, 2.0**power, np.float32))
    assert found.counts.shape == (BINS,)
    assert found.total == 400


def test_max_is_the_largest_magnitude() -> None:
    x = values()
    assert threshold(histogram(x), Observer.MAX) == np.abs(x).max()


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.99])
def test_percentile_is_that_of_numpy_within_a_bin(percentile: float) -> None:
    x = values()
    found = histogram(x)
    wanted = np.percentile(np.abs(x), percentile, method="inverted_cdf")
    chosen = threshold(found, Observer.PERCENTILE, percentile=percentile)
    assert wanted <= chosen <= wanted + found.width


@pytest.mark.parametrize("levels", [127, 255])
def test_mse_is_the_best_of_all_thresholds(levels: int) -> None:
    x = values()
    x[0] = 30.0  # an outlier that is worth clipping
    found = histogram(x)
    chosen = threshold(found, Observer.MSE, levels)

    def error(limit: float) -> float:
        step = limit / levels
        codes = np.clip(np.rint(np.abs(x) / step), 0, levels)
        return float(np.square(np.abs(x) - codes * step).sum())

    candidates = np.arange(8, BINS + 1, 8) * found.width
    best = min(error(c) for c in candidates if c < found.maximum + 8 * found.width)
    # A bin stands at its middle, and a code of 255 is only eight bins wide.
    assert error(chosen) <= 1.05 * best
    assert error(chosen) < error(found.maximum)


def test_squared_error_by_hand() -> None:
    # Step 1: 0.4 rounds to 0, 1.6 to 2, 5 is clipped to 3.
    found = squared_error(np.array([0.4, 1.6, 5.0]), np.array([1.0, 2.0, 3.0]), 3.0, 3)
    assert found == pytest.approx(0.16 + 2 * 0.16 + 3 * 4)


def slow_entropy(counts: NDArray[np.int64], levels: int) -> int:
    """The end chosen by the definition, bin by bin in plain Python."""
    used = max(i for i, c in enumerate(counts) if c) + 1
    best, best_end = math.inf, levels
    for end in range(levels, used + 1):
        p = [float(c) for c in counts[:end]]
        q = [0.0] * end
        for code in range(levels):
            bins = [i for i in range(end) if i * levels // end == code]
            filled = [i for i in bins if counts[i]]
            for i in filled:
                q[i] = sum(float(counts[j]) for j in bins) / len(filled)
        p[-1] += float(counts[end:].sum())
        kl = 0.0
        for a, b in zip(p, q, strict=True):
            if a:
                kl += math.inf if b == 0 else a / sum(p) * math.log(a / sum(p) / (b / sum(q)))
        if kl < best:
            best, best_end = kl, end
    return best_end


def test_entropy_is_its_definition() -> None:
    rng = np.random.default_rng(5)
    found = Histogram("x")
    # Few bins, so that the slow way ends: a bulk and a far tail.
    found.add((np.abs(rng.standard_normal(3000)) * 20).astype(np.float32))
    found.counts = np.bincount(
        np.minimum((np.abs(rng.standard_normal(4000)) * 25).astype(int), 119), minlength=BINS
    )
    levels = 15
    wanted = slow_entropy(found.counts, levels) * found.width
    assert threshold(found, Observer.ENTROPY, levels) == min(wanted, found.maximum)
    assert wanted < 120 * found.width


def test_a_uniform_distribution_is_not_clipped() -> None:
    x = np.linspace(0.001, 1, 200_000, dtype=np.float32)
    for observer in Observer:
        assert threshold(histogram(x), observer) > 0.97


@pytest.mark.parametrize("observer", list(Observer))
def test_a_range_of_zero_is_refused_by_name(observer: Observer) -> None:
    found = histogram(np.zeros(5, np.float32))
    with pytest.raises(QuantizationError, match=r"'x' has a range of zero"):
        threshold(found, observer)


def test_a_tensor_never_seen_is_refused_by_name() -> None:
    with pytest.raises(QuantizationError, match=r"'x' was never computed"):
        threshold(Histogram("x"), Observer.MAX)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_name(bad: float) -> None:
    with pytest.raises(QuantizationError, match=r"'x' holds (nan|inf)"):
        histogram(np.array([1.0, bad], np.float32))


def test_empty_arrays_count_nothing() -> None:
    found = histogram(np.zeros((0, 3), np.float32))
    assert found.total == 0


def test_tiny_and_zero_thresholds_stay_positive() -> None:
    x = np.zeros(100_000, np.float32)
    x[0] = 1e-6
    for observer in Observer:
        assert threshold(histogram(x), observer) > 0
