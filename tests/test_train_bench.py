"""The comparison of trainings: row by row, resumable, and its curves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import gpu_train
import pytest
import torch
import train_compare
from train_curves import curves_svg
from train_resume import draw_pictures

from centermask_edge.config import ModelConfig, preset
from centermask_edge.model import checkpoint
from centermask_edge.train.auto_batch import crowded_batch
from centermask_edge.train.journal import LINES
from centermask_edge.train.learner import train_step
from centermask_edge.train.run import start_run

pytestmark = pytest.mark.usefixtures("one_thread")


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> int:
    data = str(folder / "set" / "drawn.json")
    val = str(folder / "val" / "drawn.json")
    words = ["--train", data, "--val", val, "--json", str(folder / "compare.json")]
    words += ["--runs", str(folder / "runs"), "--steps", "2", "--short-side", "64"]
    monkeypatch.setattr(sys, "argv", ["train_compare.py", *words, "--batch-size", "2", *more])
    return train_compare.main()


def test_rows_are_added_as_they_end_and_not_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_pictures(tmp_path / "set", count=4)
    draw_pictures(tmp_path / "val", count=2, seed=1)
    assert run(monkeypatch, tmp_path, "--rows", "no mask scoring") == 0
    assert run(monkeypatch, tmp_path, "--rows", "baseline,no mask scoring") == 0
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()] == ["no mask scoring", "baseline"]
    content = json.loads((tmp_path / "compare.json").read_text())
    assert [row["row"] for row in content["rows"]] == ["baseline", "no mask scoring"]
    first, second = content["rows"]
    assert first["parameters_m"] > second["parameters_m"] + 5  # the mask-IoU head
    assert [step for step, _ in first["loss"]] == [1, 2] and first["steps"] == 2
    root = ElementTree.fromstring((tmp_path / "compare.svg").read_text())
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 2
    assert run(monkeypatch, tmp_path, "--rows", "baseline", "--seed", "1") == 2
    assert "is of another budget (seed)" in capsys.readouterr().err
    assert run(monkeypatch, tmp_path, "--rows", "nothing") == 2
    assert "unknown row 'nothing'; rows are: baseline, " in capsys.readouterr().err


def test_every_row_is_a_network_and_a_run_that_exist(tmp_path: Path) -> None:
    plan = train_compare.Plan(
        (tmp_path / "a.json",),
        tmp_path / "b.json",
        tmp_path,
        "lite-v19-slim-dw",
        9,
        1.0,
        96,
        2,
        0,
        1,
    )
    rows = train_compare.rows(train_compare.lite_plus())
    baseline = plan.model({})
    assert isinstance(baseline, ModelConfig) and baseline == preset("lite-v19-slim-dw")
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) and names[0] == "baseline"
    for row in rows[1:]:
        config, model = plan.config(row.name, row.train), plan.model(row.model)
        differs = config.model_copy(update={"output": Path()}) != plan.config(
            "baseline", {}
        ).model_copy(update={"output": Path()})
        assert differs + (model != baseline) + row.teacher >= 1, row.name
        assert (row.part == "network") == (model != baseline)


def test_curves_fall_from_left_to_right() -> None:
    root = ElementTree.fromstring(curves_svg({"a < b": [(1, 8.0), (50, 4.0), (100, 2.0)]}))
    (line,) = root.findall("{http://www.w3.org/2000/svg}polyline")
    places = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    first, second, third = (y for _, y in places)
    assert second - first == pytest.approx(third - second, abs=0.2)  # halves are equal steps down


# --- training on a GPU in several calls, rehearsed on the CPU -----------------------------------


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> int:
    words = ["--data", str(folder / "set"), "--output", str(folder / "out"), "--rehearse", *more]
    monkeypatch.setattr(sys, "argv", ["gpu_train.py", *words])
    return gpu_train.main()


def test_calls_go_on_where_the_last_one_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("train", 0), ("val", 1)):
        path = draw_pictures(tmp_path / "set", count=3, seed=seed, name=name)
        assert path.name == f"{name}.json"
    assert call(monkeypatch, tmp_path, "--seconds", "0.5") == 0
    said = capsys.readouterr().out
    assert "person-v19-slim: stopped after step 1 of 4" in said and "not finished" in said
    assert call(monkeypatch, tmp_path, "--seconds", "300") == 0
    said = capsys.readouterr().out
    assert "person-v39: step 4 of 4" in said and "finished: person-v19-slim, person-v39" in said
    for name in gpu_train.MODELS:
        rows = [json.loads(x) for x in (tmp_path / "out" / name / LINES).read_text().splitlines()]
        assert [r["step"] for r in rows if "val" not in r] == [1, 2, 3, 4]
        assert [r["step"] for r in rows if "val" in r] == [4]
        assert checkpoint.load(tmp_path / "out" / name / "last.safetensors").config.name == name
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["person-v39"]["images"] == 3
    assert call(monkeypatch, tmp_path, "--seconds", "300") == 0
    assert "step" not in capsys.readouterr().out  # nothing is trained again


def test_without_a_gpu_or_data_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["x", "--data", "a", "--output", str(tmp_path / "out")])
    assert gpu_train.main() == 2
    assert call(monkeypatch, tmp_path, "--models", "person-v99") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "torch sees no CUDA device" in first and "unknown model 'person-v99'" in second
    assert not (tmp_path / "out").exists()


def test_the_models_are_those_of_the_name() -> None:
    for name, backbone in gpu_train.MODELS.items():
        model = gpu_train.model_of(name, rehearse=False)
        assert model.name == name and model.backbone is backbone and model.classes == ("person",)


def test_every_network_of_the_comparison_learns_in_every_part(tmp_path: Path) -> None:
    plan = train_compare.Plan(
        (tmp_path / "a",), tmp_path / "b", tmp_path, "lite-v19-slim-dw", 9, 1.0, 64, 1, 0, 1
    )
    small = {"mask_iou_fc": 16, "fpn_channels": 64, "head_convs": 1, "classes": ("person",)}
    for row in train_compare.rows(train_compare.lite_plus()):
        if row.part == "network":
            run = start_run(plan.model(small | row.model), plan.config(row.name, row.train))
            losses, norm = train_step(run, crowded_batch(run.config, 1))
            assert bool(norm.isfinite()) and float(norm) > 0, row.name
            assert ("loss_mask_iou" in losses) == (row.name != "no mask scoring")
            silent = [n for n, p in run.model.named_parameters() if p.grad is None]
            assert not silent, (row.name, silent)
