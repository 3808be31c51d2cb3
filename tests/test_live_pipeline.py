"""The loop: what happens when something in it fails, or someone stops it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tiny_model

from centermask_edge.engines import EngineName, open_engine
from centermask_edge.engines.base import Engine
from centermask_edge.errors import SinkError, SourceError
from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.outputs.sinks import JsonLines, VideoSink, WindowSink
from centermask_edge.live.pipeline import Outputs, RunResult, process
from centermask_edge.live.source import Kind


class Frames:
    """A source of so many gray frames, and then perhaps an error."""

    name, kind, rate, total = "gray", Kind.VIDEO, Fraction(10), None
    paths: tuple[Path, ...] = ()

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error, self.closed = count, error, 0
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            yield Frame(np.full((48, 64, 3), 90, np.uint8), index / 10, 0.0, "gray", index)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return open_engine(tiny, EngineName.ONNXRUNTIME)


def go(source: Frames, engine: Engine, outputs: Outputs, **more: int) -> RunResult:
    preprocess = tiny_model.metadata().preprocess
    return process(source, engine, preprocess, outputs, score=0.4, **more)  # type: ignore[arg-type]


def both(folder: Path) -> Outputs:
    return Outputs([VideoSink(folder / "o.mp4", Fraction(10))], None, JsonLines(folder / "o.jsonl"))


def counts(folder: Path) -> tuple[int, int]:
    with av.open(str(folder / "o.mp4")) as container:
        frames = sum(1 for _ in container.decode(video=0))
    return frames, len((folder / "o.jsonl").read_text().splitlines())


def test_a_run_counts_what_it_did(tmp_path: Path, engine: Engine) -> None:
    source = Frames(4)
    seen: list[tuple[int, int]] = []
    outputs = both(tmp_path)
    outputs.on_frame = lambda frame, instances: seen.append((frame.index, len(instances)))
    result = go(source, engine, outputs)
    assert seen == [(0, 2), (1, 2), (2, 2), (3, 2)]
    assert (result.stages.frames, result.instances, result.stopped_by) == (4, 8, 0)
    assert (result.source_size, result.input_size) == ((48, 64), (64, 96))
    assert source.closed and counts(tmp_path) == (4, 4)


def test_nothing_is_drawn_where_nothing_shows_it(engine: Engine) -> None:
    rows = go(Frames(3), engine, Outputs()).stages.rows
    assert [row.stage for row in rows] == ["decode", "preprocess", "engine", "masks", "total"]


@pytest.mark.parametrize("error", [SourceError("gone"), RuntimeError("a bug")])
def test_what_was_written_stays_valid_when_the_source_fails(
    tmp_path: Path, engine: Engine, error: Exception
) -> None:
    source = Frames(3, error)
    with pytest.raises(type(error), match=str(error)):
        go(source, engine, both(tmp_path))
    assert source.closed and counts(tmp_path) == (3, 3)


def test_a_full_disk_under_one_output_leaves_the_other_whole(
    tmp_path: Path, engine: Engine
) -> None:
    outputs = Outputs(
        [VideoSink(tmp_path / "o.mp4", Fraction(10))], None, JsonLines(Path("/dev/full"))
    )
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    with pytest.raises(SinkError, match="/dev/full: No space left on device"):
        go(Frames(3), engine, outputs)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 1


def test_max_frames_ends_the_run(tmp_path: Path, engine: Engine) -> None:
    assert go(Frames(9), engine, both(tmp_path), max_frames=2).stages.frames == 2
    assert counts(tmp_path) == (2, 2)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_frame(
    tmp_path: Path, engine: Engine, signum: signal.Signals
) -> None:
    before = signal.getsignal(signum)
    outputs = both(tmp_path)

    def stop(frame: Frame, instances: Instances) -> None:
        if frame.index == 1:
            signal.raise_signal(signum)

    outputs.on_frame = stop
    assert go(Frames(50), engine, outputs).stopped_by == signum
    assert counts(tmp_path) == (2, 2)
    assert signal.getsignal(signum) is before


def test_a_second_signal_does_not_wait(tmp_path: Path, engine: Engine) -> None:
    outputs = both(tmp_path)

    def stop(frame: Frame, instances: Instances) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    outputs.on_frame = stop
    with pytest.raises(KeyboardInterrupt):
        go(Frames(50), engine, outputs)
    assert counts(tmp_path) == (1, 1)


def test_it_runs_in_another_thread(engine: Engine) -> None:
    done: list[int] = []
    thread = threading.Thread(
        target=lambda: done.append(go(Frames(2), engine, Outputs()).stages.frames)
    )
    thread.start()
    thread.join(30)
    assert done == [2]


def test_closing_the_window_ends_the_run(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    keys = iter([-1, -1, ord("q")])
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:   GTK3\n")
    for name in ("namedWindow", "imshow", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, lambda *arguments: None)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *arguments: 1.0)
    monkeypatch.setattr(cv2, "waitKey", lambda delay: next(keys))
    assert go(Frames(50), engine, Outputs(window=WindowSink())).stages.frames == 3
    keys = iter([-1, -1, ord(" "), -1, 27])  # held until a key; Esc ends
    assert go(Frames(50), engine, Outputs(window=WindowSink(wait=True))).stages.frames == 2
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *arguments: 0.0)
    keys = iter([-1])
    assert go(Frames(50), engine, Outputs(window=WindowSink())).stages.frames == 1
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SinkError, match="no display"):
        WindowSink()
