"""Timing on a GPU: events after an L2 flush, and CUDA graph replays; a plain clock to rehearse.

All variants of one job are timed in turns, so that what else happens on the machine meets them
alike. Cold: each run follows a write of more than the L2 cache, timed by events. Warm: a CUDA graph
of several runs, divided by their number, which leaves launch gaps out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from centermask_edge.errors import KernelError

Run = Callable[[], object]
FLUSH_BYTES = 512 << 20
GRAPH_RUNS = 10
_NOT_CAPTURED = (RuntimeError, ValueError, KernelError)


@dataclass(frozen=True)
class Times:
    """Microseconds of one run; warm is None where the run cannot be captured."""

    cold_p50_us: float
    cold_p95_us: float
    warm_p50_us: float | None
    warm_p95_us: float | None
    why_not_warm: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Times of the variants that ran, and why the others did not."""

    times: dict[str, Times]
    failed: dict[str, str] = field(default_factory=dict)


class CpuTimer:
    """The same interface on the CPU, to rehearse the script; its figures mean nothing."""

    def time_once(self, run: Run) -> float:
        """Microseconds of one run."""
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e6

    def warm(self, run: Run, rounds: int) -> list[float]:
        """Microseconds a run, without a graph."""
        return [self.time_once(run) for _ in range(rounds)]


class GpuTimer:
    """CUDA events and graphs on the current device."""

    def __init__(self) -> None:
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")

    def time_once(self, run: Run) -> float:
        """Microseconds between two events around one run, with nothing of it in L2."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e3

    def warm(self, run: Run, rounds: int) -> list[float]:
        """Microseconds a run inside a CUDA graph.

        Raises:
            RuntimeError: the run cannot be captured; the stream is as it was before.
        """
        graph = _capture(run)
        times = []
        for _ in range(rounds):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(float(start.elapsed_time(end)) * 1e3 / GRAPH_RUNS)
        return times


def _capture(run: Run) -> torch.cuda.CUDAGraph:
    graph, stream, before = torch.cuda.CUDAGraph(), torch.cuda.Stream(), torch.cuda.current_stream()
    try:
        stream.wait_stream(before)
        with torch.cuda.stream(stream):
            run()
        before.wait_stream(stream)
        with torch.cuda.graph(graph):
            for _ in range(GRAPH_RUNS):
                run()
    except BaseException:
        # A capture that fails leaves its own stream as the current one.
        torch.cuda.set_stream(before)
        torch.cuda.synchronize()
        raise
    return graph


Timer = CpuTimer | GpuTimer


def compare(
    timer: Timer, variants: Mapping[str, Run], rounds: int, waiting: Collection[str] = ()
) -> Comparison:
    """All variants of one job, taken in turns after two warm-up runs each.

    Those named in ``waiting`` wait for the device in the middle, and no graph can hold them. A
    variant that fails is left out: another library's trouble must not cost our own figures.

    Raises:
        KernelError: the kernel itself fails; RuntimeError where CUDA does.
    """
    failed: dict[str, str] = {}
    for name, run in variants.items():
        try:
            run()
            run()
        except Exception as fault:  # torch's compiler alone has dozens of kinds
            if name in ("kernel", "again"):
                raise
            failed[name] = first_line(fault)
    left = {name: run for name, run in variants.items() if name not in failed}
    cold: dict[str, list[float]] = {name: [] for name in left}
    for _ in range(rounds):
        for name, run in left.items():
            cold[name].append(timer.time_once(run))
    return Comparison(
        {
            name: _times(timer, run, cold[name], max(rounds // 2, 1), name in waiting)
            for name, run in left.items()
        },
        failed,
    )


def _times(timer: Timer, run: Run, cold: list[float], rounds: int, waits: bool) -> Times:
    p50, p95 = (float(p) for p in np.percentile(cold, (50, 95)))
    if waits:
        return Times(p50, p95, None, None, "it waits for the device")
    try:
        warm = np.percentile(timer.warm(run, rounds), (50, 95))
    except _NOT_CAPTURED as fault:
        return Times(p50, p95, None, None, first_line(fault))
    return Times(p50, p95, float(warm[0]), float(warm[1]))


def first_line(fault: BaseException) -> str:
    """Kind and first line of an error.

    >>> first_line(ValueError("a bad day"))
    'ValueError: a bad day'
    """
    text = (str(fault).strip().splitlines() or ["no text"])[0]
    return f"{type(fault).__name__}: {text[:300]}"


def copy_bandwidth(timer: Timer, device: str, size: int, rounds: int) -> float:
    """Bytes a second of a device-to-device copy, read and written counted."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    times = [timer.time_once(lambda: target.copy_(source)) for _ in range(rounds)]
    return 2 * size / (float(np.median(times)) * 1e-6)
