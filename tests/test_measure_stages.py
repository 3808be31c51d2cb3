"""Stage times and their percentiles."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from centermask_edge.measure.stages import Stage, StageTimer, processor_name


class Clock:
    """time.perf_counter in our hands."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def spend(timer: StageTimer, clock: Clock, **seconds: float) -> None:
    for name, value in seconds.items():
        with timer.stage(Stage(name)):
            clock.now += value


def test_percentiles_leave_the_first_frame_out(clock: Clock) -> None:
    timer = StageTimer()
    spend(timer, clock, decode=9.0, engine=50.0)
    timer.end_frame()
    engine = [i / 1000 for i in range(1, 101)]
    for value in engine:
        spend(timer, clock, decode=0.002, engine=value)
        clock.now += 0.001  # between the stages: part of the rate, not of a stage
        timer.end_frame()
    report = timer.report()
    assert (report.frames, report.warm_up_frames) == (101, 1)
    decode, found, total = report.rows
    assert (decode.stage, found.stage, total.stage) == ("decode", "engine", "total")
    assert (decode.p50_ms, decode.p99_ms) == pytest.approx((2, 2))
    wanted = np.percentile(engine, (50, 95, 99)) * 1000
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == pytest.approx(tuple(wanted))
    assert total.p50_ms == pytest.approx(wanted[0] + 2)
    assert report.frames_per_second == pytest.approx(100 / (sum(engine) + 0.3))


def test_a_stage_may_come_twice_in_a_frame_and_not_at_all_in_another(clock: Clock) -> None:
    timer = StageTimer()
    timer.end_frame()
    spend(timer, clock, encode=0.010)
    spend(timer, clock, encode=0.020)
    timer.end_frame()
    timer.end_frame()
    encode = timer.report().rows[0]
    assert encode.stage == "encode" and encode.p50_ms == pytest.approx(15)


def test_a_stage_that_fails_is_timed_and_the_error_goes_on(clock: Clock) -> None:
    timer = StageTimer()
    timer.end_frame()
    with pytest.raises(KeyError), timer.stage(Stage.DRAW):
        clock.now += 0.5
        raise KeyError
    timer.end_frame()
    assert timer.report().rows[0].p50_ms == pytest.approx(500)


@pytest.mark.parametrize("frames", [0, 1])
def test_too_few_frames_give_no_figures(clock: Clock, frames: int) -> None:
    timer = StageTimer()
    for _ in range(frames):
        spend(timer, clock, decode=1.0)
        timer.end_frame()
    report = timer.report()
    assert (report.rows, report.frames, report.warm_up_frames) == ((), frames, frames)
    assert report.frames_per_second == 0


def test_the_json_is_what_the_pages_are_made_of(clock: Clock) -> None:
    timer = StageTimer()
    for _ in range(3):
        spend(timer, clock, decode=0.0012345, engine=0.1)
        timer.end_frame()
    content = json.loads(json.dumps(timer.report().to_json()))
    assert set(content) == {"frames", "warm_up_frames", "frames_per_second", "stages"}
    assert content["stages"][0] == {
        "stage": "decode",
        "p50_ms": 1.234,
        "p95_ms": 1.234,
        "p99_ms": 1.234,
    }


def test_the_processor_has_a_name() -> None:
    assert processor_name().endswith("logical processors") and len(processor_name()) > 20
