"""The COCO reader: what it keeps, what it ignores, and one line for every broken file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import write_scenes

from centermask_edge.data.coco import Sample, category_ids, read_coco
from centermask_edge.errors import DatasetError

Content = dict[str, Any]
CLASSES = ("person", "dog")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("set"), count=2)


def rewritten(scenes: Path, change: Callable[[Content], object]) -> Path:
    """A copy of the file beside the same pictures, after ``change`` of its content."""
    content = json.loads(scenes.read_text())
    change(content)
    path = scenes.parent / "changed.json"
    path.write_text(json.dumps(content))
    return path


def annotate(*annotations: Content) -> Callable[[Content], object]:
    """Picture 1 with these annotations and picture 2 with none; the box is 20 x 10 by default."""

    def change(content: Content) -> None:
        common = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 10]}
        content["annotations"] = [{**common, **a} for a in annotations]

    return change


SQUARE = [[10.0, 10, 30, 10, 30, 20, 10, 20]]


def read_one(scenes: Path, *annotations: Content) -> Sample:
    return read_coco(rewritten(scenes, annotate(*annotations)), CLASSES)[0]


# --- what is kept -----------------------------------------------------------------------------


def test_a_set_is_read_as_written(scenes: Path) -> None:
    samples = read_coco(scenes, CLASSES)
    content = json.loads(scenes.read_text())
    assert [s.image_id for s in samples] == [1, 2]
    assert all((s.width, s.height) == (96, 64) and s.path.exists() for s in samples)
    for sample in samples:
        mine = [a for a in content["annotations"] if a["image_id"] == sample.image_id]
        boxes = np.array([a["bbox"] for a in mine])
        np.testing.assert_allclose(sample.boxes[:, :2], boxes[:, :2])
        np.testing.assert_allclose(sample.boxes[:, 2:], boxes[:, :2] + boxes[:, 2:])
        assert sample.boxes.dtype == np.float64 and sample.classes.tolist() == [0, 0]
        assert sample.polygons is not None and sample.ignore.shape == (0, 4)
        for parts, a in zip(sample.polygons, mine, strict=True):
            assert [p.tolist() for p in parts] == a["segmentation"]


def test_classes_are_matched_by_name_and_others_left_out(scenes: Path) -> None:
    categories = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}, {"id": 1, "name": "person"}]
    assert category_ids(categories, CLASSES) == {9: 1, 1: 0}

    def change(content: Content) -> None:
        content["categories"] = categories
        for category, annotation in zip((7, 9, 1, 9), content["annotations"], strict=True):
            annotation["category_id"] = category

    first, second = read_coco(rewritten(scenes, change), CLASSES)
    assert first.classes.tolist() == [1] and second.classes.tolist() == [0, 1]


def test_a_picture_without_annotations_is_a_sample(scenes: Path) -> None:
    sample = read_coco(rewritten(scenes, annotate()), CLASSES)[0]
    assert sample.boxes.shape == (0, 4) and sample.classes.shape == (0,)
    assert sample.polygons == () and sample.ignore.shape == (0, 4)


def test_boxes_are_cut_to_the_picture_and_slivers_dropped(scenes: Path) -> None:
    sample = read_one(
        scenes,
        {"bbox": [-5, -6, 20, 20], "segmentation": SQUARE},
        {"bbox": [90, 60, 50, 50], "segmentation": SQUARE},
        {"bbox": [10, 10, 0.9, 30], "segmentation": SQUARE},
        {"bbox": [96, 10, 30, 30], "segmentation": SQUARE},
    )
    assert sample.boxes.tolist() == [[0, 0, 15, 14], [90, 60, 96, 64]]
    assert sample.polygons is not None and len(sample.polygons) == 2


def test_crowds_are_ignored(scenes: Path) -> None:
    rle = {"size": [64, 96], "counts": [0, 64 * 96]}
    sample = read_one(
        scenes,
        {"segmentation": SQUARE},
        {"bbox": [0, 0, 50, 60], "iscrowd": 1, "segmentation": rle},
    )
    assert sample.boxes.tolist() == [[10, 10, 30, 20]]
    assert sample.ignore.tolist() == [[0, 0, 50, 60]]
    assert sample.polygons is not None  # the crowd's lack of a polygon does not count


@pytest.mark.parametrize(
    "segmentation", [[], [[1, 2, 3, 4]], {"size": [64, 96], "counts": [0, 64 * 96]}, None]
)
def test_one_object_without_a_polygon_makes_a_picture_of_boxes(
    scenes: Path, segmentation: object
) -> None:
    sample = read_one(scenes, {"segmentation": SQUARE}, {"segmentation": segmentation})
    assert sample.polygons is None and len(sample.boxes) == 2


def test_a_box_around_many_stands_for_a_group(scenes: Path) -> None:
    group = {"bbox": [0, 0, 90, 60]}
    members: list[Content] = [{"bbox": [5 + 18 * i, 20, 15, 20]} for i in range(4)]
    sample = read_one(scenes, group, *members)
    assert sample.ignore.tolist() == [[0, 0, 90, 60]]
    assert len(sample.boxes) == 4 == len(sample.classes)
    few = read_one(scenes, group, *members[:3])
    assert len(few.boxes) == 4 and few.ignore.shape == (0, 4)
    with_masks = [{**a, "segmentation": SQUARE} for a in (group, *members)]
    assert len(read_one(scenes, *with_masks).boxes) == 5  # a mask says what the box means
    twins = [{"bbox": [10, 10, 30, 30]}] * 6
    assert len(read_one(scenes, *twins).boxes) == 6  # none is smaller than the others


# --- what is refused --------------------------------------------------------------------------


def refused(path: Path, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read_coco(path, CLASSES)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.json", "annotation file not found")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"\x89PNG\r\n", b"nonsense"])
def test_a_file_that_is_not_json(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    refused(path, "cannot be read as COCO json")


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, "cannot be read as COCO json")


@pytest.mark.parametrize(
    "content",
    [
        [],
        3,
        None,
        {},
        {"images": [], "annotations": []},
        {"images": {}, "annotations": [], "categories": []},
    ],
)
def test_json_that_is_not_coco(content: object, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    refused(path, "needs the lists images, annotations and categories")


def test_no_category_of_the_model(scenes: Path) -> None:
    def cats(content: Content) -> None:
        content["categories"] = [{"id": 1, "name": "cat"}]

    refused(rewritten(scenes, cats), "found cat, wanted some of person, dog")
    refused(rewritten(scenes, lambda c: c["categories"].clear()), "found none")


def test_no_images(scenes: Path) -> None:
    refused(rewritten(scenes, lambda c: c["images"].clear()), "lists no images")


def test_a_picture_that_is_not_there(scenes: Path) -> None:
    def rename(content: Content) -> None:
        content["images"][1]["file_name"] = "gone.png"

    refused(rewritten(scenes, rename), r"not found: .*gone\.png")


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("images", "id"),
        ("images", "width"),
        ("images", "file_name"),
        ("annotations", "image_id"),
        ("annotations", "category_id"),
        ("annotations", "bbox"),
        ("categories", "id"),
        ("categories", "name"),
    ],
)
def test_a_missing_field_is_named(kind: str, field: str, scenes: Path) -> None:
    refused(rewritten(scenes, lambda c: c[kind][0].pop(field)), f"without the field '{field}'")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("images", "width", None),
        ("images", "height", float("inf")),
        ("images", "id", "first"),
        ("images", "file_name", 3),
        ("annotations", "image_id", [1]),
        ("annotations", "bbox", [1, 2]),
        ("annotations", "bbox", [1, 2, "wide", 4]),
        ("annotations", "bbox", [1, float("nan"), 20, 20]),
        ("annotations", "segmentation", [[1, 2, 3, 4, 5, 6, 7]]),
        ("annotations", "segmentation", [[1, 2, 3, 4, 5, float("inf")]]),
        ("annotations", "segmentation", [[[1, 2]] * 6]),
        ("annotations", "segmentation", [1, 2, 3, 4, 5, 6]),
        ("categories", "name", ["person"]),
    ],
)
def test_a_wrong_field_is_refused(kind: str, field: str, value: object, scenes: Path) -> None:
    def change(content: Content) -> None:
        content[kind][0][field] = value

    refused(rewritten(scenes, change), "with a wrong field")


@pytest.mark.parametrize("kind", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", ["text", None, 3])
def test_an_entry_that_is_no_object_is_refused(kind: str, value: object, scenes: Path) -> None:
    def change(content: Content) -> None:
        content[kind][0] = value

    refused(rewritten(scenes, change), "with a wrong field")
