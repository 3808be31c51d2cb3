"""``calibrate`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_pictures import folder, noisy, save, scene, video
from scenes import write_scenes

from centermask_edge.cli import main
from centermask_edge.quantize import appearance, selection
from centermask_edge.quantize.artefact import graph_hash, weights_hash
from centermask_edge.quantize.model_file import load_float_model

Capture = pytest.CaptureFixture[str]


def manifest(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return record


def content(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def refusal(words: list[str], capsys: Capture) -> str:
    """The one line of a command that is refused."""
    assert main(words) == 2
    shown = capsys.readouterr().err.strip()
    assert shown.startswith("error: ") and len(shown.splitlines()) == 1
    return shown


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder(tmp_path / "data", [scene(i) for i in range(12)])


def test_a_folder(data: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "set"
    assert main(["calibrate", str(data), "--out", str(out), "--count", "8"]) == 0
    record = manifest(out)
    assert record["source"]["kind"] == "folder" and record["source"]["looked_at"] == 12
    assert record["root"] == "../data" and len(record["pictures"]) == 8
    assert record["model"] is record["preprocess"] is None
    shown = capsys.readouterr()
    assert "brightness" in shown.out and "size" not in shown.out
    assert "objects are not known here" in shown.err and "looked at 12 pictures" in shown.err


def test_a_video_with_a_model(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    # Every scene is held for three frames, of which two show nothing new.
    clip = video(tmp_path / "v.mp4", (scene(i // 3) for i in range(30)))
    out = tmp_path / "set"
    words = ["calibrate", str(clip), "--out", str(out), "--count", "8", "--model", str(tiny)]
    assert main(words) == 0
    record = manifest(out)
    assert record["source"]["looked_at"] == 30 and record["source"]["duplicates"] == 20
    model = load_float_model(tiny)
    assert record["model"] == {
        "file": "tiny.onnx",
        "weights": weights_hash(model),
        "graph": graph_hash(model),
    }
    assert record["preprocess"]["short_side"] == 64
    assert {p.name for p in out.iterdir()} == {"manifest.json", "pictures"}
    assert len(list((out / "pictures").iterdir())) == 8
    assert record["shows"]["class: dog"] == record["shows"]["objects: few"] == 8
    shown = capsys.readouterr()
    assert "person" in shown.out and "objects are not known" not in shown.err
    first = content(out)
    assert main(words) == 0
    assert content(out) == first


def test_a_data_set(tmp_path: Path, capsys: Capture) -> None:
    path = write_scenes(tmp_path / "coco", count=10)
    out = tmp_path / "set"
    words = ["calibrate", str(path), "--out", str(out), "--count", "9", "--copy", "--seed", "3"]
    assert main(words) == 0
    record = manifest(out)
    assert record["source"]["kind"] == "dataset" and record["seed"] == 3
    assert record["shows"]["class: person"] == 9 and record["root"] == "pictures"
    assert all("objects: few" in p["shows"] for p in record["pictures"])


def test_frames_beyond_the_limit_are_not_looked_at(tmp_path: Path) -> None:
    clip = video(tmp_path / "v.mp4", (scene(i) for i in range(20)))
    out = tmp_path / "set"
    words = ["calibrate", str(clip), "--out", str(out), "--count", "8", "--max-frames", "11"]
    assert main(words) == 0
    assert manifest(out)["source"]["looked_at"] == 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "5"], "--count 5: a calibration set has 8 to 1024 pictures"),
        (["--count", "20"], "too few pictures: 12 differ and show something, wanted 20"),
        (["--max-frames", "0"], "--max-frames 0: wanted 1 or more"),
        (["--seed", "-1"], "--seed -1: wanted 0 or more"),
        (["--model", "none.onnx"], "model file not found: none.onnx"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: list[str], message: str, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "set"
    assert message in refusal(["calibrate", str(data), "--out", str(out), *options], capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.mp4", "source not found: none.mp4"),
        ("none.json", "annotation file not found: none.json"),
        ("rtsp://user:secret@nowhere.invalid/live", "host nowhere.invalid not found"),
    ],
)
def test_a_source_that_is_not_there_is_one_line(
    source: str, message: str, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "set"
    shown = refusal(["calibrate", source, "--out", str(out)], capsys)
    assert message in shown and "secret" not in shown
    assert not out.exists()


def test_a_broken_file_is_named(data: Path, tmp_path: Path, capsys: Capture) -> None:
    (data / "p5.png").write_bytes(b"\x89PNG not really")
    shown = refusal(["calibrate", str(data), "--out", str(tmp_path / "set")], capsys)
    assert "p5.png is not an image" in shown
    assert not (tmp_path / "set").exists()


def test_black_pictures_are_refused(tmp_path: Path, capsys: Capture) -> None:
    black = np.zeros((64, 96, 3), np.uint8)
    data = folder(tmp_path / "black", [noisy(black, i) for i in range(10)])
    shown = refusal(["calibrate", str(data), "--out", str(tmp_path / "set")], capsys)
    assert "all 10 pictures are black or of one colour" in shown


def test_pictures_scaled_to_one_are_refused(tmp_path: Path, capsys: Capture) -> None:
    scaled = [(scene(i) / 128).astype(np.uint8) for i in range(10)]
    data = folder(tmp_path / "scaled", scaled)
    shown = refusal(["calibrate", str(data), "--out", str(tmp_path / "set")], capsys)
    assert "hold no value above 1" in shown and "divided by 255" in shown


def test_float_pictures_are_refused(tmp_path: Path, capsys: Capture) -> None:
    from PIL import Image

    for index in range(10):
        grey = scene(index)[..., 0].astype(np.float32) / 255
        (tmp_path / "float").mkdir(exist_ok=True)
        Image.fromarray(grey).save(tmp_path / "float" / f"{index}.tif")
    shown = refusal(["calibrate", str(tmp_path / "float"), "--out", str(tmp_path / "s")], capsys)
    assert "values from 0 to 1 instead of 0 to 255?" in shown


def test_a_camera_needs_an_end(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Camera:
        from centermask_edge.live.source import Kind

        kind, name, total, warnings = Kind.STREAM, "rtsp://***@cam/live", None, ["left out"]
        paths: tuple[Path, ...] = ()
        closed = False

        def __iter__(self) -> Any:
            from centermask_edge.frame import Frame

            return (Frame(scene(i), 0.0, 0.0, self.name, i) for i in range(10**9))

        def close(self) -> None:
            Camera.closed = True

    monkeypatch.setattr("centermask_edge.live.sources.opening.open_source", lambda text: Camera())
    words = ["calibrate", "rtsp://u:p@cam/live", "--out", str(tmp_path / "set"), "--count", "8"]
    assert "does not end by itself; say with --max-frames" in refusal(words, capsys)
    assert Camera.closed
    assert main([*words, "--max-frames", "40"]) == 0
    record = manifest(tmp_path / "set")
    assert record["source"]["name"] == "rtsp://***@cam/live"
    assert record["source"]["looked_at"] == 40
    assert "warning: left out" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_half_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0
    look_at = appearance.look_at

    def interrupted(picture: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise KeyboardInterrupt
        return look_at(picture)

    monkeypatch.setattr(selection, "look_at", interrupted)
    clip = video(tmp_path / "v.mp4", (scene(i) for i in range(10)))
    assert main(["calibrate", str(clip), "--out", str(tmp_path / "set")]) == 130
    assert not (tmp_path / "set").exists()


def test_the_output_is_never_somebody_elses_folder(data: Path, capsys: Capture) -> None:
    before = content(data)
    shown = refusal(["calibrate", str(data), "--out", str(data), "--count", "8"], capsys)
    assert "holds 'p0.png' and no calibration set" in shown
    assert content(data) == before


def test_a_quantized_model_finds_no_pictures(
    data: Path, tiny: Path, tmp_path: Path, capsys: Capture
) -> None:
    import onnx

    model = onnx.load(tiny)
    model.graph.node.append(
        onnx.helper.make_node("QuantizeLinear", ["one", "one", "one"], ["q"], "q")
    )
    onnx.save(model, tmp_path / "int8.onnx")
    words = ["calibrate", str(data), "--out", str(tmp_path / "set")]
    shown = refusal([*words, "--model", str(tmp_path / "int8.onnx")], capsys)
    assert "is quantized already: it has QuantizeLinear operations" in shown


def test_one_picture_is_too_few(tmp_path: Path, capsys: Capture) -> None:
    picture = save(tmp_path / "one.png", scene(0))
    shown = refusal(["calibrate", str(picture), "--out", str(tmp_path / "set")], capsys)
    assert "too few pictures: 1 differ" in shown and "wanted 128" in shown
