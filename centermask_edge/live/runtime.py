"""A live run from its settings to its end: everything put together, and taken apart in order."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from centermask_edge.live.camera import Camera
from centermask_edge.live.health import Health, State
from centermask_edge.live.outputs.outlet import Outlet, close_all
from centermask_edge.live.result import Result
from centermask_edge.live.schedule.finish import Follower, Rules
from centermask_edge.live.schedule.governor import REFRESHES, Decision, Governor, short_sides
from centermask_edge.live.schedule.inference import Inference
from centermask_edge.live.schedule.scheduler import Scheduler
from centermask_edge.live.stopping import Stop, stop_signals
from centermask_edge.live.view.metrics import MetricsServer
from centermask_edge.live.view.snapshot import Snapshot, snapshot
from centermask_edge.live.view.terminal import Changes, View
from centermask_edge.measure.leaks import LeakVerdict, Soak, sample

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_OWN_PAGES_BYTES = 65536
_LOOK_S = 0.25
_SOAK_S = 1.0
_FINISH_S = 10.0  # for files to be finished at the end


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends by itself and what it is held to.

    Attributes:
        seconds: it lasts; None for as long as the cameras do.
        max_age_s: the governor keeps; None without one.
        soak: watch memory, descriptors and threads.
        metrics_port: serve metrics there.
    """

    seconds: float | None = None
    max_age_s: float | None = None
    soak: bool = False
    metrics_port: int | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run consists of.

    Attributes:
        cameras: with different names, not yet started.
        inference: the engine.
        outlets: the outputs, whose threads run.
        batch: most frames of one engine call; as the engine likes where None.
        score: least box score.
        scores: of cameras that have one of their own.
        followers: of cameras whose objects are followed.
        closed: whether the user closed the window.
        last: what is to be closed after everything else.
    """

    cameras: Sequence[Camera]
    inference: Inference
    outlets: Sequence[Outlet] = ()
    batch: int | None = None
    score: float = 0.4
    scores: Mapping[str, float] = field(default_factory=dict)
    followers: Mapping[str, Follower] = field(default_factory=dict)
    closed: Callable[[], bool] = lambda: False
    last: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went.

    Attributes:
        last: its figures at the end.
        stopped_by: number of the signal that ended it; 0 where none did.
        leaks: verdict of the soak, where it was one.
        notes: what the operator should know.
    """

    last: Snapshot
    stopped_by: int
    leaks: LeakVerdict | None
    notes: tuple[str, ...] = ()

    @property
    def never_worked(self) -> list[Health]:
        """Cameras that never gave a frame."""
        return [c.health for c in self.last.cameras if c.health.frames == 0]


def run(parts: Parts, limits: Limits, view: View) -> Outcome:
    """Runs until a signal, the end of all cameras, the time limit, or a closed window.

    Outputs are finished however it ends, but for a second signal.

    Raises:
        SinkError: the metrics' port is taken.
        KeyboardInterrupt: asked to end a second time; nothing is waited for then.
    """
    give_pictures_back()
    notes = _promises(parts, limits)
    governor = _governor(parts, limits)

    def decided(decision: Decision) -> None:
        view.line(str(decision))

    batch = parts.batch or parts.inference.usual_batch(len(parts.cameras))
    rules = Rules(batch, parts.score, parts.scores, parts.followers)
    deliver = _deliver(parts.outlets)
    scheduler = Scheduler(parts.cameras, parts.inference, rules, deliver, governor, decided)

    def now() -> Snapshot:
        return snapshot(scheduler, parts.outlets, limits.max_age_s)

    soak = Soak() if limits.soak else None
    with stop_signals() as stop, _finished(scheduler, parts), _metrics(limits, now, view), view:
        for note in notes:
            view.line(note)
        # What the first call of each size costs would else be added to the age of frames.
        parts.inference.warm_up(batch, () if governor is None else governor.sizes)
        scheduler.start()
        _watch(scheduler, parts, limits, view, stop, now, soak)
    leaks = None if soak is None else soak.verdict()
    if parts.inference.note:
        notes.append(parts.inference.note)
    return Outcome(now(), stop.signum, leaks, tuple(notes))


