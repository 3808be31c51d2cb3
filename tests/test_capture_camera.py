"""A camera over sources that hang, end, fail and come back."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from capture_rig import QUICK, Scripted, descriptors, picture, running, some, state, taken, until

from centermask_edge.errors import MissingPackageError, SourceError
from centermask_edge.frame import Frame
from centermask_edge.live.camera import Bell, Camera
from centermask_edge.live.capture.camera import LiveCamera
from centermask_edge.live.capture.faults import Secrets, SourceFault
from centermask_edge.live.capture.options import CaptureOptions
from centermask_edge.live.capture.reader import Reader
from centermask_edge.live.health import Fault, State
from centermask_edge.live.source import Kind


class Hanging:
    """Sources of which each gives two frames and hangs, deaf, until ``release`` is set."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.sources: list[Scripted] = []

    def __call__(self, within_s: float) -> Scripted:
        number = len(self.sources)

        def script(source: Scripted) -> Iterator[Frame]:
            yield picture(10 * number)
            yield picture(10 * number + 1)
            self.release.wait(10)
            yield picture(10 * number + 2)

        self.sources.append(Scripted(script))
        return self.sources[-1]


def test_a_camera_is_a_camera() -> None:
    camera: Camera = LiveCamera("gate", lambda within_s: Scripted(some(1)))
    assert camera.name == "gate" and not camera.done and camera.take() is None
    camera.stop()
    assert camera.done


def test_frames_come_fresh_with_the_cameras_name_and_numbers() -> None:
    camera = LiveCamera("gate", lambda within_s: Scripted(some(1000, 0.005)), QUICK)
    with running(camera):
        first = taken(camera, 1)[0]
        time.sleep(0.1)
        second = taken(camera, 1)[0]
        assert first.camera == second.camera == "gate"
        assert second.index > first.index + 5, "not the oldest"
        health = camera.health()
    assert health.state is State.LIVE and health.dropped >= 5
    assert health.frames >= second.index and health.rate_hz > 10


def test_the_bell_rings_for_frames_and_for_changes() -> None:
    go = threading.Event()

    def script(source: Scripted) -> Iterator[Frame]:
        go.wait(5)
        yield picture()
        source.closed.wait(0.3)

    bell = Bell()
    camera = LiveCamera("gate", lambda within_s: Scripted(script), CaptureOptions(retry_s=60))
    camera.start(bell)
    while bell.wait(0.2):
        pass
    go.set()
    assert bell.wait(1) and camera.take() is not None, "for a frame"
    assert state(camera) is State.LIVE
    assert bell.wait(1) and state(camera) is State.WAITING, "for a fault"
    camera.stop()


def test_a_frame_of_a_reader_that_is_not_the_cameras_is_refused() -> None:
    """Between a reader's last look at whether it is wanted and its delivery, it may be left."""
    camera = LiveCamera("gate", lambda within_s: Scripted(some(0)), QUICK)
    stranger = Reader(camera, lambda within_s: Scripted(some(0)), 1.0, name="stranger", live=True)
    assert not camera.deliver(stranger, picture())
    assert camera.take() is None and camera.health().frames == 0
    camera.ended(stranger, None, final=True)
    camera.opened(stranger, Scripted(some(0)))
    assert not camera.done and camera.health().fault is None
    camera.stop()


def test_a_reader_that_hangs_is_abandoned_and_its_late_frame_is_never_seen() -> None:
    opener = Hanging()
    camera = LiveCamera("gate", opener, QUICK)
    with running(camera):
        until(lambda: state(camera) is State.LIVE)
        noticed = until(lambda: camera.health().fault is Fault.FROZEN)
        assert noticed < QUICK.frozen_s + 0.3
        until(lambda: len(opener.sources) >= 2 and state(camera) is State.LIVE)
        assert not opener.sources[0].closed.is_set(), "it hangs, and nobody else closes it"
        seen: set[int] = set()
        opener.release.set()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            frame = camera.take()
            if frame is not None:
                seen.add(int(frame.image[0, 0, 0]))
        assert 2 not in seen and seen, "the abandoned reader's frame came through"
        assert opener.sources[0].closed.wait(1), "it closes when it comes back"


def test_frozen_is_seen_while_it_waits() -> None:
    opener = Hanging()
    camera = LiveCamera("gate", opener, QUICK, rng=_Slow())
    with running(camera):
        until(lambda: state(camera) is State.FROZEN)
        health = camera.health()
        assert health.fault is Fault.FROZEN and health.message.startswith("no frame for")
        opener.release.set()


