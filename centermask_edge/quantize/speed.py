"""Whole networks timed against each other on this machine: in turn, in one process.

Taking turns lets a change of clock or a busy neighbour hit every model alike, so that their ratio
holds even where the milliseconds do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from centermask_edge.engines.base import Engine

_WARM_UP = 2

Input = tuple[NDArray[np.float32], NDArray[np.float32]]


class SpeedRow(BaseModel):
    """One model: milliseconds of one picture through the whole network, mask branch included."""

    model_config = ConfigDict(frozen=True)

    precision: str
    engine: str
    median_ms: float
    p95_ms: float
    best_ms: float


class Speed(BaseModel):
    """All models of one session.

    Attributes:
        input_size: height and width of the padded input in pixels.
        threads: given to the engine; None let it choose.
        runs: of each model, after warming up.
        rows: in the order of the models.
    """

    model_config = ConfigDict(frozen=True)

    input_size: tuple[int, int]
    threads: int | None
    runs: int
    rows: tuple[SpeedRow, ...]

    def gain(self, precision: str, over: str = "fp32") -> float | None:
        """How many times faster by the medians; None where one was not measured."""
        medians = {row.precision: row.median_ms for row in self.rows}
        if precision not in medians or over not in medians:
            return None
        return medians[over] / medians[precision]


def measure_speed(
    engines: Mapping[str, Engine],
    inputs: Sequence[Input],
    runs: int,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], Any] = lambda done: None,
) -> Speed:
    """Medians and 95th percentiles of every model.

    Args:
        engines: by the name of their precision.
        inputs: pictures of one shape as the network takes them, used in turn; each a batch of one
            and its ``image_size``.
        runs: of each model.
        threads: what the engines were opened with, for the record.
        clock: seconds.
        progress: called with the number of rounds done.
    """
    times: dict[str, list[float]] = {name: [] for name in engines}
    names = list(engines)
    for turn, (image, size) in enumerate(islice(cycle(inputs), _WARM_UP + runs)):
        # The one that goes first in a round changes, so that nobody always runs on a warm cache.
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            engines[name].run(image, size)
            times[name].append((clock() - start) * 1e3)
        progress(turn + 1)
    height, width = inputs[0][0].shape[2:]
    rows = tuple(_row(name, engines[name].name, times[name][_WARM_UP:]) for name in names)
    return Speed(input_size=(height, width), threads=threads, runs=runs, rows=rows)


def _row(precision: str, engine: str, times: list[float]) -> SpeedRow:
    median, p95 = np.percentile(np.array(times), (50, 95)).tolist()
    return SpeedRow(
        precision=precision,
        engine=engine,
        median_ms=round(median, 3),
        p95_ms=round(p95, 3),
        best_ms=round(min(times), 3),
    )
