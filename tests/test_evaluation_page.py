"""The page of an evaluation: every part of it, nothing that loads or runs, readable anywhere."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_browser
from numpy.typing import NDArray
from test_evaluate import CLASSES, OBJECTS, instances, perfect, write
from yolo_scenes import write_yolo

from centermask_edge.charts import Curve, chart
from centermask_edge.config import PreprocessConfig
from centermask_edge.data.survey import survey_all
from centermask_edge.data.survey_page import survey_page
from centermask_edge.evaluate.coco import evaluate_all
from centermask_edge.evaluate.evaluation_page import evaluation_page
from centermask_edge.evaluate.findings import look_into
from centermask_edge.instances import Instances
from centermask_edge.page import folded_table, page, section, table

EVIL = "<script>alert(1)</script>"
ABOUT = (("model", EVIL), ("set", "mine/val.json"), ("run by", "a test"))


def mistaken(image: NDArray[np.uint8]) -> Instances:
    """The first object as another class, the second right, one where nothing is; one missed."""
    first, second, _ = ([float(v) for v in o[:4]] for o in OBJECTS)
    return instances([[*first, 1], [*second, 1], [120, 4, 30, 30, 0]], [0.9, 0.8, 0.7])


def written(folder: Path) -> str:
    evaluation = evaluate_all(mistaken, write(folder), CLASSES)
    return evaluation_page(look_into(evaluation, 0.5), ABOUT)


def test_every_part_is_there(tmp_path: Path) -> None:
    text = written(tmp_path / "set")
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles == [
        "Accuracy",
        "By class, the worst first",
        "What the errors cost",
        "Precision and recall",
        "What is taken for what",
        "Worst pictures",
        "Where this comes from",
    ]
    assert text.count("<svg") == 2 and text.count("<polyline") == 6
    assert text.count("<img src='data:image/jpeg;base64,") == 4
    for line in ("person taken for dog 0.90", "person missed", "person 0.70, nothing there"):
        assert f"<li>{line}</li>" in text
    assert "2 of 6" in text  # found: the dogs of both pictures


def test_nothing_loads_and_nothing_runs(tmp_path: Path) -> None:
    text = written(tmp_path / "set")
    assert EVIL not in text and "Evaluation of &lt;script&gt;" in text
    assert "default-src 'none'" in text and "<script" not in text
    assert not re.search(r"(src|href)='(?!data:)", text)


def test_a_perfect_model_has_no_worst_picture(tmp_path: Path) -> None:
    found = look_into(evaluate_all(perfect, write(tmp_path / "set"), CLASSES), 0.5)
    assert max(c.points for c in found.mask.costs) == 0 and found.worst == ()
    assert "No kind of error costs anything." in evaluation_page(found, ABOUT)


def test_a_model_that_finds_nothing_has_a_page(tmp_path: Path) -> None:
    path = write(tmp_path / "set")
    found = look_into(evaluate_all(lambda image: instances([]), path, CLASSES), 0.5)
    text = evaluation_page(found, ABOUT)
    assert "Mask AP 0.0" in text and text.count("<img") == 4


def test_classes_of_which_the_set_has_none_are_not_drawn(tmp_path: Path) -> None:
    path = write(
        tmp_path / "set",
        lambda c: c.update(annotations=[a for a in c["annotations"] if a["category_id"] == 1]),
    )
    found = look_into(evaluate_all(perfect, path, CLASSES), 0.5)
    text = evaluation_page(found, ABOUT)
    assert "By class" not in text and text.count("<polyline") == 6


# --- the parts --------------------------------------------------------------------------------


def test_a_part_escapes_what_it_is_given() -> None:
    whole = page(EVIL, [section(EVIL, table((EVIL,), [[EVIL]]), note=EVIL)])
    assert EVIL not in whole and whole.count("&lt;script&gt;") == 5
    assert EVIL not in chart([Curve(EVIL, [(0, 0), (1, 1)])], EVIL, EVIL)


def test_a_curve_lies_within_its_chart() -> None:
    text = chart([Curve("a", [(0, 0), (1, 1)])], "x", "y")
    points = re.findall(r"points='([\d.]+),([\d.]+) ([\d.]+),([\d.]+)'", text)
    left, bottom, right, top = (float(v) for v in points[0])
    assert 0 < left < right < 480 and 320 > bottom > top > 0


def test_long_tables_are_folded_and_short_ones_not() -> None:
    rows = [[i, i] for i in range(30)]
    assert folded_table(("a", "b"), rows, 10).count("<table") == 2
    assert folded_table(("a", "b"), rows[:12], 10).count("<table") == 1
    assert section("nothing in it", "", "") == ""


# --- in a browser -----------------------------------------------------------------------------


@pytest.mark.skipif(
    find_browser() is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)
def test_pages_stand_in_a_browser_at_every_width(tmp_path: Path) -> None:
    (tmp_path / "evaluation.html").write_text(written(tmp_path / "set"))
    size = PreprocessConfig(short_side=64, long_side=96)
    surveys = survey_all(write_yolo(tmp_path / "yolo"), size)
    (tmp_path / "data.html").write_text(survey_page(surveys))
    path = find_browser()
    assert path is not None
    with Browser(path, tmp_path / "profile") as browser:
        for name in ("evaluation.html", "data.html"):
            for width in (320, 390, 1280):
                browser.open((tmp_path / name).as_uri(), width, 9000)
                assert browser.run("document.documentElement.scrollWidth") <= width
                assert browser.run("[...document.images].every((i) => i.naturalWidth > 0)")
                assert browser.errors == []
