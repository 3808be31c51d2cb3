"""What a run shows: on a terminal, in lines, in metrics; and how it ends."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import pytest
from live_fakes import DeadCamera, FakeCamera, SleepingEngine
from rich.console import Console

from centermask_edge.errors import SinkError
from centermask_edge.live.camera import Camera
from centermask_edge.live.health import Fault, Health, State
from centermask_edge.live.outputs.outlet import Outlet
from centermask_edge.live.result import Result
from centermask_edge.live.runtime import Limits, Parts, complaints, run
from centermask_edge.live.schedule.ages import RunningPercentiles, Window
from centermask_edge.live.schedule.governor import Decision, Setting
from centermask_edge.live.schedule.inference import Inference
from centermask_edge.live.view.metrics import MetricsServer
from centermask_edge.live.view.snapshot import Snapshot
from centermask_edge.live.view.terminal import Changes, LineView, TableView, render, summary


class Sink:
    """Counts; or fails."""

    def __init__(self, broken: bool = False) -> None:
        self.name, self.broken = ("broken" if broken else "sink"), broken
        self.count = 0

    def write(self, result: Result) -> None:
        if self.broken:
            raise SinkError("the disk is full")
        self.count += 1

    def close(self) -> None:
        """Nothing."""


def parts(cameras: Sequence[Camera], *sinks: Sink) -> Parts:
    engine = SleepingEngine(0.005)
    inference = Inference(engine, engine.metadata.preprocess)
    return Parts(cameras, inference, [Outlet(sink) for sink in sinks])


def console() -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(file=text, width=80, soft_wrap=True), text


@pytest.fixture(scope="module")
def last() -> Snapshot:
    """The end of a run with a live and a dead camera, a sink that works and one that does not."""
    cameras = [FakeCamera("door", 30.0), DeadCamera("a-very-long-name/of/a/camera/gate")]
    screen, _ = console()
    limits = Limits(seconds=0.6, max_age_s=0.1)
    outcome = run(parts(cameras, Sink(), Sink(broken=True)), limits, LineView(screen))
    lines = complaints(outcome)
    assert lines[0] == f"{cameras[1].name}: never gave a frame: connection refused"
    assert lines[1].startswith("broken: ") and "the disk is full" in lines[1]
    return outcome.last


def shown(last: Snapshot, width: int = 80) -> str:
    text = StringIO()
    screen = Console(file=text, width=width)
    screen.print(render(last), summary(last))
    return text.getvalue()


def test_figures_are_never_cut_at_80_columns(last: Snapshot) -> None:
    busy = replace(last.cameras[0], results=99_999_999, result_hz=29.97)
    text = shown(replace(last, cameras=(busy, last.cameras[1])))
    assert "99999999" in text and max(map(len, text.splitlines())) <= 80
    # Only the middle of the long name is left out, in both tables.
    assert text.count("…") == 2 and "era/gate" in text
    assert "connection refused" in text and "the disk is full" in text
    assert "mode" in text and "every frame, short side 64" in text and "below 100 ms" in text


def test_the_table_view_leaves_the_terminal_as_it_was() -> None:
    text = StringIO()
    screen = Console(file=text, width=80, force_terminal=True)
    outcome = run(parts([FakeCamera("door", 60.0, last=20)]), Limits(), TableView(screen))
    assert outcome.last.cameras[0].results >= 18
    assert "door: live" in text.getvalue()
    assert text.getvalue().count("\x1b[?25h") == text.getvalue().count("\x1b[?25l") == 1


def test_each_change_is_told_once() -> None:
    changes = Changes()
    live = Health("a", State.LIVE, decoder="h264", note="no hardware")
    frozen = Health("a", State.FROZEN, Fault.FROZEN, "no frame for 1.8 s")
    assert changes.of([Health("a", State.CONNECTING)]) == []
    assert changes.of([live]) == ["a: live, h264; no hardware"]
    assert changes.of([live]) == []
    assert changes.of([frozen]) == ["a: frozen, no frame for 1.8 s"]
    assert changes.of([frozen]) == []
    assert changes.of([replace(live, fault=Fault.FROZEN)]) == ["a: live, h264; no hardware"]


def test_decisions_of_the_governor_are_lines() -> None:
    screen, text = console()
    engine = SleepingEngine(0.12)
    inference = Inference(engine, engine.metadata.preprocess)
    cameras = [FakeCamera("a", 30.0)]
    run(Parts(cameras, inference), Limits(2.6, max_age_s=0.05), LineView(screen))
    assert "governor: " in text.getvalue() and "over 50 ms" in text.getvalue()
    assert "computes masks in every frame" in text.getvalue()
    assert str(Decision(0, Setting(1, 64), Setting(2, 64), 0.2, 0.1)).startswith("governor: 1 fr")


def test_metrics_are_what_the_run_shows(last: Snapshot) -> None:
    before = threading.active_count()
    server = MetricsServer(0, lambda: last)
    with urllib.request.urlopen(server.address, timeout=5) as answer:
        text = answer.read().decode()
    server.close()
    assert threading.active_count() == before
    door = last.cameras[0]
    for line in (
        f'centermask_results_total{{camera="door"}} {float(door.results)}',
        'centermask_camera_state{camera="door",state="live"} 1.0',
        f'centermask_age_seconds_bucket{{camera="door",le="+Inf"}} {float(door.results)}',
        f'centermask_age_seconds_count{{camera="door"}} {float(door.results)}',
        'centermask_sink_failing{sink="broken"} 1.0',
        "centermask_age_limit_seconds 0.1",
        "centermask_stride 1.0",
    ):
        assert line in text.splitlines()
    assert server.address.startswith("http://127.0.0.1:")


def test_a_metrics_port_that_is_taken_is_told() -> None:
    server = MetricsServer(0, lambda: pytest.fail("nobody asked"))
    port = int(server.address.split(":")[2].split("/")[0])
    with pytest.raises(SinkError, match=f"--metrics {port}: cannot listen"):
        MetricsServer(port, lambda: pytest.fail("nobody asked"))
    server.close()


def test_a_soak_says_when_it_is_too_short() -> None:
    screen, _ = console()
    cameras = [FakeCamera("a", 30.0, last=10)]
    outcome = run(parts(cameras), Limits(soak=True), LineView(screen))
    assert outcome.leaks is not None and "too short" in outcome.leaks.lines()[0]


def test_windows_forget_and_running_percentiles_do_not() -> None:
    now = 0.0
    window = Window(10.0, clock=lambda: now)
    run_ages = RunningPercentiles()
    for i in range(20):
        now = float(i)
        window.add(0.1)
        run_ages.add(0.1)
    assert window.read().count == 11 and run_ages.read().count == 20
    assert window.rate_hz() == pytest.approx(1.0)
    now = 100.0
    assert window.read().count == 0 and window.rate_hz() == 0
    assert run_ages.read().p99_s == pytest.approx(0.1, rel=0.02)
    assert run_ages.up_to(0.2) == 20 and run_ages.up_to(0.05) == 0
