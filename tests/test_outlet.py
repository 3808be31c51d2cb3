"""Sinks behind their outlets: none of them can slow, stop or grow what hands results over."""

from __future__ import annotations

import threading
import time

import pytest
from live_results import event, result, until

from centermask_edge.errors import SinkError
from centermask_edge.live.outputs import outlet as module
from centermask_edge.live.outputs.outlet import LINES, PICTURES, Outlet, Queue, close_all
from centermask_edge.live.result import Result


class Sink:
    """Keeps what it gets, and can be told to raise or to wait."""

    name = "test"

    def __init__(self) -> None:
        self.got: list[Result] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.closed = 0
        self.tries = 0

    def write(self, result: Result) -> None:
        self.tries += 1
        self.gate.wait()
        if self.error is not None:
            raise self.error
        self.got.append(result)

    def close(self) -> None:
        self.closed += 1

    def indices(self, camera: str = "gate") -> list[int]:
        return [r.frame.index for r in self.got if r.frame.camera == camera]


@pytest.fixture
def sink() -> Sink:
    return Sink()


def blocked(sink: Sink, queue: Queue, lines: list[str] | None = None) -> Outlet:
    """An outlet whose sink hangs at result 0."""
    sink.gate.clear()
    outlet = Outlet(sink, queue, report=(lines if lines is not None else []).append)
    outlet.submit(result(0))
    until(lambda: sink.tries == 1)
    return outlet


def test_everything_is_written_in_order_and_the_sink_is_closed(sink: Sink) -> None:
    outlet = Outlet(sink, LINES)
    for index in range(50):
        outlet.submit(result(index))
    assert outlet.close()
    assert sink.indices() == list(range(50)) and sink.closed == 1
    seen = outlet.statistics()
    assert (seen.written, seen.dropped, seen.failed, seen.waiting) == (50, 0, 0, 0)
    outlet.submit(result(50))
    assert outlet.close() and sink.closed == 1 and len(sink.got) == 50


def test_the_oldest_picture_gives_way_and_is_counted(sink: Sink) -> None:
    outlet = blocked(sink, PICTURES)
    for index in range(1, 6):
        outlet.submit(result(index))
    assert outlet.statistics().dropped == 3
    sink.gate.set()
    assert outlet.close()
    assert sink.indices() == [0, 4, 5]


def test_a_busy_camera_does_not_displace_another(sink: Sink) -> None:
    outlet = blocked(sink, PICTURES)
    outlet.submit(result(1, "quiet"))
    for index in range(1, 30):
        outlet.submit(result(index))
    sink.gate.set()
    assert outlet.close()
    assert sink.indices("quiet") == [1] and sink.indices() == [0, 28, 29]


def test_events_of_a_displaced_picture_go_to_the_next_of_its_camera(sink: Sink) -> None:
    outlet = blocked(sink, Queue(1, False, True, False))
    outlet.submit(result(1, events=(event(track=1),)))
    outlet.submit(result(1, "other", events=(event(track=50),)))
    outlet.submit(result(2, events=(event(track=2),)))
    outlet.submit(result(3))
    sink.gate.set()
    until(lambda: len(sink.got) == 2)
    outlet.submit(result(2, "other"))
    assert outlet.close()
    assert [[e.track for e in r.events] for r in sink.got] == [[], [1, 2], [50]]


def test_events_owed_stay_bounded(sink: Sink) -> None:
    outlet = blocked(sink, PICTURES)
    for index in range(500):
        outlet.submit(result(index, events=(event(track=index),)))
    sink.gate.set()
    assert outlet.close()
    assert [e.track for e in sink.got[1].events][-1] == 498
    assert len(sink.got[1].events) == 64


def test_lines_hold_no_pixels_while_they_wait(sink: Sink) -> None:
    outlet = Outlet(sink, LINES)
    outlet.submit(result(0, size=(1080, 1920)))
    assert outlet.close()
    image = sink.got[0].frame.image
    assert image.shape == (1080, 1920, 3) and image.strides == (0, 0, 0)


def test_a_sink_that_raises_is_told_once_retried_and_told_well(sink: Sink) -> None:
    lines: list[str] = []
    outlet = Outlet(sink, LINES, report=lines.append)
    sink.error = SinkError("no space left on rtsp://user:secret@host/x\nand more")
    for index in range(5):
        outlet.submit(result(index))
    until(lambda: sink.tries >= 2)
    assert outlet.statistics().failing
    sink.error = None
    until(lambda: len(sink.got) == 5)
    assert outlet.close()
    assert sink.indices() == [0, 1, 2, 3, 4] and outlet.statistics().failed == 0
    assert len(lines) == 2
    assert lines[0].startswith("test: no space left on rtsp://***@host/x; inference goes on")
    assert "works again" in lines[1]
    assert outlet.statistics().last_error == "no space left on rtsp://***@host/x"


