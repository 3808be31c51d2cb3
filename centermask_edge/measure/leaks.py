"""Whether a process that runs for long keeps what it takes: memory, descriptors, threads.

The slope is Theil-Sen's, the median of the slopes of all pairs (Sen 1968), with his interval from
Kendall's variance: a burst of work or one collection of garbage does not move it. Only the second
half of a run counts, as the first fills caches and pools. Samples are thinned to medians of
blocks, which also takes out most of their dependence on each other.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_BLOCKS = 200
_KEPT = 4096
_LEAST_S = 60.0
_LEAST_SAMPLES = 30
_Z95 = 1.96
_PROC = Path("/proc/self")


class Resource(str, Enum):
    """What can leak."""

    MEMORY = "memory"
    DESCRIPTORS = "file descriptors"
    THREADS = "threads"


# What has to be exceeded by the slope's lower end, an hour, and by the growth within the second
# half: below, allocators and pools do as they please.
_LIMITS = {
    Resource.MEMORY: (2.0, 1.0),  # MB
    Resource.DESCRIPTORS: (1.0, 2.0),
    Resource.THREADS: (1.0, 2.0),
}
_UNITS = {Resource.MEMORY: "MB/h", Resource.DESCRIPTORS: "/h", Resource.THREADS: "/h"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment: seconds, megabytes resident, open descriptors, threads."""

    time_s: float
    memory_mb: float
    descriptors: int
    threads: int


def sample() -> Sample:
    """This process now; descriptors 0 and the memory that of its peak where there is no /proc."""
    now = time.monotonic()
    try:
        pages = int((_PROC / "statm").read_text().split()[1])
        threads = len(os.listdir(_PROC / "task"))
        # Not counting the one that reads the folder.
        descriptors = len(os.listdir(_PROC / "fd")) - 1
        return Sample(now, pages * os.sysconf("SC_PAGE_SIZE") / 1e6, descriptors, threads)
    except OSError:
        import resource
        import threading

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Sample(now, peak / 1e3, 0, threading.active_count())


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth of a series: per hour, with its 95 % interval, and in all over what was looked at."""

    per_hour: float
    low: float
    high: float
    growth: float


def theil_sen(times_s: NDArray[np.float64], values: NDArray[np.float64]) -> Slope:
    """The median slope of a series, per hour, with Sen's 95 % interval.

    Args:
        times_s: (N,) ascending, seconds, N at least 2.
        values: (N,).

    >>> hours = np.arange(10.0)
    >>> theil_sen(3600 * hours, 5 * hours).per_hour
    5.0
    """
    i, j = np.triu_indices(times_s.size, 1)
    slopes = np.sort((values[j] - values[i]) / (times_s[j] - times_s[i])) * 3600
    n = times_s.size
    spread = _Z95 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = int(np.clip((slopes.size - spread) / 2, 0, slopes.size - 1))
    high = int(np.clip((slopes.size + spread) / 2, 0, slopes.size - 1))
    tenth = max(n // 10, 1)
    growth = float(np.median(values[-tenth:]) - np.median(values[:tenth]))
    return Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]), growth)


@dataclass(frozen=True, slots=True)
class Finding:
    """One resource over the second half of a run."""

    resource: Resource
    slope: Slope
    first: float
    last: float
    leaks: bool

    def __str__(self) -> str:
        """One line."""
        slope, unit = self.slope, _UNITS[self.resource]
        size = " MB" if self.resource is Resource.MEMORY else ""
        word = "grows" if self.leaks else "steady"
        return (
            f"{self.resource.value}: {word}, {slope.per_hour:+.1f} {unit} "
            f"(95 % {slope.low:+.1f} to {slope.high:+.1f}), {self.first:.0f} to {self.last:.0f}"
            f"{size}"
        )


@dataclass(frozen=True, slots=True)
class LeakVerdict:
    """What a soak shows.

    Attributes:
        findings: memory, descriptors, threads; empty where the run was too short to tell.
        seconds: it lasted.
    """

    findings: tuple[Finding, ...]
    seconds: float

    @property
    def leaks(self) -> bool:
        """Whether anything grows without end."""
        return any(finding.leaks for finding in self.findings)

    def lines(self) -> list[str]:
        """For the terminal."""
        if not self.findings:
            return [
                f"soak: {self.seconds:.0f} s are too short to tell; "
                f"wanted {_LEAST_S:.0f} s or more, better an hour"
            ]
        word = "LEAK" if self.leaks else "no leak"
        head = f"soak: {word} in the second half of {self.seconds:.0f} s"
        return [head, *(f"  {finding}" for finding in self.findings)]


@dataclass(slots=True)
class Soak:
    """Samples of a run of any length, in bounded memory: when full, every second one goes."""

    _samples: list[Sample] = field(default_factory=list)
    _every: int = 1
    _count: int = 0

    def add(self, found: Sample) -> None:
        """One sample, in the order of time."""
        if self._count % self._every == 0:
            self._samples.append(found)
        self._count += 1
        if len(self._samples) >= _KEPT:
            self._samples = self._samples[::2]
            self._every *= 2

    def verdict(self) -> LeakVerdict:
        """What they show; see :func:`verdict`."""
        return verdict(self._samples)


def verdict(samples: list[Sample]) -> LeakVerdict:
    """Whether the second half of a run grows.

    Args:
        samples: in the order of time.
    """
    seconds = samples[-1].time_s - samples[0].time_s if samples else 0.0
    half = [s for s in samples if s.time_s >= samples[0].time_s + seconds / 2]
    if seconds < _LEAST_S or len(half) < _LEAST_SAMPLES // 2:
        return LeakVerdict((), seconds)
    times = np.array([s.time_s for s in half])
    series = {
        Resource.MEMORY: np.array([s.memory_mb for s in half]),
        Resource.DESCRIPTORS: np.array([s.descriptors for s in half], np.float64),
        Resource.THREADS: np.array([s.threads for s in half], np.float64),
    }
    return LeakVerdict(tuple(_finding(r, times, v) for r, v in series.items()), seconds)


def _finding(
    resource: Resource, times: NDArray[np.float64], values: NDArray[np.float64]
) -> Finding:
    blocks = min(_BLOCKS, times.size)
    at = np.array([np.median(part) for part in np.array_split(times, blocks)])
    level = np.array([np.median(part) for part in np.array_split(values, blocks)])
    slope = theil_sen(at, level)
    rate, growth = _LIMITS[resource]
    leaks = slope.low > rate and slope.growth > growth
    return Finding(resource, slope, float(level[0]), float(level[-1]), leaks)
