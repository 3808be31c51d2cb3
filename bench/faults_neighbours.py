"""Four cameras through the shipped model; one is switched off, and later freezes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console

from centermask_edge.engines import open_engine
from centermask_edge.engines.shipped import default_model
from centermask_edge.live.capture.opening import open_camera
from centermask_edge.live.chaos.footage import film_source
from centermask_edge.live.chaos.schedule import Mishap, Schedule, parse_schedule
from centermask_edge.live.chaos.server import FaultServer
from centermask_edge.live.outputs.callback import Callback
from centermask_edge.live.outputs.outlet import LINES, Outlet
from centermask_edge.live.result import Result
from centermask_edge.live.runtime import Limits, Parts, run
from centermask_edge.live.schedule.inference import Inference
from centermask_edge.live.view.terminal import LineView

CAMERAS = 4
FPS = 3  # together, what two cores can just do
_ADDRESS = f"synthetic:people?width=640&height=360&fps={FPS}&frames={10 * FPS}"
_PHASE_S = 8.0
# What connecting again takes belongs to neither phase.
_BETWEEN_S = 3.0
_SETTLED_S = 3.0


@dataclass(slots=True)
class Ages:
    """Ages of results and the moments they came, by camera.

    Attributes:
        first_s: when the schedule says that the first mishap begins.
        began_s: the moment from which the schedule counts; known from the first mishap on.
        found: moment, age in ms.
    """

    first_s: float
    began_s: float = 0.0
    found: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """One result."""
        pair = time.monotonic(), 1000 * result.age_s
        self.found.setdefault(result.frame.camera, []).append(pair)

    def told(self, mishap: Mishap | None) -> None:
        """Something begins or is over."""
        self.began_s = self.began_s or time.monotonic() - self.first_s

    def row(self, start_s: float, end_s: float) -> dict[str, float]:
        """Ages of all cameras but the first within a span, and how many results each gave."""
        start_s, end_s = self.began_s + start_s, self.began_s + end_s
        others = [pairs for name, pairs in self.found.items() if name != "camera 1"]
        ages = [age for pairs in others for at, age in pairs if start_s <= at < end_s]
        first = sum(start_s <= at < end_s for at, _ in self.found.get("camera 1", []))
        spread = {
            "age_p50_ms": round(float(np.percentile(ages, 50)), 1),
            "age_p95_ms": round(float(np.percentile(ages, 95)), 1),
        }
        return {**spread, "results_per_s": round(len(ages) / (end_s - start_s), 1), "first": first}


def neighbours() -> list[dict[str, Any]]:
    """Ages of the other three before, while and after the first is off, and is frozen."""
    kinds = Mishap.REFUSE, Mishap.FREEZE
    step_s = 2 * _PHASE_S + _BETWEEN_S
    starts = [_SETTLED_S + _PHASE_S + n * step_s for n in range(len(kinds))]
    events = zip(kinds, starts, strict=True)
    schedule = parse_schedule(
        ",".join(f"{kind.value}@{at:g}+{_PHASE_S:g}#1" for kind, at in events), CAMERAS
    )
    ages = _run(schedule, starts[-1] + step_s + 1)
    rows: list[dict[str, Any]] = []
    for kind, at in zip(kinds, starts, strict=True):
        after = at + _PHASE_S + _BETWEEN_S
        for phase, start_s, length_s in (
            ("before", at - _PHASE_S + (_BETWEEN_S if rows else 0), _PHASE_S),
            ("during", at, _PHASE_S),
            ("after", after, _PHASE_S - _BETWEEN_S),
        ):
            end_s = min(start_s + length_s, at) if phase == "before" else start_s + length_s
            rows.append({"first_camera": kind.value, "phase": phase, **ages.row(start_s, end_s)})
    return rows


def _run(schedule: Schedule, seconds: float) -> Ages:
    ages = Ages(schedule.events[0].start_s)
    engine = open_engine(default_model())
    with ExitStack() as stack:
        server = stack.enter_context(FaultServer())
        reel = film_source(_ADDRESS)
        served = [
            server.serve(reel, schedule.changes(n), told=ages.told) for n in range(1, CAMERAS + 1)
        ]
        cameras = [open_camera(s.address, name=f"camera {n}") for n, s in enumerate(served, 1)]
        inference = Inference(engine, engine.metadata.preprocess)
        inference.warm_up(1)
        outlet = Outlet(Callback(ages.add, queue=LINES))
        view = LineView(Console(quiet=True))
        run(Parts(cameras, inference, [outlet]), Limits(seconds=seconds), view)
    return ages
