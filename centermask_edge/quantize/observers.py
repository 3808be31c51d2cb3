"""How large a magnitude 8 bits should still represent: max, percentile, entropy and MSE.

All four are read from the same streaming histogram of |x|, so that one collection serves every
observer. Memory is constant: the bins stay, their width doubles when a value lies beyond the
last. Widths are powers of two, so two histograms of one tensor always fit together.
Sources: entropy is the calibration of S. Migacz, "8-bit Inference with TensorRT" (GTC 2017); MSE
minimises the expected squared rounding and clipping error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from centermask_edge.quantize.errors import QuantizationError

BINS = 2048
PERCENTILE = 99.99
_MSE_STEP = 8  # thresholds tried by MSE: every so many bins


class Observer(str, Enum):
    """How the range of a tensor is chosen; the values are those of ``--observer``."""

    MAX = "max"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


@dataclass(slots=True)
class Histogram:
    """Counts of |x| of one tensor, in constant memory.

    Attributes:
        name: of the tensor, for errors.
        counts: int64 (BINS,); bin i holds [i * width, (i + 1) * width), without exact zeros.
        width: of a bin, a power of two; 0 before the first value that is not zero.
        zeros: exact zeros, of which ReLU makes many.
        maximum: largest |x|, exact.
    """

    name: str
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    width: float = 0.0
    zeros: int = 0
    maximum: float = 0.0

    @property
    def total(self) -> int:
        """Number of values seen."""
        return self.zeros + int(self.counts.sum())

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape.

        Raises:
            QuantizationError: one of them is infinite or not a number.
        """
        if not values.size:
            return
        size = np.abs(values.reshape(-1))
        largest = float(size.max())
        if not math.isfinite(largest):
            raise QuantizationError(
                f"the activation {self.name!r} holds {largest} on a calibration picture; "
                "an INT8 range needs finite values: check the weights of the model"
            )
        self.maximum = max(self.maximum, largest)
        if largest == 0:
            self.zeros += size.size
            return
        self._widen(_width_for(largest))
        index = np.minimum((size * np.float32(1 / self.width)).astype(np.int32), BINS - 1)
        zeros = size.size - int(np.count_nonzero(size))
        counts = np.bincount(index, minlength=BINS)
        counts[0] -= zeros
        self.counts += counts
        self.zeros += zeros

    def merge(self, other: Histogram) -> None:
        """Count what another histogram has counted."""
        self.maximum = max(self.maximum, other.maximum)
        self.zeros += other.zeros
        if other.width == 0:
            return
        self._widen(other.width)
        self.counts += _coarser(other.counts, other.width, self.width)

    def _widen(self, width: float) -> None:
        if self.width == 0:
            self.width = width
        elif width > self.width:
            self.counts = _coarser(self.counts, self.width, width)
            self.width = width


def _width_for(largest: float) -> float:
    """Smallest power of two with which all bins together reach the value."""
    return float(2.0 ** math.ceil(math.log2(largest / BINS)))


def _coarser(counts: NDArray[np.int64], width: float, wanted: float) -> NDArray[np.int64]:
    factor = round(wanted / width)
    if factor == 1:
        return counts
    result = np.zeros_like(counts)
    np.add.at(result, np.arange(BINS) // factor, counts)
    return result


def merged(name: str, histograms: list[Histogram]) -> Histogram:
    """One histogram of all that several have counted: that of a scale group."""
    result = Histogram(name)
    for histogram in histograms:
        result.merge(histogram)
    return result


def threshold(
    histogram: Histogram, observer: Observer, levels: int = 127, percentile: float = PERCENTILE
) -> float:
    """The largest magnitude that a tensor's codes should represent.

    Args:
        histogram: of the tensor, or of its scale group.
        observer: how to choose.
        levels: positive codes: 127 signed, 255 unsigned.
        percentile: of all values, zeros included, that ``PERCENTILE`` leaves unclipped.

    Raises:
        QuantizationError: the tensor was never seen, or was zero throughout.
    """
    if histogram.total == 0:
        raise QuantizationError(
            f"the activation {histogram.name!r} was never computed on the calibration pictures, "
            "so it has no range; calibrate with pictures that hold objects the model finds"
        )
    if histogram.maximum == 0:
        raise QuantizationError(
            f"the activation {histogram.name!r} has a range of zero on the calibration pictures; "
            "calibrate with real pictures, or keep the operation that reads it in float"
        )
    if observer is Observer.MAX:
        return histogram.maximum
    if observer is Observer.PERCENTILE:
        return _percentile(histogram, percentile)
    chosen = (
        _entropy(histogram, levels) if observer is Observer.ENTROPY else _mse(histogram, levels)
    )
    return min(chosen, histogram.maximum)


def _percentile(histogram: Histogram, percentile: float) -> float:
    """Upper end of the bin in which the percentile lies."""
    below = histogram.zeros + np.cumsum(histogram.counts)
    index = int(np.searchsorted(below, below[-1] * percentile / 100))
    return min((min(index, BINS - 1) + 1) * histogram.width, histogram.maximum)


def _entropy(histogram: Histogram, levels: int) -> float:
    """End of the prefix whose requantized distribution loses the least information."""
    counts = histogram.counts.astype(np.float64)
    used = int(np.flatnonzero(counts)[-1]) + 1
    if used <= levels:
        return used * histogram.width
    divergences = [_divergence(counts, end, levels) for end in range(levels, used + 1)]
    return (levels + int(np.argmin(divergences))) * histogram.width


def _divergence(counts: NDArray[np.float64], end: int, levels: int) -> float:
    """Kullback-Leibler divergence of ``levels`` codes over the first ``end`` bins.

    P is the prefix with everything beyond it put on its last bin; Q spreads each code's count
    evenly over those of its bins that are not empty.
    """
    prefix = counts[:end]
    p = prefix.copy()
    p[-1] += counts[end:].sum()
    code = np.arange(end) * levels // end
    filled = prefix > 0
    mass = np.bincount(code, prefix, levels)
    bins = np.bincount(code, filled, levels)
    q = np.where(filled, (mass / np.maximum(bins, 1))[code], 0)
    seen = p > 0
    if (q[seen] == 0).any():
        return math.inf
    p, q = p / p.sum(), q / q.sum()
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


def _mse(histogram: Histogram, levels: int) -> float:
    """The threshold with the smallest squared error, each bin taken at its middle."""
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1
    values = (np.arange(used, dtype=np.float64) + 0.5) * histogram.width
    counts = histogram.counts[:used].astype(np.float64)
    ends = np.append(np.arange(_MSE_STEP, used, _MSE_STEP), used)
    errors = [squared_error(values, counts, end * histogram.width, levels) for end in ends]
    return float(ends[int(np.argmin(errors))] * histogram.width)


def squared_error(
    values: NDArray[np.float64], counts: NDArray[np.float64], limit: float, levels: int
) -> float:
    """Sum of squared differences between values and what ``levels`` codes up to a limit give."""
    step = limit / levels
    codes = np.minimum(np.rint(values / step), levels)
    return float((counts * (values - codes * step) ** 2).sum())
