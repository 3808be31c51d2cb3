"""The verdict of a soak on series whose truth is known, and on this process."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from centermask_edge.measure.leaks import (
    Resource,
    Sample,
    Soak,
    sample,
    theil_sen,
    verdict,
)


def series(seconds: int, mb_per_hour: float = 0.0, seed: int = 0, **counts: float) -> list[Sample]:
    """A run with a warm-up, noise, and bursts that come and go."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.normal(0, 1.5, seconds + 30), np.ones(30) / 30, "valid")
    found = []
    for t in range(seconds):
        warm_up = 300 * (1 - np.exp(-t / 20))
        burst = 40 * (t % 120 < 5)
        memory = 200 + warm_up + burst + noise[t] + mb_per_hour * t / 3600
        descriptors = 20 + int(t / 3600 * counts.get("descriptors", 0)) + int(rng.integers(0, 3))
        threads = 12 + int(t / 3600 * counts.get("threads", 0))
        found.append(Sample(float(t), memory, descriptors, threads))
    return found


def leaking(samples: list[Sample]) -> set[Resource]:
    return {finding.resource for finding in verdict(samples).findings if finding.leaks}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("seconds", [600, 3600])
def test_noise_and_bursts_are_no_leak(seconds: int, seed: int) -> None:
    assert leaking(series(seconds, seed=seed)) == set()


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_is_seen(seed: int) -> None:
    assert leaking(series(3600, mb_per_hour=10, seed=seed)) == {Resource.MEMORY}
    assert leaking(series(600, mb_per_hour=120, seed=seed)) == {Resource.MEMORY}


def test_descriptors_and_threads_that_stay_are_seen() -> None:
    assert leaking(series(1800, descriptors=40)) == {Resource.DESCRIPTORS}
    assert leaking(series(1800, threads=20)) == {Resource.THREADS}
    assert leaking(series(1800, threads=1)) == set()


def test_a_slope_lies_in_its_interval() -> None:
    inside = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        times = np.arange(100.0) * 36
        slope = theil_sen(times, 3.0 * times / 3600 + rng.normal(0, 0.2, 100))
        inside += slope.low <= 3.0 <= slope.high
    assert inside >= 44


def test_a_short_run_gives_no_verdict() -> None:
    found = verdict(series(40))
    assert not found.leaks and "too short" in found.lines()[0]
    assert verdict([]).findings == ()


def test_a_soak_of_days_stays_small_and_sees_the_leak() -> None:
    soak = Soak()
    for item in series(20_000, mb_per_hour=5):
        soak.add(item)
    assert len(soak._samples) <= 4096
    assert soak.verdict().leaks
    assert "memory: grows, +5" in "\n".join(soak.verdict().lines())


def test_this_process_is_measured() -> None:
    before = sample()
    release = threading.Event()
    threads = [threading.Thread(target=release.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    ballast = np.ones(8_000_000)
    pipe = os.pipe()
    after = sample()
    release.set()
    for thread in threads:
        thread.join()
    for descriptor in pipe:
        os.close(descriptor)
    assert after.threads == before.threads + 5
    assert after.descriptors == before.descriptors + 2
    assert after.memory_mb - before.memory_mb == pytest.approx(ballast.nbytes / 1e6, abs=8)
