"""A live run at one moment: what the terminal, the metrics and the summary show."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from centermask_edge.live.health import Health
from centermask_edge.live.outputs.outlet import Outlet, SinkStatistics
from centermask_edge.live.result import Tally
from centermask_edge.live.schedule.ages import Percentiles, RunningPercentiles
from centermask_edge.live.schedule.governor import Setting
from centermask_edge.live.schedule.scheduler import Scheduler
from centermask_edge.measure.stages import Stage


@dataclass(frozen=True, slots=True)
class CameraNow:
    """One camera.

    Attributes:
        health: as the camera tells.
        results: of the whole run.
        result_hz: results a second, over the last seconds.
        age: of results, over the last seconds.
        age_run: of the whole run.
        skipped: fresh frames that the stride left out.
        trouble: with its frames, after they were decoded; empty where there was none.
        tallies: of its zones and lines.
    """

    health: Health
    results: int
    result_hz: float
    age: Percentiles
    age_run: RunningPercentiles
    skipped: int
    trouble: str
    tallies: tuple[Tally, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it.

    Attributes:
        elapsed_s: since the start.
        cameras: in the order they were named.
        stages: seconds of each stage over the last seconds.
        setting: what is asked of frames.
        limit_s: that the governor keeps; None without one.
        age_run: of all cameras, over the whole run.
        batches: calls of the engine.
        sinks: the outputs.
    """

    elapsed_s: float
    cameras: tuple[CameraNow, ...]
    stages: dict[Stage, Percentiles]
    setting: Setting
    limit_s: float | None
    age_run: RunningPercentiles
    batches: int
    sinks: tuple[SinkStatistics, ...]


def snapshot(scheduler: Scheduler, outlets: Sequence[Outlet], limit_s: float | None) -> Snapshot:
    """The run as it is now.

    Args:
        scheduler: that runs, or ran.
        outlets: the outputs.
        limit_s: of the governor, where there is one.
    """
    total = RunningPercentiles()
    cameras = []
    for name, lane in scheduler.lanes.items():
        ages = scheduler.ages[name]
        total.merge(ages.run)
        recent = ages.recent
        cameras.append(
            CameraNow(
                lane.camera.health(),
                ages.run.count,
                recent.rate_hz(),
                recent.read(),
                ages.run,
                lane.skipped,
                lane.trouble,
                scheduler.tallies[name],
            )
        )
    return Snapshot(
        time.monotonic() - scheduler.started_s,
        tuple(cameras),
        {stage: window.read() for stage, window in scheduler.stages.items()},
        scheduler.setting,
        limit_s,
        total,
        scheduler.batches,
        tuple(outlet.statistics() for outlet in outlets),
    )