class _Slow(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return 0.3


def test_a_driver_that_hangs_for_ever_costs_a_few_threads_and_no_more() -> None:
    opener = Hanging()
    before = threading.active_count()
    camera = LiveCamera("gate", opener, QUICK)
    with running(camera):
        until(lambda: len(opener.sources) >= 4)
        time.sleep(4 * QUICK.frozen_s)
        assert len(opener.sources) <= 5
        assert threading.active_count() <= before + 6
        opener.release.set()
        count = len(opener.sources)
        until(lambda: len(opener.sources) > count), "it goes on when they come back"
    until(lambda: threading.active_count() <= before)


def test_an_opener_that_hangs_is_given_up() -> None:
    release = threading.Event()

    def opener(within_s: float) -> Scripted:
        if not release.is_set():
            release.wait(10)
        return Scripted(some(100, 0.02))

    camera = LiveCamera("gate", opener, QUICK)
    with running(camera):
        until(lambda: camera.health().fault is Fault.TIMEOUT)
        release.set()
        until(lambda: state(camera) is State.LIVE)


def test_a_connection_without_a_picture_is_given_up() -> None:
    def script(source: Scripted) -> Iterator[Frame]:
        while not source.closed.wait(0.01):
            if getattr(source, "gone", False):
                return
        yield picture()

    sources: list[Scripted] = []

    def opener(within_s: float) -> Scripted:
        source = Scripted(script)
        source.leave = lambda: setattr(source, "gone", True)  # type: ignore[attr-defined]
        sources.append(source)
        return source

    camera = LiveCamera("gate", opener, QUICK)
    with running(camera):
        until(lambda: camera.health().fault is Fault.FROZEN)
        assert sources[0].closed.wait(1), "a source that can be told to leave is"


@pytest.mark.parametrize("fault", list(Fault))
def test_each_fault_is_kept_with_its_words_and_tried_again(fault: Fault) -> None:
    calls: list[float] = []

    def opener(within_s: float) -> Scripted:
        calls.append(within_s)
        if len(calls) == 1:
            raise SourceFault(fault, f"it is {fault.value}")
        return Scripted(some(100, 0.02))

    options = CaptureOptions(retry_s=0.01, auth_retry_s=0.02, auth_retry_max_s=0.02)
    camera = LiveCamera("gate", opener, options)
    with running(camera):
        until(lambda: state(camera) is State.LIVE)
        health = camera.health()
    assert health.fault is fault and health.message == f"it is {fault.value}"
    assert calls[0] == options.open_s and health.reconnects == 0


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (SourceError("not there"), Fault.UNREACHABLE),
        (ValueError("odd"), Fault.INTERNAL),
        (MemoryError(), Fault.INTERNAL),
    ],
)
def test_whatever_an_opener_raises_is_one_cameras_trouble(error: Exception, fault: Fault) -> None:
    def opener(within_s: float) -> Scripted:
        raise error

    camera = LiveCamera("gate", opener, QUICK)
    with running(camera):
        until(lambda: camera.health().fault is fault)
        assert not camera.done


def test_what_can_never_work_ends_the_camera() -> None:
    def opener(within_s: float) -> Scripted:
        raise MissingPackageError("av is not installed")

    camera = LiveCamera("gate", opener, QUICK)
    with running(camera):
        until(lambda: camera.done)
        health = camera.health()
    assert (health.state, health.fault) == (State.ENDED, Fault.INTERNAL)
    assert health.message == "av is not installed"


def test_the_end_of_a_live_stream_is_a_fault_and_it_comes_again() -> None:
    camera = LiveCamera("gate", lambda within_s: Scripted(some(2, 0.01)), QUICK)
    with running(camera):
        frames = taken(camera, 6)
        until(lambda: camera.health().reconnects >= 2)
        health = camera.health()
    assert health.fault is Fault.END and not any(
        a.index >= b.index for a, b in itertools.pairwise(frames)
    )


def test_credentials_are_in_no_text(capfd: pytest.CaptureFixture[str]) -> None:
    address = "rtsp://admin:s3cret@10.0.0.7/live?token=t0ken"

    def opener(within_s: float) -> Scripted:
        raise RuntimeError(f"cannot open '{address}': password s3cret of admin, t0ken")

    camera = LiveCamera("gate", opener, QUICK, secrets=Secrets.of(address))
    with running(camera):
        until(lambda: camera.health().fault is Fault.INTERNAL)
        health = camera.health()
    shown = str(health) + "".join(capfd.readouterr())
    assert not any(secret in shown for secret in ("s3cret", "admin", "t0ken"))
    assert "RuntimeError: cannot open" in health.message


