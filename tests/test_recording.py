"""Recordings: bit for bit what was segmented, in the same batches, also after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from live_results import result

from centermask_edge.engines import open_engine
from centermask_edge.engines.base import Engine
from centermask_edge.engines.files import file_sha256
from centermask_edge.errors import ModelFileError, SinkError, SourceError
from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.outputs.lines import ResultLines
from centermask_edge.live.outputs.outlet import Outlet, Queue
from centermask_edge.live.record import recording as module
from centermask_edge.live.record.recording import Made, Recorder
from centermask_edge.live.record.replay import ReplaySource, open_recording, replay_batches
from centermask_edge.live.result import Mode, Result
from centermask_edge.live.source import Kind
from centermask_edge.live.sources.video import VideoSource
from centermask_edge.preprocess import Preprocess
from centermask_edge.resources import shipped_model

CLIP = Path(__file__).parents[1] / "centermask_edge" / "_clips" / "people.mp4"
NOISE = np.random.default_rng(0)


def noisy(index: int, camera: str, batch: int, size: tuple[int, int] = (45, 63)) -> Result:
    """The worst for a codec, at an odd size."""
    image = NOISE.integers(0, 256, (*size, 3), np.uint8)
    mode = Mode(1 + index % 3, 256 + 32 * index, index % 2 == 0)
    return result(index, camera, image=image, batch=batch, mode=mode)


def record(folder: Path, results: list[Result]) -> None:
    recorder = Recorder(folder, Made("abc", "openvino", 2, 0.4))
    for one in results:
        recorder.write(one)
    recorder.close()
    recorder.close()


@pytest.fixture(params=["libx264rgb", "ffv1"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param not in av.codecs_available:
        pytest.skip(f"this PyAV has no {request.param}")
    monkeypatch.setattr(av, "codecs_available", {str(request.param)})
    return str(request.param)


def test_batches_come_back_bit_for_bit(tmp_path: Path, codec: str) -> None:
    sent = [
        *(noisy(0, "a", 5), noisy(0, "b", 5)),
        noisy(3, "b", 6),
        *(noisy(4, "b", 7, (90, 30)), noisy(1, "a", 7)),
        noisy(5, "b", 8),
    ]
    record(tmp_path / "new" / "r", sent)
    with av.open(str(tmp_path / "new" / "r" / "a-0000.mkv")) as container:
        assert container.streams.video[0].codec_context.name == codec.replace("libx264rgb", "h264")
    batches = list(replay_batches(tmp_path / "new" / "r"))
    assert [(b.number, len(b.frames), b.complete) for b in batches] == [
        *((5, 2, True), (6, 1, True), (7, 2, True), (8, 1, True)),
    ]
    got = [(f, m) for b in batches for f, m in zip(b.frames, b.modes, strict=True)]
    for one, (frame, mode) in zip(sent, got, strict=True):
        np.testing.assert_array_equal(frame.image, one.frame.image)
        assert mode == one.mode
        assert (frame.camera, frame.index) == (one.frame.camera, one.frame.index)
        assert (frame.pts_s, frame.arrival_s) == (one.frame.pts_s, one.frame.arrival_s)
    recording = open_recording(tmp_path / "new" / "r")
    assert recording.cameras == ("a", "b")
    assert recording.made == Made("abc", "openvino", 2, 0.4)


def test_results_of_the_shipped_model_are_the_same_bytes(tmp_path: Path) -> None:
    model = shipped_model()
    engine = open_engine(model, None, 1, min_score=0.4)
    clip = VideoSource(str(CLIP), Kind.VIDEO)
    frames = [frame for frame, _ in zip(clip, range(40), strict=False)][30:40:2]
    clip.close()
    # Two cameras in one batch, as the scheduler would; then each alone, at another size.
    other = [replace(frame, camera="other", index=frame.index + 7) for frame in frames]
    batches = [[(frames[0], 256), (other[1], 256)], [(frames[2], 192)], [(other[3], 256)]]
    recorder = Recorder(tmp_path / "r", Made(file_sha256(model)))
    first, again = (ResultLines(tmp_path / name, times=False) for name in ("first", "again"))
    for number, batch in enumerate(batches):
        for one in segmented(engine, batch, number):
            first.write(one)
            recorder.write(one)
    recorder.close()
    open_recording(tmp_path / "r").check_model(model)
    for replayed in replay_batches(tmp_path / "r"):
        sides = [mode.short_side for mode in replayed.modes]
        pairs = list(zip(replayed.frames, sides, strict=True))
        for one in segmented(engine, pairs, replayed.number):
            again.write(one)
    for sink in (first, again):
        sink.close()
    wanted = (tmp_path / "first").read_bytes()
    assert (tmp_path / "again").read_bytes() == wanted
    found = [len(json.loads(line)["instances"]) for line in wanted.splitlines()]
    assert len(found) == 4 and sum(found) > 0


def segmented(engine: Engine, batch: list[tuple[Frame, int]], number: int) -> list[Result]:
    """One call of the engine."""
    config = engine.metadata.preprocess
    side = batch[0][1]
    prepare = Preprocess(config.model_copy(update={"short_side": side}))
    pairs = [prepare(frame.image) for frame, _ in batch]
    sizes = np.asarray([placement.resized_size for _, placement in pairs], np.float32)
    raw = engine.run(np.stack([tensor for tensor, _ in pairs]), sizes)
    results = []
    for i, (frame, _) in enumerate(batch):
        found = Instances.from_detections(raw, i, pairs[i][1], engine.metadata.classes)
        found = found.above(0.4)
        ids = np.arange(1, len(found) + 1)
        results.append(Result(frame, found, ids, mode=Mode(1, side), batch=number))
    return results


def test_a_model_that_changed_is_named(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"one")
    Recorder(tmp_path / "r", Made(file_sha256(model))).close()
    recording = open_recording(tmp_path / "r")
    recording.check_model(model)
    model.write_bytes(b"two")
    with pytest.raises(ModelFileError, match="is not the model of"):
        recording.check_model(model)


def test_a_batch_that_lost_a_frame_is_marked(tmp_path: Path) -> None:
    outlet = Outlet(Recorder(tmp_path / "r", Made()), Queue(1, False, True, False))
    for index in range(200):
        outlet.submit(noisy(index, "a", index // 2))
    assert outlet.close(10)
    lost = outlet.statistics().dropped
    assert lost > 0
    recording = open_recording(tmp_path / "r")
    assert len(recording.entries) == 200 - lost
    for batch in replay_batches(tmp_path / "r"):
        assert batch.complete == (len(batch.frames) == 2)


def test_a_full_disk_costs_the_frames_of_that_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path / "r", Made())
    sent = [noisy(index, "a", index // 2) for index in range(8)]
    full = OSError(28, os.strerror(28))
    real = module._Film.write
    for index, one in enumerate(sent):
        if index in (3, 4, 5):
            with monkeypatch.context() as patch, pytest.raises(SinkError, match="No space left"):
                patch.setattr(module._Film, "write", lambda self, frame: _raise(full))
                recorder.write(one)
        else:
            recorder.write(one)
    assert module._Film.write is real
    recorder.close()
    batches = list(replay_batches(tmp_path / "r"))
    assert [(b.number, len(b.frames), b.complete) for b in batches] == [
        *((0, 2, True), (1, 1, False), (3, 2, True)),
    ]
    np.testing.assert_array_equal(batches[2].frames[1].image, sent[7].frame.image)
    assert sorted(p.name for p in (tmp_path / "r").glob("*.mkv")) == ["a-0000.mkv", "a-0001.mkv"]


def _raise(error: Exception) -> int:
    raise error


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from live_results import result
from centermask_edge.live.record.recording import Made, Recorder
recorder = Recorder(Path(sys.argv[1]), Made())
for index in range(400):
    for camera in ("a", "b"):
        recorder.write(result(index, camera, batch=index, arrival_s=index / 25))
print("written", flush=True)
sys.stdin.read()
"""


