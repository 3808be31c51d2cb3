"""A recording through the engine again: the same calls, the same results, byte for byte."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from centermask_edge.live.outputs.outlet import Outlet
from centermask_edge.live.record.replay import ReplayBatch, replay_batches
from centermask_edge.live.schedule.finish import Rules, finish
from centermask_edge.live.schedule.governor import Setting
from centermask_edge.live.schedule.inference import Inference, Prepared

_POLL_S = 0.005
_STUCK_S = 10.0


@dataclass(frozen=True, slots=True)
class Rerun:
    """What a replay did.

    Attributes:
        frames: segmented again.
        instances: found in them.
        skipped: frames of batches that were recorded in part only.
        seconds: it took.
    """

    frames: int
    instances: int
    skipped: int
    seconds: float


def rerun(
    folder: Path,
    inference: Inference,
    rules: Rules,
    outlets: Sequence[Outlet],
    report: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
) -> Rerun:
    """Segments a recording as fast as the engine and the outputs go; nothing is dropped.

    Ages are 0: they were those of the recording.

    Raises:
        SourceError: it is no recording.
    """
    began = time.monotonic()
    frames = instances = skipped = 0
    names = inference.engine.metadata.classes
    for batch in replay_batches(folder, report):
        if stopped():
            break
        if not batch.complete:
            skipped += len(batch.frames)
            continue
        segmented = inference.run(_prepared(batch, inference))
        for i in range(len(batch.frames)):
            result = replace(finish(segmented, i, batch.number, rules, names), age_s=0.0)
            frames += 1
            instances += len(result.instances)
            for outlet in outlets:
                _wait_for_room(outlet)
                outlet.submit(result)
    return Rerun(frames, instances, skipped, time.monotonic() - began)


def _prepared(batch: ReplayBatch, inference: Inference) -> list[Prepared]:
    alone = len(batch.frames) == 1
    return [
        inference.prepare(frame, Setting(mode.stride, mode.short_side), mode, alone)
        for frame, mode in zip(batch.frames, batch.modes, strict=True)
    ]


def _wait_for_room(outlet: Outlet) -> None:
    """Returns when nothing waits for the output, so that nothing is displaced, or it hangs."""
    while (now := outlet.statistics()).waiting and now.stuck_s < _STUCK_S:
        time.sleep(_POLL_S)