def give_pictures_back() -> None:
    """Makes glibc return each picture's memory when it is freed; elsewhere, nothing.

    Pictures are made in one thread and freed in another. glibc raises its limit for memory of its
    own pages with their size, and then its heaps fragment: measured, 100 MB an hour and more with
    two looped files, and none with a fixed limit.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES)


def _promises(parts: Parts, limits: Limits) -> list[str]:
    """What the governor cannot do with this engine."""
    if limits.max_age_s is None or _can_refresh(parts):
        return []
    name = parts.inference.engine.name
    return [f"governor: {name} computes masks in every frame; only stride and size are governed"]


def _can_refresh(parts: Parts) -> bool:
    """Whether masks can be left out of frames, because somebody carries them over."""
    carried = all(camera.name in parts.followers for camera in parts.cameras)
    return carried and parts.inference.can_skip_masks


def _governor(parts: Parts, limits: Limits) -> Governor | None:
    if limits.max_age_s is None:
        return None
    inference = parts.inference
    full = inference.base.short_side
    batch = parts.batch or 1
    sizes = [side for side in short_sides(full) if side == full or inference.fits(batch, side)]
    refreshes = REFRESHES if _can_refresh(parts) else (1,)
    return Governor(limits.max_age_s, sizes, refreshes)


def _deliver(outlets: Sequence[Outlet]) -> Callable[[Result], None]:
    def deliver(result: Result) -> None:
        for outlet in outlets:
            outlet.submit(result)

    return deliver


@contextmanager
def _metrics(limits: Limits, now: Callable[[], Snapshot], view: View) -> Iterator[None]:
    if limits.metrics_port is None:
        yield
        return
    server = MetricsServer(limits.metrics_port, now)
    view.line(f"metrics: {server.address}")
    with contextlib.closing(server):
        yield


@contextmanager
def _finished(scheduler: Scheduler, parts: Parts) -> Iterator[None]:
    """Takes everything apart in the order of the frames: cameras, engine, outputs."""
    try:
        yield
    except KeyboardInterrupt:  # the second one
        raise
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            scheduler.close()
        _close_outputs(parts)
        raise
    try:
        scheduler.close()
    finally:
        _close_outputs(parts)


def _close_outputs(parts: Parts) -> None:
    close_all(parts.outlets, _FINISH_S)
    parts.last.close()


def _watch(
    scheduler: Scheduler,
    parts: Parts,
    limits: Limits,
    view: View,
    stop: Stop,
    now: Callable[[], Snapshot],
    soak: Soak | None,
) -> None:
    """Shows the run until it is over."""
    changes = Changes()
    began, next_sample = time.monotonic(), 0.0
    over = False
    while not over:
        over = scheduler.wait(_LOOK_S)
        at = time.monotonic()
        found = now()
        for line in changes.of(camera.health for camera in found.cameras):
            view.line(line)
        view.update(found)
        if soak is not None and at >= next_sample:
            soak.add(sample())
            next_sample = at + _SOAK_S
        late = limits.seconds is not None and at - began >= limits.seconds
        over = over or bool(stop.signum) or late or parts.closed()


def complaints(outcome: Outcome) -> list[str]:
    """A line for each camera that never worked or lost frames, and for each output that did."""
    lines = [f"{health.camera}: {_never(health)}" for health in outcome.never_worked]
    lines += [f"{c.health.camera}: {c.trouble}" for c in outcome.last.cameras if c.trouble]
    for sink in outcome.last.sinks:
        if sink.failed or sink.failing or sink.abandoned:
            reason = sink.last_error or "did not finish"
            lines.append(f"{sink.name}: {sink.failed} results not written: {reason}")
    return lines


def _never(health: Health) -> str:
    if health.message:
        return f"never gave a frame: {health.message}"
    word = "was still connecting" if health.state is State.CONNECTING else "gave no reason"
    return f"never gave a frame and {word}"
