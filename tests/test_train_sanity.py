"""``train --sanity`` and the recipes: verdicts, exit codes, and what a name stands for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import faster_coco_eval.core.mask as rle
import numpy as np
import pytest
from scenes import write_scenes

from centermask_edge.cli import main
from centermask_edge.config import PRESETS
from centermask_edge.data.coco import read_coco
from centermask_edge.evaluate.coco import Precision, Report, average_precision
from centermask_edge.train import sanity
from centermask_edge.train.recipes import settings, training_sizes
from centermask_edge.train.sanity import Point, Verdict, mask_ceiling, truth_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("set"), count=10)


def words(data: Path, folder: Path, *more: str) -> list[str]:
    options = ["--preset", "person-efficientnet-lite0", "--output", str(folder / "run")]
    options += ["--batch-size", "1", "--no-tensorboard", "--json", str(folder / "curve.json")]
    return ["train", str(data), "--sanity", *options, *more]


def test_pictures_that_are_not_learnt_are_an_exit_code(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(data, tmp_path, "--steps", "2", "--eval-every", "2")) == 1
    (verdict,) = [x for x in capsys.readouterr().err.splitlines() if "does not work" in x]
    assert "on 8 pictures after 2 steps, wanted 90 % of both" in verdict
    content = json.loads((tmp_path / "curve.json").read_text())
    assert content["reached"] is False and content["model"] == "person-efficientnet-lite0"
    (point,) = content["curve"]
    assert point["step"] == 2 and point["loss"] > 1 and point["mask_ap"] < 50


def test_it_stops_as_soon_as_they_are(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = iter([50.0, 95.0])

    def judge(model: object, samples: object) -> Report:
        ap = next(found)
        good = Precision(ap, ap, ap, ap, ap, ap)
        return Report(8, 16, good, good)

    monkeypatch.setattr(sanity, "evaluate_on", judge)
    assert main(words(data, tmp_path, "--steps", "9", "--eval-every", "1")) == 0
    assert "training works: box AP 95.0 and mask AP 95.0 of the " in capsys.readouterr().err
    content = json.loads((tmp_path / "curve.json").read_text())
    assert [p["step"] for p in content["curve"]] == [1, 2] and content["reached"] is True


def test_pictures_without_masks_cannot_be_learnt_by_heart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = write_scenes(tmp_path / "bare", masks=False)
    assert main(words(bare, tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "objects without masks" in line and line.startswith("error: ")


def test_the_truth_is_found_in_itself(data: Path) -> None:
    samples = read_coco(data, ("cat", "person"))
    truth = truth_of(samples, ("cat", "person"))
    rows = [
        {k: a[k] for k in ("image_id", "category_id", "bbox")}
        | {"segmentation": rle.merge(rle.frPyObjects(a["segmentation"], 64, 96))}
        | {"score": 0.9, "mask_score": 0.9}
        for a in truth["annotations"]
    ]
    assert len(rows) == 20 and {r["category_id"] for r in rows} == {2}
    box, mask = average_precision(rows, truth, [1, 2])
    assert box.ap == mask.ap == 100.0


def test_both_ap_must_be_reached() -> None:
    half = Verdict(False, 90.0, 92.5, 8, (Point(10, 1.0, 95.0, 80.0),))
    assert "box AP 95.0 and mask AP 80.0 of the 92.5 that masks of 28 x 28 can reach" in str(half)
    assert half.to_json()["curve"][0]["step"] == 10


def test_fine_outlines_lower_the_ceiling(data: Path) -> None:
    samples = read_coco(data, ("person",))
    assert 85 < mask_ceiling(samples, ("person",)) <= 100  # boxes and triangles
    comb = [c for i in range(40) for c in (i * 2.0, 60.0, i * 2.0 + 0.5, 4.0, i * 2.0 + 1, 60.0)]
    fine = replace(samples[0], polygons=((np.array(comb),),) * 2)
    fine = replace(fine, boxes=np.array([[0.0, 4, 79, 60]] * 2))
    assert mask_ceiling([fine], ("person",)) < 60


# --- recipes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps", "falls"),
    [
        ("12ep", 90_000, (60_000, 80_000)),
        ("24ep", 180_000, (120_000, 160_000)),
        ("36ep", 270_000, (210_000, 250_000)),
        ("48ep", 360_000, (300_000, 340_000)),
    ],
)
def test_recipes_of_the_paper(name: str, steps: int, falls: tuple[int, int]) -> None:
    _, config = settings(name, "lite-v19", {})
    assert config.steps == steps and config.optimizer == "sgd" and config.schedule == "step"
    assert tuple(round(m * steps) for m in config.milestones) == falls
    assert config.jitter is None and config.paste == 0 and config.assigner == "fcos"
    assert config.short_sides == (580, 600) and config.long_side == 1000


def test_lite_plus_is_one_word() -> None:
    _, config = settings("lite+", "lite-v39", {"batch_size": 8})
    assert config.jitter and config.paste and config.ema_decay and config.assigner == "atss"
    assert config.steps > 360_000 and config.batch_size == 8


def test_sizes_follow_the_model() -> None:
    full = training_sizes(PRESETS["v39"].preprocess)
    assert full == {"short_sides": (640, 672, 704, 736, 768, 800), "long_side": 1333}
    person = training_sizes(PRESETS["person-v19-slim"].preprocess)
    assert person["short_sides"] == (340, 352)
