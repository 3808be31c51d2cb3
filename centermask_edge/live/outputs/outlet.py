"""Keeps a sink away from inference: a thread of its own behind a queue that is bounded.

Whatever the sink does (raise, be slow, hang), handing it a result takes microseconds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import SinkError
from centermask_edge.live.result import Event, Result, ResultSink
from centermask_edge.live.source import redact

CLOSE_S = 2.0
# A write that lasts longer is told, once, while it lasts.
_STUCK_S = 5.0
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 5.0
_SMOOTHING = 0.1
_TICK_S = 1.0
# Of one camera, while a sink hangs for days.
_MOST_EVENTS = 64


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for a sink.

    Attributes:
        depth: results that wait at most; one more replaces the oldest.
        per_camera: whether ``depth`` counts for each camera on its own, so that none displaces
            another.
        pictures: whether the sink looks at the pixels. Without, they are let go at once: 256
            frames of 1080p would be 1.6 GB.
        again: whether a result that met a ``SinkError`` is tried again; a picture is too old then.
    """

    depth: int
    per_camera: bool
    pictures: bool
    again: bool


PICTURES = Queue(2, per_camera=True, pictures=True, again=False)
LINES = Queue(256, per_camera=False, pictures=False, again=True)
RECORDING = Queue(24, per_camera=False, pictures=True, again=False)


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """A sink at one moment.

    Attributes:
        name: of the sink, without credentials.
        written: results it took.
        dropped: results that were displaced in the queue, or left in it at the end.
        failed: results it raised at.
        waiting: results in the queue.
        write_ms: what a write takes, smoothed over about ten.
        stuck_s: how long the present write has lasted, in seconds; 0 between writes.
        last_error: one line, empty before the first.
        failing: whether the last write raised.
        abandoned: whether it did not finish in time at the end.
    """

    name: str
    written: int = 0
    dropped: int = 0
    failed: int = 0
    waiting: int = 0
    write_ms: float = 0.0
    stuck_s: float = 0.0
    last_error: str = ""
    failing: bool = False
    abandoned: bool = False


