"""The live pipeline: fresh frames of many cameras through one engine, nothing waiting for the dead.

Three threads, with room for one batch between them: one chooses and prepares the next batch while
the engine runs, one runs the engine, one makes results. Cameras and sinks have their own threads.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from centermask_edge.live.camera import Bell, Camera
from centermask_edge.live.result import Result, Tally
from centermask_edge.live.schedule.ages import Ages, Window
from centermask_edge.live.schedule.finish import Rules, finish
from centermask_edge.live.schedule.governor import Decision, Governor, Setting
from centermask_edge.live.schedule.handoff import Handoff, Pace
from centermask_edge.live.schedule.inference import Inference, Prepared, Segmented
from centermask_edge.live.schedule.lanes import Chosen, Lane, Turns
from centermask_edge.measure.stages import Stage

_LOG = logging.getLogger(__name__)
_IDLE_S = 0.2
_DECIDE_S = 0.25
_BUSY_S = 2.0
_STAGES = (Stage.PREPROCESS, Stage.ENGINE, Stage.MASKS)


class Scheduler:
    """Runs until it is stopped or every camera is done.

    Args:
        cameras: with different names, not yet started.
        inference: the engine.
        rules: how frames become results.
        deliver: takes each result; has to return at once.
        governor: keeps the ages low, where given.
        decided: told each decision of the governor.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        inference: Inference,
        rules: Rules,
        deliver: Callable[[Result], None],
        governor: Governor | None = None,
        decided: Callable[[Decision], None] = lambda decision: None,
    ) -> None:
        self.lanes = {camera.name: Lane(camera) for camera in cameras}
        self.ages = {camera.name: Ages() for camera in cameras}
        self.tallies: dict[str, tuple[Tally, ...]] = {camera.name: () for camera in cameras}
        self.stages = {stage: Window() for stage in _STAGES}
        self.batches = 0
        self.started_s = time.monotonic()
        self._inference, self._rules, self._deliver = inference, rules, deliver
        self._governor, self._decided = governor, decided
        self._next_decision_s = 0.0
        self._turns = Turns(list(self.lanes.values()), rules.batch)
        self._pace, self._bell = Pace(), Bell()
        self._prepared: Handoff[list[Prepared]] = Handoff()
        self._segmented: Handoff[Segmented] = Handoff()
        self._busy = {stage: _Busy() for stage in _STAGES}
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(
                target=self._guard, args=(work,), name=f"live{work.__name__}", daemon=True
            )
            for work in (self._prepare, self._run, self._finish)
        ]

    @property
    def setting(self) -> Setting:
        """What is asked of frames now."""
        if self._governor is None:
            return Setting(1, self._inference.base.short_side)
        return self._governor.setting

    def start(self) -> None:
        """Starts the cameras and the threads."""
        self.started_s = time.monotonic()
        for lane in self.lanes.values():
            lane.camera.start(self._bell)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No new frames; what is on its way is finished. Does not wait."""
        self._stopping.set()
        self._bell.ring()

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, at the latest after ``timeout_s``."""
        self._threads[-1].join(timeout_s)
        return not self._threads[-1].is_alive()

    def close(self) -> None:
        """Stops, waits for what is on its way, and stops the cameras.

        Raises:
            Exception: what ended a thread.
        """
        self.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        for lane in self.lanes.values():
            with contextlib.suppress(Exception):  # the others are to be stopped, too
                lane.camera.stop()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _guard(self, work: Callable[[], None]) -> None:
        """Ends all threads with the first one that fails."""
        try:
            work()
        except BaseException as error:
            self._failure = self._failure or error
            self._stopping.set()
            self._prepared.close()
            self._segmented.close()

    def _prepare(self) -> None:
        while not self._stopping.is_set():
            if not self._prepared.wait_for_room(_IDLE_S):
                continue
            self._pace.wait()
            setting = self.setting
            chosen = self._turns.choose(setting, self._inference)
            if not chosen:
                if all(lane.done for lane in self.lanes.values()):
                    break
                self._bell.wait(_IDLE_S)
                continue
            self._put(chosen, setting)
        self._prepared.close()

    def _put(self, chosen: list[Chosen], setting: Setting) -> None:
        with self._timed(Stage.PREPROCESS):
            start = time.perf_counter()
            ready = [self._ready(one, setting, len(chosen) == 1) for one in chosen]
            batch = [prepared for prepared in ready if prepared is not None]
            self._pace.prepared(time.perf_counter() - start)
        if batch:
            self._prepared.put(batch)

    def _ready(self, one: Chosen, setting: Setting, alone: bool) -> Prepared | None:
        """The frame as input; None where a picture defies that, which ends no other camera."""
        try:
            return self._inference.prepare(one.frame, setting, one.mode, alone)
        except Exception as error:  # whatever a hostile stream can bring about
            self._lost(one.lane, "prepared", error)
            return None

    def _lost(self, lane: Lane, verb: str, error: Exception) -> None:
        lane.lost += 1
        lane.trouble = f"{lane.lost} frames could not be {verb}: {type(error).__name__}: {error}"
        _LOG.debug("%s: %s", lane.camera.name, lane.trouble, exc_info=error)

    def _run(self) -> None:
        while (batch := self._prepared.get()) is not None:
            with self._timed(Stage.ENGINE):
                self._pace.begin()
                segmented = self._inference.run(batch)
                self._pace.end()
            self.batches += 1
            self._segmented.put(segmented)
        self._segmented.close()

    def _finish(self) -> None:
        number = 0
        while (segmented := self._segmented.get()) is not None:
            number += 1
            with self._timed(Stage.MASKS):
                for i in range(len(segmented.frames)):
                    self._hand_on(segmented, i, number)
            self._govern()

    def _hand_on(self, segmented: Segmented, i: int, number: int) -> None:
        """One result to the outputs; what is wrong with one camera ends no other."""
        try:
            self._deliver(self._result(segmented, i, number))
        except Exception as error:
            self._lost(self.lanes[segmented.frames[i].frame.camera], "finished", error)

    def _result(self, segmented: Segmented, i: int, number: int) -> Result:
        names = self._inference.engine.metadata.classes
        result = finish(segmented, i, number, self._rules, names)
        for stage, seconds in result.stages.items():
            self.stages[stage].add(seconds)
        self.ages[result.frame.camera].add(result.age_s)
        self.tallies[result.frame.camera] = result.tallies
        if self._governor is not None:
            self._governor.observe(result.age_s, segmented.frames[i].setting)
        return result

    def _govern(self) -> None:
        now = time.monotonic()
        if self._governor is None or now < self._next_decision_s:
            return
        self._next_decision_s = now + _DECIDE_S
        decision = self._governor.decide(max(busy.share() for busy in self._busy.values()))
        if decision is not None:
            self._decided(decision)

    @contextlib.contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self._busy[stage].add(start, time.monotonic())


class _Busy:
    """Share of the last seconds in which a thread worked."""

    def __init__(self) -> None:
        self._spans = Window(_BUSY_S)
        self._began_s = time.monotonic()

    def add(self, start_s: float, end_s: float) -> None:
        self._spans.add(end_s - start_s)

    def share(self) -> float:
        since = min(max(time.monotonic() - self._began_s, 1e-3), _BUSY_S)
        return min(self._spans.sum_s() / since, 1.0)
