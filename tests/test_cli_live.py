"""``centermask-edge live`` as a user types it: files as cameras, dead ones, signals, replay."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from centermask_edge.cli import main
from centermask_edge.live import runtime
from centermask_edge.measure.leaks import Sample
from centermask_edge.resources import project_file

CLIP = Path(__file__).parents[1] / "centermask_edge" / "_clips" / "people.mp4"


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of noise at 20 frames/s."""
    path = tmp_path_factory.mktemp("clip") / "noise.mp4"
    rng = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 128, 72, "yuv420p"
        for _ in range(20):
            picture = rng.integers(0, 255, (72, 128, 3), dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_shipped_model_on_two_cameras(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "o.jsonl"
    words = ["live", str(CLIP), str(CLIP), "--json", str(text), "--seconds", "2.5"]
    assert main(words) == 0
    found = lines(text)
    counts = Counter(str(line["camera"]) for line in found)
    assert set(counts) == {"people.mp4", "people.mp4 #2"}
    assert max(counts.values()) <= 1.1 * min(counts.values()) + 1 and min(counts.values()) >= 3
    ages = [float(str(line["age_ms"])) for line in found]
    assert 0 < np.median(ages) < 1000
    people = [len(line["instances"]) for line in found]  # type: ignore[arg-type]
    assert np.median(people) >= 1
    shown = capsys.readouterr().err
    assert "people.mp4: live, h264" in shown and "whole run" in shown and str(text) in shown


def test_a_dead_camera_is_an_error_at_the_end_and_the_other_goes_on(
    noise: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "o.jsonl"
    dead = f"rtsp://admin:hunter2@127.0.0.1:{free_port()}/live"
    words = ["live", dead, str(noise), "--model", str(tiny), "--json", str(text)]
    assert main([*words, "--seconds", "2"]) == 2
    assert len(lines(text)) >= 15
    shown = capsys.readouterr().err
    assert re.search(r"error: 127.0.0.1:\d+/live: never gave a frame: .*refused", shown)
    assert "hunter2" not in shown and "hunter2" not in text.read_text()


def test_videos_and_settings_from_a_file(noise: Path, tiny: Path, tmp_path: Path) -> None:
    config = tmp_path / "cams.yaml"
    config.write_text(
        f"cameras:\n  - {{name: door, address: {noise}, score: 0.7}}\n"
        f"  - {{name: yard, address: {noise}}}\n"
        f"outputs: {{out: {tmp_path / 'videos'}, json: {tmp_path / 'o.jsonl'}}}\n"
        f"model: {tiny}\n"
    )
    assert main(["live", "--config", str(config), "--score", "0.5"]) == 0
    found = lines(tmp_path / "o.jsonl")
    sizes = {(str(f["camera"]), len(f["instances"])) for f in found}  # type: ignore[arg-type]
    assert sizes == {("door", 1), ("yard", 2)}
    for name in ("door", "yard"):
        with av.open(str(tmp_path / "videos" / f"{name}.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) >= 15


def test_a_replay_is_the_same_byte_for_byte(noise: Path, tiny: Path, tmp_path: Path) -> None:
    live = tmp_path / "live.jsonl"
    base = ["live", "--model", str(tiny)]
    record = ["--record", str(tmp_path / "r"), "--json", str(live)]
    assert main([*base, str(noise), str(noise), "--batch", "2", *record]) == 0
    for name in ("a", "b"):
        words = ["--replay", str(tmp_path / "r"), "--json", str(tmp_path / f"{name}.jsonl")]
        assert main([*base, *words]) == 0
    again = (tmp_path / "a.jsonl").read_bytes()
    assert again == (tmp_path / "b.jsonl").read_bytes()
    kept = ("camera", "index", "instances", "mode")
    first = [{key: line[key] for key in kept} for line in lines(live)]
    assert [{k: line[k] for k in kept} for line in lines(tmp_path / "a.jsonl")] == first


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_good_order(signum: signal.Signals, tiny: Path, tmp_path: Path) -> None:
    out, text = tmp_path / "v", tmp_path / "o.jsonl"
    words = ["live", str(CLIP), "--model", str(tiny), "--out", str(out), "--json", str(text)]
    command = [sys.executable, "-m", "centermask_edge", *words, "--plain"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 20
        while not (text.exists() and text.stat().st_size > 2000):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signum)
        asked = time.monotonic()
        _, shown = process.communicate(timeout=15)
    assert process.returncode == 128 + signum
    assert time.monotonic() - asked < 5
    assert "whole run" in shown and "Traceback" not in shown
    count = len(lines(text))
    with av.open(str(out / "people.mp4.mp4")) as container:
        assert abs(sum(1 for _ in container.decode(video=0)) - count) <= 1


def test_the_second_signal_ends_at_once(tiny: Path, tmp_path: Path) -> None:
    code = (
        "import threading, centermask_edge.live.runtime as r\n"
        "hang = lambda *a: threading.Event().wait()\n"
        "r.close_all = hang\n"
        "import sys; from centermask_edge.cli import main; sys.exit(main(sys.argv[1:]))\n"
    )
    text = tmp_path / "o.jsonl"
    words = ["live", str(CLIP), "--model", str(tiny), "--json", str(text)]
    command = [sys.executable, "-c", code, *words]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not (text.exists() and text.stat().st_size > 2000):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(timeout=3)
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no cameras; name some"),
        (["no-such-file.mp4"], "source not found: no-such-file.mp4"),
        (["gopher://x/y"], "addresses that can be read"),
        (["CLIP", "--max-age", "100"], "--max-age: not an age; wanted a number with its unit"),
        (["CLIP", "--score", "2"], "--score: it should be less than or equal to 1"),
        (["CLIP", "--mjpeg", "host"], "--mjpeg: wanted PORT or HOST:PORT"),
        (["CLIP", "--mjpeg", "0.0.0.0:0"], "token"),
        (["CLIP", "--mqtt", "http://u:hunter2@h"], "address of a broker"),
        (["CLIP", "--seconds", "0"], "--seconds 0: wanted more than 0"),
        (["CLIP", "--metrics", "70000"], "a port is 0 to 65535"),
        (["CLIP", "--json", "no/such/folder/x"], "no folder no/such/folder"),
        (["CLIP", "--json", "x", "--out", "x"], "have the same name"),
        (["--replay", "nowhere"], "give a recording"),
        (["CLIP", "--replay", "nowhere"], "takes its cameras from the recording"),
        (["--config", "nowhere.yaml"], "cannot read the config file"),
    ],
)
def test_user_errors(
    words: list[str],
    message: str,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(CLIP) if word == "CLIP" else word for word in words]
    assert main(["live", *given, "--model", str(tiny)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and message in shown and shown.count("\n") == 1
    assert "hunter2" not in shown
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("mb_per_hour", "code"), [(0.0, 0), (100.0, 3)])
def test_a_soak_ends_with_a_verdict(
    mb_per_hour: float,
    code: int,
    noise: Path,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter(range(0, 100_000, 10))

    def sample() -> Sample:
        now = float(next(times))
        return Sample(now, 100 + mb_per_hour * now / 3600, 10, 10)

    monkeypatch.setattr(runtime, "sample", sample)
    monkeypatch.setattr(runtime, "_SOAK_S", 0.0)
    monkeypatch.setattr(runtime, "_LOOK_S", 0.01)
    assert main(["live", str(noise), "--model", str(tiny), "--soak"]) == code
    shown = capsys.readouterr().err
    assert ("soak: LEAK" if code else "soak: no leak") in shown
    assert f"{mb_per_hour:+.1f} MB/h" in shown


def test_the_program_for_four_cameras(
    noise: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    program = runpy.run_path(str(project_file("apps", "four_cameras.py")))
    monkeypatch.setitem(program["main"].__globals__, "default_model", lambda: tiny)
    program["main"]([str(noise), str(noise)])
    shown = capsys.readouterr().out
    assert "camera 2: 2 people" in shown and "whole run" in shown
