"""Timing on a GPU: events after an L2 flush, and CUDA graph replays; a plain clock to rehearse.

All variants of one job are timed in turns, so that what else happens on the machine meets them
alike. Cold: each run follows a write of more than the L2 cache, timed by events. Warm: a CUDA graph
of several runs, divided by their number, which leaves launch gaps out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch

Run = Callable[[], object]
FLUSH_BYTES = 512 << 20
GRAPH_RUNS = 10


@dataclass(frozen=True)
class Times:
    """Microseconds of one run; warm is None where the run cannot be captured."""

    cold_p50_us: float
    cold_p95_us: float
    warm_p50_us: float | None
    why_not_warm: str | None = None


class CpuTimer:
    """The same interface on the CPU, to rehearse the script; its figures mean nothing."""

    def time_once(self, run: Run) -> float:
        """Microseconds of one run."""
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1e6

    def warm(self, run: Run, rounds: int) -> tuple[float | None, str | None]:
        """Median microseconds a run, without a graph."""
        return float(np.median([self.time_once(run) for _ in range(rounds)])), None


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

    def warm(self, run: Run, rounds: int) -> tuple[float | None, str | None]:
        """Median microseconds a run inside a CUDA graph, or why there is no graph."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        try:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                run()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                for _ in range(GRAPH_RUNS):
                    run()
        except (RuntimeError, ValueError) as error:
            torch.cuda.synchronize()
            return None, str(error).splitlines()[0]
        times = []
        for _ in range(rounds):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(float(start.elapsed_time(end)) * 1e3 / GRAPH_RUNS)
        return float(np.median(times)), None


Timer = CpuTimer | GpuTimer


def compare(
    timer: Timer, variants: dict[str, Run], rounds: int, waiting: Collection[str] = ()
) -> dict[str, Times]:
    """Times of all variants of one job, taken in turns after two warm-up runs each.

    Those named in ``waiting`` wait for the device in the middle, and no graph can hold them.
    """
    for run in variants.values():
        run()
        run()
    cold: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            cold[name].append(timer.time_once(run))
    found = {}
    for name, run in variants.items():
        why: str | None = "it waits for the device"
        warm = None
        if name not in waiting:
            warm, why = timer.warm(run, max(rounds // 2, 1))
        p50, p95 = np.percentile(cold[name], (50, 95))
        found[name] = Times(float(p50), float(p95), warm, why)
    return found


def copy_bandwidth(timer: Timer, device: str, size: int, rounds: int) -> float:
    """Bytes a second of a device-to-device copy, read and written counted."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    times = [timer.time_once(lambda: target.copy_(source)) for _ in range(rounds)]
    return 2 * size / (float(np.median(times)) * 1e-6)
