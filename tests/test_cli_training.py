"""train, export and evaluate as a user types them, on a data set drawn in the test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scenes import write_scenes

from centermask_edge.cli import main
from centermask_edge.resources import CACHE_VARIABLE

RECIPE = {
    "preset": "person-efficientnet-lite0",
    "train": {
        "batch_size": 2,
        "optimizer": "adamw",
        "base_lr": 0.004,
        "schedule": "cosine",
        "warmup_steps": 1,
        "short_sides": [64],
        "long_side": 96,
        "rois_per_image": 8,
        "ema_decay": 0.5,
        "save_every": 2,
    },
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two data sets, a recipe and a run of three steps."""
    folder = tmp_path_factory.mktemp("trained")
    write_scenes(folder / "train")
    write_scenes(folder / "boxes", seed=1, masks=False)
    write_scenes(folder / "val", seed=2, count=2)
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    assert main(_train(folder, 3)) == 0
    return folder


def _train(folder: Path, steps: int, *more: str) -> list[str]:
    data = [str(folder / name / "scenes.json") for name in ("train", "boxes")]
    options = ["--recipe", str(folder / "recipe.json"), "--steps", str(steps)]
    options += ["--val", str(folder / "val" / "scenes.json"), "--output", str(folder / "run")]
    return ["train", *data, *options, *more]


def test_training_leaves_weights_state_settings_and_curves(trained: Path) -> None:
    run = trained / "run"
    assert (run / "last.safetensors").stat().st_size > 1e6
    assert (run / "state.pt").exists()
    assert json.loads((run / "settings.json").read_text())["train"]["steps"] == 3
    assert list(run.glob("events.out.tfevents.*"))
    assert not list(run.glob("*.partial"))


def test_the_same_command_continues(trained: Path) -> None:
    before = (trained / "run" / "state.pt").read_bytes()
    assert main(_train(trained, 4)) == 0
    assert (trained / "run" / "state.pt").read_bytes() != before


def test_exported_file_evaluates_as_its_checkpoint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    checkpoint = trained / "run" / "last.safetensors"
    onnx = tmp_path / "model.onnx"
    assert main(["export", str(checkpoint), str(onnx), "--note", "run=test"]) == 0
    val = str(trained / "val" / "scenes.json")
    reports = []
    for model, engine in ((checkpoint, None), (onnx, "onnxruntime"), (onnx, "openvino")):
        out = tmp_path / "report.json"
        words = ["evaluate", val, "--model", str(model), "--json", str(out)]
        assert main(words + (["--engine", engine] if engine else [])) == 0
        reports.append(json.loads(out.read_text()))
    assert [r["images"] for r in reports] == [2, 2, 2]
    assert len({r["engine"] for r in reports}) == 3
    for report in reports[1:]:
        assert report["mask"]["ap50"] == pytest.approx(reports[0]["mask"]["ap50"], abs=0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "missing.json", "--preset", "lite-v19"], "annotation file not found"),
        (["train", "missing.json", "--preset", "v20"], "unknown preset 'v20'"),
        (["train", "missing.json"], "no model named"),
        (["train", "missing.json", "--recipe", "none"], "unknown recipe 'none'"),
        (["train", "x.json", "--preset", "lite-v19", "--steps", "0"], "training setting steps"),
        (["export", "missing.safetensors", "a.onnx"], "checkpoint not found"),
        (["evaluate", "missing.json", "--model", "missing.onnx"], "model file not found"),
        (["evaluate", "missing.json", "--model", "missing.safetensors"], "checkpoint not found"),
    ],
)
def test_a_users_error_is_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and line.startswith("error: ")
    assert not list(tmp_path.glob("*.onnx"))


def test_a_state_of_another_model_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = _train(trained, 5, "--preset", "lite-v19-slim-dw")
    # The person scenes have a class that the 80-class preset knows too, so only the state differs.
    assert main(words) == 2
    assert "cannot resume from" in capsys.readouterr().err


def test_a_note_without_a_value_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(trained / "run" / "last.safetensors")
    assert main(["export", checkpoint, str(tmp_path / "a.onnx"), "--note", "run"]) == 2
    assert "KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "export", "convert"])
def test_without_torch_one_line_says_what_to_install(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(words: list[str], **options: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("centermask_edge.cli.application", lambda: missing)
    assert main([command, "a", "b"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"needed to {command}" in line and "centermask-edge[train]" in line
