"""``run`` and ``predict`` as a user types them, with a model that finds the same three things."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import centermask_edge
from centermask_edge.cli import main
from centermask_edge.cli.run import SIGNALLED
from centermask_edge.errors import ConfigError, SourceError
from centermask_edge.masks import decode_rle


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 255, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of noise at 10 frames/s."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    rng = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(12):
            noise = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(noise, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_video(
    clip: Path, tiny: Path, tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, text, stages = tmp_path / "o.mp4", tmp_path / "o.jsonl", tmp_path / "s.json"
    words = ["run", str(clip), "--out", str(out), "--json", str(text), "--stages-json", str(stages)]
    assert main([*words, "--model", str(tiny), "--engine", engine, "--threads", "1"]) == 0
    assert frames(out) == 12 and len(lines(text)) == 12
    facts = json.loads(stages.read_text())
    names = [row["stage"] for row in facts["stages"]]
    assert names == ["decode", "preprocess", "engine", "masks", "draw", "encode", "total"]
    assert facts["frames"] == 12 and facts["engine"].startswith(engine)
    assert all(0 <= r["p50_ms"] <= r["p95_ms"] <= r["p99_ms"] for r in facts["stages"])
    shown = capsys.readouterr().err
    assert "12 frames, 24 instances" in shown and "p95" in shown


def test_json_holds_masks_in_frame_coordinates(clip: Path, tiny: Path, tmp_path: Path) -> None:
    text = tmp_path / "o.jsonl"
    words = ["run", str(clip), "--json", str(text), "--model", str(tiny), "--max-frames", "2"]
    assert main([*words, "--score", "0.25"]) == 0
    first, second = lines(text)
    assert (first["frame"], second["frame"]) == (0, 1)
    assert second["pts_s"] == pytest.approx(0.1)
    found = first["instances"]
    assert isinstance(found, list) and [i["class"] for i in found] == ["person", "dog", "person"]
    mask = decode_rle(found[0]["segmentation"])
    assert mask.shape == (96, 128)
    x0, y0, x1, y1 = found[0]["box"]
    rows, columns = np.nonzero(mask)
    assert columns.min() >= x0 - 1 and columns.max() <= x1
    assert rows.min() >= y0 - 1 and rows.max() <= y1


def test_score_decides_what_is_found(photo: Path, tiny: Path, tmp_path: Path) -> None:
    counts = []
    for score in ("0.2", "0.5", "0.7", "0.95"):
        text = tmp_path / f"{score}.jsonl"
        words = ["run", str(photo), "--json", str(text), "--model", str(tiny), "--score", score]
        assert main(words) == 0
        found = lines(text)[0]["instances"]
        assert isinstance(found, list)
        counts.append(len(found))
    assert counts == [3, 2, 1, 0]


def test_an_image_and_a_folder(photo: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jpg"
    assert main(["run", str(photo), "--out", str(out), "--model", str(tiny)]) == 0
    with Image.open(out) as picture:
        assert picture.size == (140, 90)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b10.png", "b2.png"):
        photo_bytes = photo.read_bytes()
        (folder / name).write_bytes(photo_bytes)
    text = tmp_path / "o.jsonl"
    words = ["run", str(folder), "--out", str(tmp_path / "outs"), "--json", str(text)]
    assert main([*words, "--model", str(tiny)]) == 0
    assert [line["camera"] for line in lines(text)] == ["b2.png", "b10.png"]
    assert sorted(p.name for p in (tmp_path / "outs").iterdir()) == ["b10.png", "b2.png"]


def test_size_changes_what_the_network_sees(photo: Path, tiny: Path, tmp_path: Path) -> None:
    seen = []
    for size in ("64", "96"):
        stages = tmp_path / f"{size}.json"
        words = ["run", str(photo), "--stages-json", str(stages), "--model", str(tiny)]
        assert main([*words, "--size", size]) == 0
        seen.append(json.loads(stages.read_text())["network_input"])
    assert seen == ["128x64", "160x96"]


def test_a_video_cut_off_is_an_error_after_what_it_holds(
    clip: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = clip.with_suffix(".mkv")
    with av.open(str(clip)) as source, av.open(str(whole), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    cut = tmp_path / "cut.mkv"
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    text, out = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    words = ["run", str(cut), "--json", str(text), "--out", str(out), "--model", str(tiny)]
    assert main(words) == 2
    assert 0 < len(lines(text)) < 12
    assert frames(out) == len(lines(text))
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: cut.mkv breaks off")


def test_a_bad_image_in_a_folder_is_an_error_after_the_others(
    photo: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "good.png").write_bytes(photo.read_bytes())
    (folder / "bad.png").write_bytes(b"not a picture")
    text = tmp_path / "o.jsonl"
    assert main(["run", str(folder), "--json", str(text), "--model", str(tiny)]) == 2
    assert [line["camera"] for line in lines(text)] == ["good.png"]
    assert "1 of 2 images skipped" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.mp4"], "source not found: missing.mp4"),
        (["zero.mp4"], "is empty (0 bytes)"),
        (["noise.mp4"], "not a video or image that can be read"),
        (["noise.png"], "is not an image this can read"),
        (["empty"], "holds no images"),
        (["ftp://host/x"], "addresses that can be read start with"),
        (["rtsp://user:secret@127.0.0.1:9/x"], "connection refused"),
        (["photo.png", "--model", "missing.onnx"], "model file not found"),
        (["photo.png", "--model", "zero.onnx"], "is empty (0 bytes)"),
        (["photo.png", "--model", "noise.onnx"], "not a valid ONNX file"),
        (["photo.png", "--out", "missing/o.png"], "no folder missing"),
        (["photo.png", "--out", "photo.png"], "is the source itself"),
        (["photo.png", "--json", "o.x", "--stages-json", "o.x"], "name the same file"),
        (["photo.png", "--size", "8"], "32 to 4096"),
        (["photo.png", "--score", "1.5"], "between 0 and 1"),
        (["photo.png", "--max-frames", "0"], "wanted 1 or more"),
        (["photo.png", "--threads", "0"], "at least 1"),
        (["photo.png", "--engine", "tensorrt"], "--engine openvino"),
        (["photo.png", "--engine", "abacus"], "'abacus' is not one of"),
    ],
)
def test_a_users_error_is_one_line(
    photo: Path,
    tiny: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photo.parent)
    for name in ("zero.mp4", "zero.onnx"):
        Path(name).write_bytes(b"")
    for name in ("noise.mp4", "noise.png", "noise.onnx"):
        Path(name).write_bytes(np.random.default_rng(3).bytes(3000))
    Path("empty").mkdir()
    before = photo.read_bytes()
    model = [] if "--model" in words else ["--model", str(tiny)]
    assert main(["run", *words, *model]) == 2
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1 and shown.startswith("error: "), shown
    assert message in shown and "secret" not in shown
    assert photo.read_bytes() == before and not Path("o.x").exists()


def test_sigterm_finishes_the_files(clip: Path, tiny: Path, tmp_path: Path) -> None:
    # A source that takes long enough to be interrupted: the same clip many times over.
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(3000):
        (folder / f"{index}.bmp").symlink_to(_bmp(tmp_path))
    text = tmp_path / "o.jsonl"
    words = ["run", str(folder), "--json", str(text), "--model", str(tiny)]
    process = subprocess.Popen(
        [sys.executable, "-m", "centermask_edge", *words],
        stderr=subprocess.PIPE,
        env=dict(os.environ),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (text.exists() and text.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == SIGNALLED + signal.SIGTERM, shown
    assert b"Traceback" not in shown and 0 < len(lines(text)) < 3000


def _bmp(folder: Path) -> Path:
    path = folder / "one.bmp"
    if not path.exists():
        Image.new("RGB", (640, 480), "gray").save(path)
    return path


def test_predict_takes_a_path_or_an_array(photo: Path, tiny: Path) -> None:
    from_path = centermask_edge.predict(photo, model=tiny)
    with Image.open(photo) as picture:
        pixels = np.asarray(picture)[..., ::-1]
    from_array = centermask_edge.predict(pixels, model=str(tiny), engine="onnxruntime")
    assert len(from_path) == len(from_array) == 2
    np.testing.assert_allclose(from_path.boxes, from_array.boxes, atol=1e-3)
    assert from_path.names[int(from_path.classes[0])] == "person"
    with pytest.raises(SourceError, match="image not found"):
        centermask_edge.predict("missing.png", model=tiny)
    with pytest.raises(ConfigError, match="unknown engine 'abacus'"):
        centermask_edge.predict(photo, model=tiny, engine="abacus")
    with pytest.raises(ValueError, match="uint8"):
        centermask_edge.predict(np.zeros((4, 4), np.uint8), model=tiny)