def _file(count: int, rate: int, kind: Kind = Kind.VIDEO) -> Scripted:
    source = Scripted(some(count, 1 / rate), kind)
    source.rate = Fraction(rate)
    return source


def test_a_file_keeps_its_time_and_ends() -> None:
    camera = LiveCamera("clip", lambda within_s: _file(11, 50), live=False)
    start = time.monotonic()
    with running(camera):
        frames = []
        while not camera.done:
            if (frame := camera.take()) is not None:
                frames.append(frame)
            time.sleep(0.001)
        took = time.monotonic() - start
        health = camera.health()
    assert 0.19 < took < 2
    assert (health.state, health.fault, health.frames) == (State.ENDED, None, 11)
    assert frames[-1].index == 10 and frames[-1].arrival_s - start > 0.19, "when it was due"


def test_a_file_is_not_done_before_its_last_frame_is_taken() -> None:
    camera = LiveCamera("clip", lambda within_s: _file(1, 50), live=False)
    with running(camera):
        until(lambda: state(camera) is State.ENDED)
        assert not camera.done
        assert camera.take() is not None and camera.done


@pytest.mark.parametrize("kind", [Kind.VIDEO, Kind.FOLDER])
def test_every_frame_of_a_file_can_be_had_however_slow_the_taking(kind: Kind) -> None:
    options = CaptureOptions(every=kind is Kind.VIDEO)
    camera = LiveCamera("clip", lambda within_s: _file(8, 1, kind), options, live=False)
    with running(camera):
        values = []
        for _ in range(8):
            time.sleep(0.01)
            values.append(taken(camera, 1)[0].index)
        until(lambda: camera.done)
    assert values == list(range(8)) and camera.health().dropped == 0


def test_a_file_begins_again_if_asked() -> None:
    options = CaptureOptions(loop=True, every=True)
    camera = LiveCamera("clip", lambda within_s: _file(3, 50), options, live=False)
    with running(camera):
        frames = taken(camera, 7)
        assert not camera.done and camera.health().fault is None
    assert [int(f.image[0, 0, 0]) for f in frames] == [0, 1, 2, 0, 1, 2, 0]
    assert [f.pts_s for f in frames] == pytest.approx([n / 50 for n in range(7)])


def test_a_file_that_cannot_be_read_ends_with_its_fault() -> None:
    def opener(within_s: float) -> Scripted:
        raise SourceFault(Fault.CODEC, "not a video")

    camera = LiveCamera("clip", opener, CaptureOptions(loop=True), live=False)
    with running(camera):
        until(lambda: camera.done)
        assert camera.health().fault is Fault.CODEC


def test_stopping_takes_less_than_a_second_even_while_a_reader_hangs() -> None:
    opener = Hanging()
    camera = LiveCamera("gate", opener, QUICK)
    camera.start(Bell())
    until(lambda: state(camera) is State.LIVE)
    start = time.monotonic()
    camera.stop()
    camera.stop()
    assert time.monotonic() - start < 1.0
    assert camera.health().state is State.ENDED
    opener.release.set()
    assert opener.sources[0].closed.wait(1)
    assert camera.take() is None or camera.done


def test_a_stopped_waiter_does_not_wait_for_the_taker() -> None:
    camera = LiveCamera(
        "clip", lambda within_s: _file(8, 1), CaptureOptions(every=True), live=False
    )
    camera.start(Bell())
    until(lambda: camera.health().frames == 1)
    start = time.monotonic()
    camera.stop()
    assert time.monotonic() - start < 0.9


def test_two_hundred_reconnects_leave_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    held = tmp_path / "device"
    held.write_bytes(b"x")
    sources: list[Scripted] = []

    def opener(within_s: float) -> Scripted:
        file = held.open("rb")
        source = Scripted(some(1))
        close = source.close

        def both() -> None:
            file.close()
            close()

        source.close = both  # type: ignore[method-assign]
        sources.append(source)
        return source

    gc.collect()
    before = threading.active_count(), descriptors()
    camera = LiveCamera("gate", opener, CaptureOptions(retry_s=0.001, retry_recent_s=0.002))
    camera.start(Bell())
    until(lambda: camera.health().reconnects >= 200, 20)
    # The reader, the watchdog, and one that is just ending.
    assert threading.active_count() <= before[0] + 3
    camera.stop()
    assert all(source.closed.is_set() for source in sources)
    assert (threading.active_count(), descriptors()) == before
