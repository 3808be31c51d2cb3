"""Time of each stage of a frame, and its percentiles over a run."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

WARM_UP = 1  # frames left out: the first pays for compiling the network and for cold caches


class Stage(str, Enum):
    """Stages in the order of a frame's life."""

    DECODE = "decode"
    PREPROCESS = "preprocess"
    ENGINE = "engine"
    MASKS = "masks"
    DRAW = "draw"
    ENCODE = "encode"


@dataclass(frozen=True, slots=True)
class StageRow:
    """Percentiles of one stage in milliseconds."""

    stage: str
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class StageReport:
    """Where the time of a run went.

    Attributes:
        rows: stages in order, those that took no part left out, then ``total``; empty where no
            frame was measured.
        frames: frames processed.
        warm_up_frames: of these, left out of every figure here.
        frames_per_second: over the frames measured, everything included; 0 where there are none.
    """

    rows: tuple[StageRow, ...]
    frames: int
    warm_up_frames: int
    frames_per_second: float

    def to_json(self) -> dict[str, object]:
        """Plain values, rounded to what the clock and the machine can tell."""
        return {
            "frames": self.frames,
            "warm_up_frames": self.warm_up_frames,
            "frames_per_second": round(self.frames_per_second, 2),
            "stages": [
                {
                    "stage": row.stage,
                    "p50_ms": round(row.p50_ms, 3),
                    "p95_ms": round(row.p95_ms, 3),
                    "p99_ms": round(row.p99_ms, 3),
                }
                for row in self.rows
            ],
        }


@dataclass(slots=True)
class StageTimer:
    """Collects times; a frame counts once :meth:`end_frame` is called.

    >>> timer = StageTimer()
    >>> with timer.stage(Stage.DECODE):
    ...     pass
    >>> timer.end_frame()
    >>> timer.report().frames
    1
    """

    _frames: list[dict[Stage, float]] = field(default_factory=list)
    _now: dict[Stage, float] = field(default_factory=dict)
    _ends: list[float] = field(default_factory=list)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Adds the time of the block to the current frame's stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._now[stage] = self._now.get(stage, 0.0) + time.perf_counter() - start

    def end_frame(self) -> None:
        """Closes the current frame."""
        self._frames.append(self._now)
        self._ends.append(time.perf_counter())
        self._now = {}

    def report(self) -> StageReport:
        """Percentiles over all frames but the first."""
        measured = self._frames[WARM_UP:]
        rows = [
            _row(stage.value, [frame.get(stage, 0.0) for frame in measured])
            for stage in Stage
            if any(stage in frame for frame in measured)
        ]
        if measured:
            rows.append(_row("total", [sum(frame.values()) for frame in measured]))
        seconds = self._ends[-1] - self._ends[WARM_UP - 1] if measured else 0.0
        rate = len(measured) / seconds if seconds > 0 else 0.0
        warm_up = min(WARM_UP, len(self._frames))
        return StageReport(tuple(rows), len(self._frames), warm_up, rate)


def _row(name: str, seconds: list[float]) -> StageRow:
    p50, p95, p99 = np.percentile(np.array(seconds) * 1e3, (50, 95, 99)).tolist()
    return StageRow(name, p50, p95, p99)


def processor_name() -> str:
    """Name of the processor, for tables: ``AMD EPYC 7B13, 2 logical processors``."""
    return f"{_model_name()}, {usable_processors()} logical processors"


def usable_processors() -> int:
    """Logical processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _model_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"