def test_a_killed_recording_is_read_up_to_its_last_second(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "r"), str(Path(__file__).parent)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "written\n"
        os.kill(child.pid, signal.SIGKILL)
    with (tmp_path / "r" / "index.jsonl").open("a") as file:
        file.write('{"camera":"a","ind')
    lines: list[str] = []
    batches = list(replay_batches(tmp_path / "r", lines.append))
    assert len(lines) == (len(batches) < 400)
    assert 375 <= len(batches) <= 400
    for index, batch in enumerate(batches):
        assert batch.number == index and [f.camera for f in batch.frames] == ["a", "b"]
        assert batch.frames[1].image[0, 0, 0] == (40 + 10 * index) % 256
    source = ReplaySource(tmp_path / "r", "b")
    assert len(list(source)) >= 375
    if len(batches) < 400:
        assert "breaks off" in source.warnings[0]


def test_frames_are_found_by_their_time_where_a_line_is_missing(tmp_path: Path) -> None:
    record(tmp_path / "r", [result(i, batch=i) for i in range(5)])
    index = tmp_path / "r" / "index.jsonl"
    lines = index.read_text().splitlines()
    index.write_text("\n".join(lines[:2] + lines[3:]))
    images = [int(b.frames[0].image[0, 0, 0]) for b in replay_batches(tmp_path / "r")]
    assert images == [40, 60, 70, 80]


