"""When a run ends before its last step: no better AP, an AP good enough, or no time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from centermask_edge.config import TrainConfig
from centermask_edge.evaluate.coco import Report

_SPARE = 1.0  # seconds, for what comes after the last checkpoint


@dataclass(slots=True)
class Judged:
    """What evaluations have shown so far; part of the training state.

    Attributes:
        best: mask AP, -1 before the first evaluation.
        since: evaluations after the best one.
        ended: why the run is over, empty while it is not.
    """

    best: float = -1.0
    since: int = 0
    ended: str = ""

    def judge(self, report: Report, config: TrainConfig) -> bool:
        """Whether this evaluation is the best so far; ``ended`` is set where the run is over."""
        better = report.mask.ap > self.best
        self.best = max(self.best, report.mask.ap)
        self.since = 0 if better else self.since + 1
        reached = min(report.mask.ap, report.box.ap)
        if config.stop_at_ap and reached >= config.stop_at_ap:
            self.ended = f"AP has reached {reached:.1f}"
        elif config.patience and self.since >= config.patience:
            self.ended = f"no better mask AP than {self.best:.1f} in {self.since} evaluations"
        return better

    def state(self) -> dict[str, float | int | str]:
        """Plain values."""
        return asdict(self)


class TimeLimit:
    """Tells when to stop so that a checkpoint is written before the time is over.

    Args:
        seconds: from now on; 0 means no limit.
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock
        self._start = clock()
        self._longest: dict[str, float] = {}

    def took(self, what: str, seconds: float) -> None:
        """Remember how long a step, an evaluation or a checkpoint took."""
        self._longest[what] = max(self._longest.get(what, 0.0), seconds)

    def over(self, *coming: str) -> bool:
        """Whether what is coming, and a checkpoint, might not fit any more."""
        if not self.seconds:
            return False
        needed = 2 * sum(self._longest.get(what, 0.0) for what in (*coming, "save"))
        return self._clock() - self._start + needed + _SPARE > self.seconds
