"""``quantize`` as a user types it: what it writes, what it refuses, what survives Ctrl-C."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import quantize_models as models
from calibration_pictures import folder, noisy, save, scene
from quantize_cli import changed, files, judged, paint_over, refusal, without_first_layer, words
from scenes import write_scenes

from centermask_edge.cli import main
from centermask_edge.graph.precision import is_quantized
from centermask_edge.quantize import artefact, publish, scales
from centermask_edge.quantize.build import int8_record
from centermask_edge.quantize.collect import Collector
from centermask_edge.quantize.judge import Judgement
from centermask_edge.quantize.picture_set import PictureSet

Capture = pytest.CaptureFixture[str]
COUNT = 9


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    onnx.save(models.exported(), path)
    return path


@pytest.fixture(scope="module")
def calibrated(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration set for the model, with its pictures beside it; not to be changed."""
    root = tmp_path_factory.mktemp("calibrated")
    folder(root / "data", [scene(i) for i in range(12)])
    words = ["calibrate", str(root / "data"), "--out", str(root / "set"), "--count", str(COUNT)]
    assert main([*words, "--model", str(model)]) == 0
    return root / "set"


@pytest.fixture
def own(calibrated: Path, tmp_path: Path) -> Path:
    """The same set, to be changed."""
    for path in (calibrated.parent / "data").iterdir():
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "set").mkdir()
    text = (calibrated / "manifest.json").read_text()
    (tmp_path / "set" / "manifest.json").write_text(text)
    return tmp_path / "set"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "net-int8.onnx"


@pytest.fixture(scope="module")
def finished(model: Path, calibrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An INT8 file with its calibration; not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "net-int8.onnx"
    assert main(words(model, calibrated, path)) == 0
    return path


@pytest.fixture
def done(finished: Path, out: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(finished.parent, out.parent)
    return out


def test_an_int8_file_that_runs(model: Path, calibrated: Path, out: Path, capsys: Capture) -> None:
    assert main(words(model, calibrated, out)) == 0
    assert files(out.parent) == {"net-int8.onnx", "net-int8.calibration.npz"}
    int8 = onnx.load(out)
    record = int8_record(int8)
    assert is_quantized(int8) and record is not None
    assert record["plan"]["name"] == "openvino" and record["ranges"] == "mse"
    assert len(record["calibration"]) == 64
    session = onnxruntime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    feed = {"image": np.zeros((1, 3, 64, 96), np.float32), "image_size": [[64.0, 96.0]]}
    feed["image_size"] = np.array(feed["image_size"], np.float32)
    assert session.run(["boxes"], feed)[0].shape == (1, 6, 4)
    shown = capsys.readouterr().err
    assert f"wrote {out}" in shown and "accuracy was not measured: give --val" in shown


def test_the_same_again_reads_the_calibration_and_gives_the_same_bytes(
    model: Path, calibrated: Path, done: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = done
    given = words(model, calibrated / "manifest.json", out)
    first = out.read_bytes()
    out.unlink()
    capsys.readouterr()

    def never(*args: Any) -> None:
        raise AssertionError("collected again")

    monkeypatch.setattr(Collector, "add", never)
    assert main(given) == 0
    assert out.read_bytes() == first
    assert "calibrated earlier with these pictures" in capsys.readouterr().err
    # One calibration serves every recipe and observer.
    for more in (["--recipe", "tensorrt"], ["--observer", "max"], ["--bias-correction"]):
        assert main([*given, *more]) == 0
        assert out.read_bytes() != first


def test_ctrl_c_and_again(
    model: Path,
    calibrated: Path,
    finished: Path,
    out: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(artefact, "_SAVE_EVERY", 2)
    add, added = Collector.add, 0

    def counted(*args: Any) -> None:
        nonlocal added
        added += 1
        if added == 6:
            raise KeyboardInterrupt
        add(*args)

    monkeypatch.setattr(Collector, "add", counted)
    capsys.readouterr()
    assert main(words(model, calibrated, out)) == 130
    assert "interrupted at picture 5 of 9" in capsys.readouterr().err
    assert not out.exists() and not (out.parent / "net-int8.calibration.npz").exists()
    added = 100
    assert main(words(model, calibrated, out)) == 0
    assert added == 100 + COUNT - 4  # four pictures were saved
    assert "going on after 4 pictures" in capsys.readouterr().err
    assert out.read_bytes() == finished.read_bytes()
    assert "net-int8.calibration.npz.partial" not in files(out.parent)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "0"], "--budget 0: points of mask AP, above 0, for example 0.3"),
        (["--percentile", "3"], "--percentile 3: wanted 50 to 100"),
        (["--threads", "0"], "--threads 0: the number of threads is at least 1"),
        (["--json", "v.json"], "--report and --json hold the measured accuracy; give --val"),
        (["--recipe", "none"], "unknown quantization plan 'none'"),
        (["--observer", "none"], "--observer"),
        (["--val", "none.json"], "annotation file not found: none.json"),
        (["--out", "net.engine"], "--out net.engine: the INT8 model is an .onnx file"),
    ],
)
def test_a_wrong_option_is_one_line(
    more: list[str], message: str, model: Path, calibrated: Path, out: Path, capsys: Capture
) -> None:
    assert message in refusal(words(model, calibrated, out, *more), capsys)
    assert files(out.parent) == set()