def test_a_result_that_meets_a_bug_is_skipped(sink: Sink) -> None:
    lines: list[str] = []
    outlet = Outlet(sink, LINES, report=lines.append)
    sink.error = ZeroDivisionError("division by zero")
    outlet.submit(result(0))
    until(lambda: outlet.statistics().failed == 1)
    sink.error = None
    outlet.submit(result(1))
    assert outlet.close()
    assert sink.indices() == [1]
    assert lines[0].startswith("test: ZeroDivisionError: division by zero")


def test_attempts_become_rarer(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(module, "_LONGEST_WAIT_S", 0.2)
    sink.error = SinkError("down")
    outlet = Outlet(sink, LINES)
    for index in range(100):
        outlet.submit(result(index))
    time.sleep(0.6)  # at 0, 0.05, 0.15, 0.35, 0.55
    assert 3 <= sink.tries <= 5
    assert outlet.close()
    assert outlet.statistics().failed == 100 and sink.closed == 1


def test_handing_over_to_a_hanging_sink_takes_no_time(sink: Sink) -> None:
    outlet = blocked(sink, LINES)
    picture = result(1)
    start = time.perf_counter()
    for _ in range(1000):
        outlet.submit(picture)
    assert (time.perf_counter() - start) / 1000 < 0.01
    seen = outlet.statistics()
    assert (seen.waiting, seen.dropped) == (256, 744) and seen.stuck_s > 0
    sink.gate.set()
    assert outlet.close()


def test_a_sink_that_hangs_is_told_and_abandoned(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STUCK_S", 0.05)
    lines: list[str] = []
    outlet = blocked(sink, PICTURES, lines)
    time.sleep(0.1)
    outlet.submit(result(1))
    outlet.submit(result(2))
    assert [line for line in lines if "has not answered" in line] == lines and len(lines) == 1
    start = time.monotonic()
    assert not outlet.close(0.2)
    assert not outlet.close(0.01)
    assert time.monotonic() - start < 1
    assert lines[1:] == [
        "test: does not finish within 0.2 s and is abandoned; 2 results were not written"
    ]
    assert outlet.statistics().abandoned and outlet.statistics().dropped == 2
    sink.gate.set()


def test_many_outlets_share_the_time_to_finish() -> None:
    sinks = [Sink() for _ in range(5)]
    outlets = [blocked(sink, PICTURES) for sink in sinks]
    good = Sink()
    start = time.monotonic()
    assert not close_all([*outlets, Outlet(good)], 0.3)
    assert time.monotonic() - start < 1 and good.closed == 1
    for sink in sinks:
        sink.gate.set()


def test_a_sink_that_cannot_finish_is_told(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def close() -> None:
        raise SinkError("cannot finish the file")

    monkeypatch.setattr(sink, "close", close)
    assert Outlet(sink, report=lines.append).close()
    assert lines[0].startswith("test: cannot finish the file")


def test_only_one_camera_is_let_through(sink: Sink) -> None:
    outlet = Outlet(sink, LINES, only="gate")
    outlet.submit(result(0, "other"))
    outlet.submit(result(1))
    assert outlet.close()
    assert [r.frame.index for r in sink.got] == [1]


def test_a_sink_that_wants_to_know_is_told_of_each_drop(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[int] = []
    monkeypatch.setattr(
        sink, "dropped", lambda result: lost.append(result.frame.index), raising=False
    )
    outlet = blocked(sink, PICTURES)
    for index in range(1, 5):
        outlet.submit(result(index))
    assert lost == [1, 2]
    sink.gate.set()
    assert outlet.close()


def test_a_sink_that_wants_to_know_the_time_is_called_while_nothing_comes(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TICK_S", 0.02)
    ticks: list[float] = []
    lines: list[str] = []

    def tick() -> None:
        ticks.append(time.monotonic())
        if len(ticks) == 2:
            raise SinkError("the clock is broken")

    monkeypatch.setattr(sink, "tick", tick, raising=False)
    outlet = Outlet(sink, report=lines.append)
    until(lambda: len(ticks) >= 3)
    outlet.submit(result(0))
    assert outlet.close() and sink.indices() == [0]
    assert lines[0].startswith("test: the clock is broken")
