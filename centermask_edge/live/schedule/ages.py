"""How old results are: percentiles over the last seconds and a whole run, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WINDOW_S = 10.0
_MOST = 4096  # samples of a window, should a camera be faster than anybody thought
# Bins of the whole run: 2 % wide, from 0.1 ms to beyond 10 minutes.
_FIRST_S = 1e-4
_RATIO = 1.02
_BINS = 800


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of ages or of other durations, in seconds; all 0 where ``count`` is 0."""

    p50_s: float = 0.0
    p95_s: float = 0.0
    p99_s: float = 0.0
    count: int = 0


def percentiles(seconds: list[float]) -> Percentiles:
    """Of those durations.

    >>> percentiles([0.1, 0.2, 0.3]).p50_s
    0.2
    """
    if not seconds:
        return Percentiles()
    p50, p95, p99 = np.percentile(np.array(seconds), (50, 95, 99)).tolist()
    return Percentiles(p50, p95, p99, len(seconds))


class Window:
    """Durations of the last seconds; safe to read from another thread.

    Args:
        length_s: how far back it goes.
        clock: seconds, monotonic.
    """

    def __init__(
        self, length_s: float = _WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._length_s, self._clock = length_s, clock
        self._lock = threading.Lock()
        self._samples: deque[tuple[float, float]] = deque(maxlen=_MOST)

    def add(self, seconds: float) -> None:
        """One duration, as of now."""
        now = self._clock()
        with self._lock:
            self._samples.append((now, seconds))
            self._forget(now)

    def read(self) -> Percentiles:
        """Percentiles of those that are not too old."""
        return percentiles([seconds for _, seconds in self._recent()])

    def sum_s(self) -> float:
        """Their sum in seconds."""
        return sum(seconds for _, seconds in self._recent())

    def rate_hz(self) -> float:
        """Durations added a second, over the window."""
        recent = self._recent()
        if len(recent) < 2:
            return 0.0
        # Up to now, not to the last one: what stopped falls to zero.
        return (len(recent) - 1) / max(self._clock() - recent[0][0], 1e-9)

    def _recent(self) -> list[tuple[float, float]]:
        with self._lock:
            self._forget(self._clock())
            return list(self._samples)

    def _forget(self, now: float) -> None:
        while self._samples and self._samples[0][0] < now - self._length_s:
            self._samples.popleft()


class RunningPercentiles:
    """Percentiles of any number of durations, to 2 %, in constant memory."""

    def __init__(self) -> None:
        self._bins: NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self.count = 0
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """One duration."""
        place = np.log(max(seconds, _FIRST_S) / _FIRST_S) / np.log(_RATIO)
        self._bins[min(int(place), _BINS - 1)] += 1
        self.count += 1
        self.sum_s += seconds

    def merge(self, other: RunningPercentiles) -> None:
        """Those of another, too."""
        self._bins += other._bins
        self.count += other.count
        self.sum_s += other.sum_s

    def read(self) -> Percentiles:
        """Percentiles, each the middle of its bin.

        >>> ages = RunningPercentiles()
        >>> for age_ms in range(1, 101):
        ...     ages.add(age_ms / 1000)
        >>> round(ages.read().p95_s, 3), ages.read().count
        (0.095, 100)
        """
        if not self.count:
            return Percentiles()
        ranks = np.array([0.50, 0.95, 0.99]) * self.count
        places = np.searchsorted(np.cumsum(self._bins), np.ceil(ranks))
        p50, p95, p99 = (_FIRST_S * _RATIO ** (places + 0.5)).tolist()
        return Percentiles(p50, p95, p99, self.count)

    def up_to(self, seconds: float) -> int:
        """How many were at most that long, to a bin: for the buckets of a histogram."""
        place = np.log(max(seconds, _FIRST_S) / _FIRST_S) / np.log(_RATIO)
        return int(self._bins[: min(round(float(place)), _BINS)].sum())


class Ages:
    """Ages of one camera's results: the last seconds and the whole run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.recent = Window(clock=clock)
        self.run = RunningPercentiles()

    def add(self, age_s: float) -> None:
        """The age of one result."""
        self.recent.add(age_s)
        self.run.add(age_s)
