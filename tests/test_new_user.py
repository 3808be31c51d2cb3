"""The way of a new user: own pictures, in YOLO's format, to a file that runs; by commands only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from yolo_scenes import NAMES, write_yolo

from centermask_edge.cli import main
from centermask_edge.resources import CACHE_VARIABLE


def test_from_own_pictures_to_a_model_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    data = write_yolo(tmp_path / "mine", counts=(16, 4))

    assert main(["data", "mine"]) == 0
    assert "disc" in capsys.readouterr().out

    small = {"short_sides": [64], "long_side": 96, "rois_per_image": 8, "warmup_steps": 1}
    (tmp_path / "small.json").write_text(json.dumps({"train": small}))
    words = ["train", str(data), "--val", str(data), "--preset", "lite-v19-slim-dw"]
    words += ["--recipe", "small.json", "--steps", "2", "--batch-size", "2", "--threads", "1"]
    assert main([*words, "--output", "run"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "mine/data.yaml, train: 16 pictures, 32 objects, all with masks" in told
    assert "mine/data.yaml, val: 4 pictures" in told
    assert (tmp_path / "run" / "data.html").read_text().startswith("<!doctype html>")
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["model"]["classes"] == list(NAMES)

    assert main(["export", "run/last.safetensors", "mine.onnx"]) == 0
    picture = "mine/images/val/000.png"
    words = ["run", picture, "--model", "mine.onnx", "--score", "0", "--size", "64"]
    assert main([*words, "--json", "found.jsonl", "--out", "found.png"]) == 0
    assert (tmp_path / "found.png").stat().st_size > 0
    (line,) = (tmp_path / "found.jsonl").read_text().splitlines()
    assert {i["class"] for i in json.loads(line)["instances"]} <= set(NAMES)

    words = ["evaluate", str(data), "--model", "mine.onnx", "--json", "ap.json"]
    assert main([*words, "--html", "ap.html"]) == 0
    found = json.loads((tmp_path / "ap.json").read_text())
    assert 0 <= found["mask"]["ap"] <= 100 and found["images"] == 4
    assert [c["name"] for c in found["classes"]] == list(NAMES)
    assert set(found["errors"]) == {"mask", "box"}
    assert "Evaluation of mine.onnx on mine/data.yaml" in (tmp_path / "ap.html").read_text()
