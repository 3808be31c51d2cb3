"""What train does with its data before the first step: whose classes, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from scenes import write_scenes
from yolo_scenes import NAMES, write_yolo

from centermask_edge.cli.train_data import PAGE, introduce, with_classes
from centermask_edge.config import COCO_CLASSES, ModelConfig, TrainConfig, preset
from centermask_edge.errors import DatasetError

LITE, PERSON = preset("lite-v19"), preset("person-v19-slim")


def model_of(classes: tuple[str, ...]) -> ModelConfig:
    return LITE.model_copy(update={"classes": classes})


def test_a_model_learns_the_classes_of_its_data(tmp_path: Path) -> None:
    data = write_yolo(tmp_path / "yolo", counts=(1, 1))
    coco = write_scenes(tmp_path / "coco", count=1)
    config = TrainConfig(annotations=(data, coco))
    assert with_classes(LITE, config).classes == (*NAMES, "person")
    assert with_classes(LITE, TrainConfig(annotations=(coco,))).classes == ("person",)


def test_a_model_for_one_purpose_keeps_its_classes_where_the_data_has_them(tmp_path: Path) -> None:
    data = write_yolo(tmp_path / "yolo", counts=(1, 1))
    coco = write_scenes(tmp_path / "coco", count=1)
    assert with_classes(PERSON, TrainConfig(annotations=(data, coco))) is PERSON
    assert with_classes(PERSON, TrainConfig(annotations=(data,))).classes == NAMES


def test_a_network_that_is_trained_further_keeps_its_classes(tmp_path: Path) -> None:
    data = write_yolo(tmp_path, counts=(1, 1))
    config = TrainConfig(annotations=(data,), checkpoint=Path("before.safetensors"))
    assert with_classes(LITE, config) is LITE
    assert with_classes(LITE, TrainConfig()) is LITE
    assert with_classes(model_of(NAMES[::-1]), TrainConfig(annotations=(data,))).classes == (
        *NAMES[::-1],
    )
    assert LITE.classes == COCO_CLASSES


def test_it_says_what_is_in_the_data_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_yolo(tmp_path / "mine")
    (tmp_path / "mine" / "labels" / "train" / "000.txt").write_text("0 .5 .5 0 .5\n")
    run = tmp_path / "run"
    config = TrainConfig(annotations=(data,), val_annotations=data, output=run)
    monkeypatch.setenv("RANK", "1")
    introduce(LITE, config, Console())
    assert not run.exists()
    monkeypatch.setenv("RANK", "0")
    introduce(LITE, config, Console(width=200))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "mine/data.yaml, train: 4 pictures, 7 objects, 6 of them with masks",
        "  square 4, disc 3; small 1, medium 6, large 0",
        "  1 x box without area (left out of training): 000.txt:1: x 48, y 16, 0 x 32 in 96 x 64",
        "mine/data.yaml, val: 2 pictures, 4 objects, all with masks",
    ]
    assert lines[-1] == f"more about the data: {run / PAGE}"
    assert (run / PAGE).read_text().count("<img") == 6
    (run / "settings.json").write_text("{}")
    introduce(LITE, config, Console())
    assert capsys.readouterr().out == ""


def test_data_that_cannot_be_read_stops_it(tmp_path: Path) -> None:
    config = TrainConfig(annotations=(tmp_path / "none.yaml",), output=tmp_path / "run")
    with pytest.raises(DatasetError, match="annotation file not found"):
        with_classes(LITE, config)
    with pytest.raises(DatasetError, match="annotation file not found"):
        introduce(LITE, config, Console())
    assert not (tmp_path / "run").exists()
