"""A data set looked at: every fault found and named, everything counted, on one safe page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scenes import write_scenes
from yolo_scenes import NAMES, write_yolo

from centermask_edge.cli import main
from centermask_edge.config import PreprocessConfig
from centermask_edge.data.checks import Effect, Fault
from centermask_edge.data.dataset import read_samples
from centermask_edge.data.drawing import Shape, drawn
from centermask_edge.data.segmentation import measure, pixels_of
from centermask_edge.data.survey import LEVEL_LIMITS, Survey, survey, survey_all
from centermask_edge.data.survey_page import survey_page
from centermask_edge.errors import DatasetError
from centermask_edge.masks import encode_rle

Content = dict[str, Any]
SIZE = PreprocessConfig(short_side=64, long_side=96)
SQUARE = [[10.0, 10, 30, 10, 30, 20, 10, 20]]
EVIL = "<script>alert(1)</script>"


def changed(folder: Path, change: Callable[[Content], object]) -> Path:
    """Two drawn pictures with a change of their annotations; the path of the json."""
    path = write_scenes(folder, count=2)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def with_object(**fields: Any) -> Callable[[Content], object]:
    """Picture 1 with one object, 20 x 10 pixels at 10, 10; fields replaced or added."""

    def change(content: Content) -> None:
        common = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 10]}
        content["annotations"] = [{**common, "segmentation": SQUARE, **fields}]

    return change


def faults(path: Path) -> dict[Fault, int]:
    return {f: len(found) for f, found in survey(path, "train", SIZE).by_fault().items()}


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"bbox": [10, 10, 0, 10]}, Fault.EMPTY_BOX),
        ({"bbox": [200, 10, 20, 10]}, Fault.EMPTY_BOX),
        ({"bbox": [-10, 5, 60, 30]}, Fault.OUTSIDE_BOX),
        ({"bbox": [10, 10, 8, 10]}, Fault.LOOSE_BOX),
        ({"segmentation": [[10, 10, 30, 20]]}, Fault.SHORT_POLYGON),
        ({"segmentation": [[10, 10, 20, 15, 30, 20]]}, Fault.EMPTY_MASK),
        ({"segmentation": {"size": [64, 96], "counts": [64 * 96]}}, Fault.EMPTY_MASK),
        ({"segmentation": {"size": [64, 96], "counts": [0, 64 * 96]}}, Fault.RLE_MASK),
        ({"segmentation": {"size": [64, 96]}}, Fault.BAD_ENTRY),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, Fault.BAD_ENTRY),
        ({"segmentation": "text"}, Fault.BAD_ENTRY),
        ({"bbox": [10, 10, 20]}, Fault.BAD_ENTRY),
        ({"bbox": [10, 10, 20, float("nan")]}, Fault.BAD_ENTRY),
        ({"image_id": 7}, Fault.NO_PICTURE),
        ({"image_id": [1]}, Fault.BAD_ENTRY),
        ({"category_id": 7}, Fault.NO_CLASS),
    ],
)
def test_a_fault_of_an_object_is_found(fields: Content, fault: Fault, tmp_path: Path) -> None:
    found = survey(changed(tmp_path / "set", with_object(**fields)), "train", SIZE).by_fault()
    assert len(found[fault]) == 1 and "annotation 1" in found[fault][0].where


def test_a_good_object_has_no_fault(tmp_path: Path) -> None:
    assert faults(changed(tmp_path / "set", with_object())) == {}


def test_twins_and_objects_without_a_mask_among_others(tmp_path: Path) -> None:
    def change(content: Content) -> None:
        with_object()(content)
        first = content["annotations"][0]
        bare = {**first, "bbox": [40, 10, 20, 10], "segmentation": []}
        content["annotations"] += [dict(first), bare]

    path = changed(tmp_path / "set", change)
    assert faults(path) == {Fault.TWIN_OBJECT: 1, Fault.SOME_MASKS: 1}


def test_crowds_are_counted_apart(tmp_path: Path) -> None:
    rle = {"size": [64, 96], "counts": [0, 64 * 96]}
    found = survey(
        changed(tmp_path / "set", with_object(iscrowd=1, segmentation=rle)), "train", SIZE
    )
    assert (found.objects, found.classes[0].crowds) == (0, 1)
    assert set(found.by_fault()) == {Fault.EMPTY_CLASS}


def test_faults_of_pictures_are_found(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "set", count=5)
    images = path.parent / "images"
    (images / "set_000.png").unlink()
    (images / "set_001.png").write_bytes(b"no picture")
    Image.new("RGB", (7, 5)).save(images / "set_002.png")
    (images / "set_004.png").write_bytes((images / "set_003.png").read_bytes())
    found = survey(path, "train", SIZE)
    lines = {fault: [f.line for f in rows] for fault, rows in found.by_fault().items()}
    assert lines.pop(Fault.UNREADABLE_PICTURE)[0].startswith("set_001.png: ")
    assert lines == {
        Fault.MISSING_PICTURE: ["set_000.png"],
        Fault.OTHER_SIZE: ["set_002.png: 7 x 5, stated 96 x 64"],
        Fault.TWIN_PICTURE: [f"set_004.png: the same file as {images / 'set_003.png'}"],
    }
    assert found.refused and found.decoded == 4


def test_a_limit_decodes_fewer_and_looks_for_all(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "set", count=5)
    for number in (1, 2, 3, 4):
        (path.parent / "images" / f"set_00{number}.png").write_bytes(b"no picture")
    found = survey(path, "train", SIZE, limit=1)
    assert found.decoded == 1 and not found.findings
    (path.parent / "images" / "set_004.png").unlink()
    assert survey(path, "train", SIZE, limit=1).refused


def test_lists_of_images_that_are_wrong(tmp_path: Path) -> None:
    def change(content: Content) -> None:
        first = content["images"][0]
        content["images"] += [dict(first), 3, {"id": 9}, {**first, "id": 10, "width": 0}]
        content["annotations"] = [4, *content["annotations"]]

    found = survey(changed(tmp_path / "set", change), "train", SIZE).by_fault()
    assert len(found[Fault.BAD_ENTRY]) == 5 and len(found[Fault.TWIN_PICTURE]) == 2


def test_pictures_in_two_parts_are_told(tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        source = tmp_path / kind / "val" / f"001.{suffix}"
        (tmp_path / kind / "train" / f"001.{suffix}").write_bytes(source.read_bytes())
    train, val = survey_all(path, SIZE)
    assert [f.line for f in train.findings] == ["001.png: also in val"]
    assert train.findings[0].fault.effect is Effect.LOST and not val.findings


def test_a_picture_in_two_parts_under_two_names_is_told(tmp_path: Path) -> None:
    path = write_yolo(tmp_path)
    images = tmp_path / "images"
    (images / "val" / "001.png").write_bytes((images / "train" / "003.png").read_bytes())
    train, val = survey_all(path, SIZE)
    (finding,) = val.findings
    assert finding.fault is Fault.TWIN_PICTURE and finding.found.endswith("train/003.png")
    assert not train.findings


def test_everything_is_counted(tmp_path: Path) -> None:
    def change(content: Content) -> None:
        content["categories"] = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
        boxes = [[0, 0, 20, 20], [0, 0, 60, 40], [0, 0, 90, 20], [0, 0, 10, 40]]
        content["annotations"] = [
            {"id": i, "image_id": 1, "category_id": 1 + i % 2, "bbox": b, "segmentation": []}
            for i, b in enumerate(boxes)
        ]

    found = survey(changed(tmp_path / "set", change), "train", SIZE)
    assert [(r.name, r.objects, r.pictures, r.masks) for r in found.classes] == [
        ("person", 2, 1, 0),
        ("dog", 2, 1, 0),
    ]
    assert found.sizes == (("small", 2), ("medium", 2), ("large", 0))
    assert found.levels == (("P3", 4), ("P4", 0), ("P5", 0), ("P6", 0), ("P7", 0))
    assert [n for _, n in found.aspects] == [1, 0, 2, 0, 1]
    assert dict(found.crowding) == {
        **{"none": 1, "1": 0, "2 to 3": 0, "4 to 7": 1},
        **{"8 to 15": 0, "16 on": 0},
    }
    assert found.picture_sizes == (("96 x 64", 2),)
    large = survey(found.path, "train", PreprocessConfig(short_side=600, long_side=1000))
    assert [n for _, n in large.levels] == [0, 1, 1, 2, 0]  # 9.4 times as large


def test_levels_are_those_of_training() -> None:
    from centermask_edge.train import targets

    assert [high for _, high in targets._RANGES[:-1]] == list(LEVEL_LIMITS[:-1])


@pytest.mark.parametrize("segmentation", [None, []])
def test_nothing_measures_nothing(segmentation: object) -> None:
    assert measure(segmentation) is None


def test_pixels_of_every_form_of_mask() -> None:
    there = np.zeros((6, 8), bool)
    there[1:4, 2:5] = True
    polygon = [[2.0, 1, 5, 1, 5, 4, 2, 4]]
    packed = encode_rle(there[1:4, 2:5], 2, 1, 6, 8)
    flat = there.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flat, [0]))))
    counts = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    loose = {"size": [6, 8], "counts": counts}
    for segmentation in (polygon, packed, loose):
        assert (pixels_of(segmentation, 6, 8) == there).all()
        found = measure(dict(segmentation) if isinstance(segmentation, dict) else segmentation)
        assert found is not None and found.area == 9
    assert not pixels_of([[1.0, 2, 3, 4]], 6, 8).any()


def test_a_shape_is_drawn_where_it_is() -> None:
    from base64 import b64decode
    from io import BytesIO

    polygon = [[80.0, 80, 240, 80, 240, 180, 80, 180]]
    shape = Shape(polygon, (80, 80, 160, 100), (255, 0, 0), "a name")
    data = drawn(np.zeros((200, 400, 3), np.uint8), [shape], 200)
    with Image.open(BytesIO(b64decode(data.partition(",")[2]))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (100, 200, 3)
    assert pixels[75, 80, 0] == pytest.approx(0.42 * 255, abs=12) and pixels[75, 80, 2] < 20
    assert pixels[75, 40, 0] > 150 > 60 > pixels[75, 180].sum()  # the edge, and outside
    assert pixels[30:40, 40:80, 0].max() > 200  # the name above the box


# --- page and command -------------------------------------------------------------------------


def broken(folder: Path) -> Path:
    """A YOLO set with a bad line, an unused class and a name that must not run."""
    path = write_yolo(folder)
    path.write_text(path.read_text() + f"  2: '{EVIL}'\n")
    with (folder / "labels" / "train" / "002.txt").open("a") as file:
        file.write("9 .5 .5 .5 .5\n")
    return path


def surveys(folder: Path) -> list[Survey]:
    return survey_all(broken(folder), SIZE)


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    text = survey_page(surveys(tmp_path))
    assert text.count("<img src='data:image/jpeg;base64,") == 6
    assert EVIL not in text and "&lt;script&gt;" in text
    assert "training would refuse it" in text and "002.txt:3" in text
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text


def test_the_page_of_a_broken_set_stands(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "set", count=3)
    (path.parent / "images" / "set_000.png").unlink()
    (path.parent / "images" / "set_001.png").write_bytes(b"no picture")
    text = survey_page([survey(path, "train", SIZE)])
    assert text.count("<img") == 1 and "cannot be read" in text


def test_a_mask_that_cannot_be_drawn_is_told_in_its_place(tmp_path: Path) -> None:
    path = changed(tmp_path / "set", with_object(segmentation={"size": [64, 96]}))
    text = survey_page([survey(path, "train", SIZE)])
    assert text.count("<img") == 1 and text.count("<figure") == 2


def test_the_command_prints_writes_and_tells_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "out" / "page.html"
    good = write_yolo(tmp_path / "good")
    assert main(["data", str(good.parent), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "good/data.yaml" not in out and "nothing wrong found; 4 of 4 pictures decoded" in out
    assert page.read_text().startswith("<!doctype html>")
    assert main(["data", str(broken(tmp_path / "bad")), "--preset", "lite-v19"]) == 3
    out = capsys.readouterr().out
    assert "1 x line or picture that cannot be read (training refuses the set): " in out


def test_a_set_is_written_in_cocos_format(tmp_path: Path) -> None:
    data = write_yolo(tmp_path / "mine")
    assert main(["data", str(data), "--coco", str(tmp_path / "coco")]) == 0
    for split in ("train", "val"):
        before = read_samples(data, NAMES, split)
        after = read_samples(tmp_path / "coco", NAMES, split)
        assert [s.path.resolve() for s in after] == [s.path.resolve() for s in before]
        for a, b in zip(after, before, strict=True):
            np.testing.assert_array_equal(a.boxes, b.boxes)
            np.testing.assert_array_equal(a.classes, b.classes)
    assert main(["data", str(broken(tmp_path / "bad")), "--coco", str(tmp_path / "no")]) == 3
    assert not (tmp_path / "no").exists()


def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["data", str(tmp_path / "none.yaml"), "--html", str(page)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "annotation file not found" in line and not page.exists()


def test_a_category_without_a_name_is_told(tmp_path: Path) -> None:
    path = changed(tmp_path / "set", lambda c: c["categories"].append({"id": 3}))
    with pytest.raises(DatasetError, match="category without id or name"):
        survey(path, "train", SIZE)