def test_nothing_is_written_over_the_model(model: Path, calibrated: Path, capsys: Capture) -> None:
    before = model.read_bytes()
    shown = refusal(
        words(model, calibrated, model.parent / ".." / model.parent / "net.onnx"), capsys
    )
    assert "name the same file; give each its own" in shown
    assert model.read_bytes() == before


# Sabotage


def test_pictures_normalised_for_another_model_are_refused(
    model: Path, calibrated: Path, out: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = changed(model, tmp_path / "other.onnx", std=[255.0, 255.0, 255.0])
    shown = refusal(words(other, calibrated, out), capsys)
    assert "std is 1 1 1, wanted 255 255 255" in shown


def test_a_manifest_with_other_preprocessing_is_refused(
    model: Path, own: Path, out: Path, capsys: Capture
) -> None:
    record = json.loads((own / "manifest.json").read_text())
    record["preprocess"]["channel_order"] = "rgb"
    (own / "manifest.json").write_text(json.dumps(record))
    assert "channel_order is rgb, wanted bgr" in refusal(words(model, own, out), capsys)


def test_the_calibration_of_other_weights_is_refused(
    model: Path, calibrated: Path, done: Path, tmp_path: Path, capsys: Capture
) -> None:
    before = done.read_bytes()
    other = changed(model, tmp_path / "other.onnx")
    shown = refusal(words(other, calibrated, done), capsys)
    assert "weights is " in shown and "wanted " in shown and "--no-resume" in shown
    assert done.read_bytes() == before
    assert main(words(other, calibrated, done, "--no-resume")) == 0
    assert main(words(other, calibrated, done)) == 0


def test_the_calibration_of_other_preprocessing_is_refused(
    model: Path, calibrated: Path, own: Path, done: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = changed(model, tmp_path / "other.onnx", mean=[0.0, 0.0, 0.0])
    record = json.loads((own / "manifest.json").read_text())
    record["preprocess"] = None  # of a set that was chosen without a model
    (own / "manifest.json").write_text(json.dumps(record))
    shown = refusal(words(other, own, done), capsys)
    assert "preprocess is mean [103.53" in shown and "wanted mean [0.0" in shown


def test_the_calibration_of_other_pictures_is_refused(
    model: Path, calibrated: Path, own: Path, done: Path, capsys: Capture
) -> None:
    record = json.loads((own / "manifest.json").read_text())
    record["pictures"].pop()
    (own / "manifest.json").write_text(json.dumps(record))
    shown = refusal(words(model, own, done), capsys)
    assert "pictures is 9 pictures, wanted 8" in shown


def test_a_changed_picture_is_refused(model: Path, own: Path, out: Path, capsys: Capture) -> None:
    record = json.loads((own / "manifest.json").read_text())
    path = own.parent / "data" / record["pictures"][2]["file"]
    save(path, noisy(scene(2), 1))
    shown = refusal(words(model, own, out), capsys)
    assert f"{path.name} has changed" in shown and "sha256 is " in shown
    path.unlink()
    shown = refusal(words(model, own, out), capsys)
    assert f"{path.name} named in " in shown and "No such file" in shown
    assert files(out.parent) == set()


def test_moved_pictures_are_found(model: Path, own: Path, out: Path, capsys: Capture) -> None:
    (own.parent / "data").rename(own.parent / "moved")
    assert "--pictures" in refusal(words(model, own, out), capsys)
    assert main(words(model, own, out, "--pictures", str(own.parent / "moved"))) == 0


def test_a_black_set_is_refused(model: Path, own: Path, out: Path, capsys: Capture) -> None:
    """One that calibrate did not make: it refuses such pictures itself."""
    paint_over(own / "manifest.json", own.parent / "data")
    shown = refusal(words(model, own, out), capsys)
    assert "9 of 9 calibration pictures are of one colour" in shown
    assert not out.exists()


@pytest.mark.parametrize("observer", ["entropy", "max", "mse", "percentile"])
def test_an_observer_that_returns_a_range_of_zero_is_refused(
    model: Path,
    calibrated: Path,
    done: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    observer: str,
) -> None:
    out = done
    out.unlink()
    monkeypatch.setattr(scales, "threshold", lambda *arguments: 0.0)
    shown = refusal(words(model, calibrated, out, "--observer", observer), capsys)
    assert "range" in shown and "0" in shown
    assert not out.exists()


def test_an_activation_that_is_always_zero_is_refused_by_name(
    model: Path, calibrated: Path, out: Path, tmp_path: Path, capsys: Capture
) -> None:
    dead = without_first_layer(model, tmp_path / "dead.onnx")
    shown = refusal(words(dead, calibrated, out), capsys)
    assert "has a range of zero on the calibration pictures" in shown
    assert not out.exists()


def test_a_quantized_model_is_refused(
    model: Path, calibrated: Path, done: Path, capsys: Capture
) -> None:
    shown = refusal(words(done, calibrated, done.with_name("twice.onnx")), capsys)
    assert "is quantized already" in shown and "give the FP32 file" in shown


@pytest.mark.parametrize("name", ["nothing", "net.onnx", "empty.onnx"])
def test_what_is_no_set_or_no_model_is_one_line(
    name: str, model: Path, calibrated: Path, out: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "empty.onnx").touch()
    path = model if name == "net.onnx" else tmp_path / name
    assert "calibrat" in refusal(words(model, path, out), capsys)
    if path != model:
        assert str(path) in refusal(words(path, calibrated, out), capsys)


# With a verdict


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_scenes(tmp_path_factory.mktemp("val"), count=3)
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "class 0"
    path.write_text(json.dumps(content))
    return path


def test_a_verdict_with_a_report(
    model: Path, calibrated: Path, val: Path, done: Path, capsys: Capture
) -> None:
    out = done
    out.unlink()
    report, record = out.with_suffix(".html"), out.with_suffix(".json")
    more = ["--val", str(val), "--report", str(report), "--json", str(record)]
    assert main(words(model, calibrated, out, *more, "--budget", "50")) == 0
    verdict = json.loads(record.read_text())
    assert verdict["held"] is True and verdict["budget"] == 50
    assert [m["name"] for m in verdict["models"]] == [
        "net.onnx",
        "net-fp16.onnx",
        "net-int8.onnx",
    ]
    assert report.read_text().startswith("<!doctype html>")
    shown = capsys.readouterr()
    assert "mask INT8" in shown.out and "the budget of 50.00 is held" in shown.out
    assert "in 8 bits: asked" in shown.out
    named = {"net-int8.onnx", "net-int8.calibration.npz", report.name, record.name}
    assert files(out.parent) == named


def test_a_file_past_the_budget_does_not_get_the_name(
    model: Path,
    calibrated: Path,
    val: Path,
    done: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, seen = done, list[Path | None]()
    out.unlink()
    loss = 0.31

    def judge(files: Any, *arguments: Any) -> Judgement:
        seen.append(files.int8)
        return judged(loss)

    monkeypatch.setattr(publish, "judge", judge)
    monkeypatch.setattr(PictureSet, "shared_with", lambda self, paths: len(list(paths)) - 1)
    record = out.with_suffix(".json")
    given = words(model, calibrated, out, "--val", str(val), "--json", str(record), "--no-fp16")
    past = out.with_name("net-int8.over-budget.onnx")
    assert main(given) == 3
    assert past.exists() and not out.exists()
    assert is_quantized(onnx.load(past))
    assert json.loads(record.read_text())["models"][0]["name"] == past.name
    shown = capsys.readouterr()
    assert "2 of the 3 pictures were calibrated with, too" in shown.out
    assert "INT8 loses 0.31 mask AP" in shown.out and "is not held" in shown.out
    assert f"wrote {past}" in shown.err and "so the file is not named net-int8.onnx" in shown.err

    loss = 0.29
    assert main(given) == 0
    assert out.exists() and not past.exists()
    good = out.read_bytes()

    loss = 1.5
    capsys.readouterr()
    assert main(given) == 3
    assert out.read_bytes() == good and past.exists()
    assert "of an earlier run is as it was" in capsys.readouterr().err
    assert all(path is not None and path.name == out.name for path in seen)


def test_an_interrupted_judgement_leaves_the_calibration_and_no_model(
    model: Path, calibrated: Path, val: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = done
    out.unlink()

    def judge(*arguments: Any) -> Judgement:
        raise KeyboardInterrupt

    monkeypatch.setattr(publish, "judge", judge)
    assert main(words(model, calibrated, out, "--val", str(val))) == 130
    assert files(out.parent) == {"net-int8.calibration.npz"}


def test_a_folder_that_cannot_be_written_is_one_line(
    model: Path, calibrated: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").touch()
    shown = refusal(words(model, calibrated, tmp_path / "file" / "net.onnx"), capsys)
    assert f"cannot write to {tmp_path / 'file'}: " in shown