def test_a_film_without_a_head_ends_the_replay(tmp_path: Path) -> None:
    record(tmp_path / "r", [result(i, "ab"[i // 3], batch=i) for i in range(6)])
    (tmp_path / "r" / "b-0000.mkv").write_bytes(b"")
    lines: list[str] = []
    assert [b.number for b in replay_batches(tmp_path / "r", lines.append)] == [0, 1, 2]
    assert "breaks off after 3 of 6 batches" in lines[0]


def test_one_camera_is_a_source(tmp_path: Path) -> None:
    record(tmp_path / "r", [result(i, "ab"[i % 2]) for i in range(6)])
    source = ReplaySource(tmp_path / "r", "b")
    assert source.total == 3 and [f.index for f in source] == [1, 3, 5]
    assert [f.index for f in source] == [1, 3, 5] and source.warnings == []
    source.close()
    with pytest.raises(SourceError, match="which camera; it holds: a, b"):
        ReplaySource(tmp_path / "r")
    with pytest.raises(SourceError, match="no camera 'c'; it holds: a, b"):
        ReplaySource(tmp_path / "r", "c")


def test_a_folder_with_a_recording_is_not_written_over(tmp_path: Path) -> None:
    record(tmp_path, [result(0)])
    with pytest.raises(SinkError, match="holds a recording already"):
        Recorder(tmp_path, Made())
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot record in"):
        Recorder(tmp_path / "file", Made())


def test_damage_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*index.jsonl"):
        open_recording(tmp_path)
    index = tmp_path / "index.jsonl"
    index.write_text("")
    with pytest.raises(SourceError, match="is empty"):
        open_recording(tmp_path)
    index.write_text('{"schema":"other/1"}\n')
    with pytest.raises(SourceError, match=r"index.jsonl:1 is not a line of .*other/1"):
        open_recording(tmp_path)
    record(tmp_path / "r", [result(0), result(1)])
    lines = (tmp_path / "r" / "index.jsonl").read_text().splitlines()
    evil = json.dumps({**json.loads(lines[1]), "file": "../../etc/x.mkv"})
    (tmp_path / "r" / "index.jsonl").write_text("\n".join([lines[0], evil, lines[2]]))
    with pytest.raises(SourceError, match=r"index.jsonl:2 .*lies elsewhere"):
        open_recording(tmp_path / "r")
    (tmp_path / "r" / "index.jsonl").write_text("\n".join(lines))
    (tmp_path / "r" / "gate-0000.mkv").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"cannot read .*gate-0000.mkv"):
        list(replay_batches(tmp_path / "r"))