class Outlet:
    """One sink with its thread, its queue and its figures.

    A sink that raises is reported once and again when it is well; between attempts the wait
    doubles. Events of a displaced result go on to the next one of that camera: a sink may miss a
    picture, never what happened.

    Args:
        sink: that takes the results; touched by this thread only. If it has an attribute
            ``queue``, that is the queue; if it has a method ``dropped``, it is told of each
            displaced result, from the thread that hands them in; if it has a method ``tick``,
            that is called every second in which no result comes.
        queue: other than the sink's own.
        only: name of the one camera it is for; all where None.
        report: gets one line for the operator, from any thread.
    """

    def __init__(
        self,
        sink: ResultSink,
        queue: Queue | None = None,
        *,
        only: str | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = sink.name
        self._sink = sink
        own: Queue = getattr(sink, "queue", PICTURES)
        self._queue = queue or own
        self._tell_dropped: Callable[[Result], None] | None = getattr(sink, "dropped", None)
        self._tick: Callable[[], None] | None = getattr(sink, "tick", None)
        self._only, self._report = only, report
        self._changed = threading.Condition()
        self._waiting: deque[Result] = deque()
        self._owed: dict[str, tuple[Event, ...]] = {}
        self._closing = False
        self._figures = SinkStatistics(self.name)
        self._began = 0.0
        self._told_stuck = False
        self._since_failing = (0.0, 0)
        self._thread = threading.Thread(target=self._work, name=f"sink {self.name}", daemon=True)
        self._thread.start()

    def submit(self, result: Result) -> None:
        """Hands over one result without waiting; nothing happens after ``close``."""
        if self._only is not None and result.frame.camera != self._only:
            return
        if not self._queue.pictures:
            result = replace(result, frame=replace(result.frame, image=_blank(result.frame.image)))
        with self._changed:
            if self._closing:
                return
            displaced = self._make_room(result.frame.camera)
            self._waiting.append(self._with_owed_events(displaced, result))
            self._changed.notify()
        if displaced is not None and self._tell_dropped is not None:
            self._tell_dropped(displaced)
        self._tell_if_stuck()

    def _make_room(self, camera: str) -> Result | None:
        """The displaced result, or None where there is room. The lock is held."""
        queue, waiting = self._queue, self._waiting
        same = [
            i for i, w in enumerate(waiting) if not queue.per_camera or w.frame.camera == camera
        ]
        if len(same) < queue.depth:
            return None
        oldest = waiting[same[0]]
        del waiting[same[0]]
        self._add(dropped=1)
        return oldest

    def _with_owed_events(self, displaced: Result | None, newest: Result) -> Result:
        """The newest result; a displaced one's events go to the next of its camera, be that one
        waiting, the newest, or still to come. The lock is held.
        """
        if displaced is not None and displaced.events:
            camera = displaced.frame.camera
            for i, waiting in enumerate(self._waiting):
                if waiting.frame.camera == camera:
                    events = (displaced.events + waiting.events)[-_MOST_EVENTS:]
                    self._waiting[i] = replace(waiting, events=events)
                    break
            else:
                self._owed[camera] = displaced.events
        owed = self._owed.pop(newest.frame.camera, ())
        return replace(newest, events=(owed + newest.events)[-_MOST_EVENTS:]) if owed else newest

    def _tell_if_stuck(self) -> None:
        began = self._began
        if began and not self._told_stuck and time.monotonic() - began > _STUCK_S:
            self._told_stuck = True
            self._report(
                f"{self.name}: has not answered for {_STUCK_S:.0f} s; its results are dropped"
            )

    def statistics(self) -> SinkStatistics:
        """Its figures now."""
        with self._changed:
            stuck = time.monotonic() - self._began if self._began else 0.0
            return replace(self._figures, waiting=len(self._waiting), stuck_s=stuck)

    def start_closing(self) -> None:
        """Takes no more results; what waits is still written."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Whether everything was written and the sink finished in that time; may be called twice.

        Otherwise the sink is abandoned where it hangs, and that is reported.
        """
        self.start_closing()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            return True
        with self._changed:
            first = not self._figures.abandoned
            lost = len(self._waiting)
            self._waiting.clear()
            self._add(dropped=lost)
            self._figures = replace(self._figures, abandoned=True)
        if first:
            self._report(
                f"{self.name}: does not finish within {timeout_s:g} s and is abandoned"
                + (f"; {lost} results were not written" if lost else "")
            )
        return False

    def _add(self, **more: int) -> None:
        """Adds to counters. The lock is held."""
        now = self._figures
        self._figures = replace(now, **{k: getattr(now, k) + n for k, n in more.items()})

    def _work(self) -> None:
        wait_s = _FIRST_WAIT_S
        while (result := self._next()) is not None:
            if self._write(result):
                wait_s = _FIRST_WAIT_S
                continue
            with self._changed:
                self._changed.wait_for(lambda: self._closing, wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        try:
            self._sink.close()
        except Exception as error:  # whatever a sink does ends here
            self._failed(error)

    def _next(self) -> Result | None:
        """The next result; None when closing and nothing waits."""
        every_s = None if self._tick is None else _TICK_S
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._waiting or self._closing, every_s):
                    return self._waiting.popleft() if self._waiting else None
            self._idle()

    def _idle(self) -> None:
        """A second without a result."""
        try:
            if self._tick is not None:
                self._tick()
        except Exception as error:  # whatever a sink does ends here
            self._failed(error)

    def _write(self, result: Result) -> bool:
        self._began = time.monotonic()
        try:
            self._sink.write(result)
        except Exception as error:  # whatever a sink does ends here
            self._failed(error)
            again = self._queue.again and isinstance(error, SinkError)
            with self._changed:
                # Once more even while closing would be for ever where the sink stays ill.
                if again and not self._closing and len(self._waiting) < self._queue.depth:
                    self._waiting.appendleft(result)
                else:
                    self._add(failed=1)
            return False
        finally:
            took_ms = 1000 * (time.monotonic() - self._began)
            self._began, self._told_stuck = 0.0, False
        self._well(took_ms)
        return True

    def _failed(self, error: Exception) -> None:
        words = str(error) if isinstance(error, SinkError) else f"{type(error).__name__}: {error}"
        line = redact(words.partition("\n")[0])
        with self._changed:
            first = not self._figures.failing
            if first:
                self._since_failing = (time.monotonic(), self._figures.dropped)
            self._figures = replace(self._figures, failing=True, last_error=line)
        if first:
            self._report(f"{self.name}: {line}; inference goes on, the output is tried again")

    def _well(self, took_ms: float) -> None:
        with self._changed:
            now = self._figures
            smooth = now.write_ms + _SMOOTHING * (took_ms - now.write_ms)
            again = now.failing
            self._figures = replace(
                now,
                written=now.written + 1,
                write_ms=smooth if now.written else took_ms,
                failing=False,
            )
            since, dropped = self._since_failing
            lost = now.dropped - dropped
        if again:
            self._report(
                f"{self.name}: works again after {time.monotonic() - since:.1f} s; "
                f"{lost} results were dropped"
            )


def _blank(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A black picture of that size that takes one byte."""
    return np.broadcast_to(np.uint8(0), image.shape)


def close_all(outlets: Iterable[Outlet], timeout_s: float = CLOSE_S) -> bool:
    """Whether all finished in that time, which they share."""
    all_of_them = list(outlets)
    for outlet in all_of_them:
        outlet.start_closing()
    end = time.monotonic() + timeout_s
    return all([outlet.close(max(end - time.monotonic(), 0.01)) for outlet in all_of_them])
