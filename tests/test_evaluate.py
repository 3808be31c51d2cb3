"""AP at its two ends, against pycocotools in between, and what makes a set unfit for it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from centermask_edge.errors import DatasetError
from centermask_edge.evaluate.coco import Precision, average_precision, evaluate, results_of
from centermask_edge.instances import Instances
from centermask_edge.masks import encode_rle

CLASSES = ("person", "dog")
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 1, "name": "person"}]
SIDE = 160
# One object of each of COCO's sizes a picture, on whole pixels: x, y, width, height, category.
OBJECTS = [[4, 4, 20, 24, 1], [30, 8, 60, 40, 18], [10, 52, 140, 100, 1]]
Segment = Callable[[NDArray[np.uint8]], Instances]


def instances(rows: list[list[float]], scores: list[float] | None = None) -> Instances:
    """Full boxes of ``x, y, width, height, class``."""
    array = np.array(rows, np.float32).reshape(-1, 5)
    boxes = np.concatenate((array[:, :2], array[:, :2] + array[:, 2:4]), axis=1)
    score = np.array(scores or [0.9] * len(array), np.float32)
    return Instances(
        boxes,
        score,
        score * np.float32(0.9),
        array[:, 4].astype(np.int64),
        np.ones((len(array), 28, 28), np.float32),
        (SIDE, SIDE),
        CLASSES,
    )


def polygon(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def rle(x: int, y: int, w: int, h: int) -> object:
    return encode_rle(np.ones((h, w), np.bool_), x, y, SIDE, SIDE)


def write(folder: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
    """Two pictures with the objects of ``OBJECTS``, polygons in one and RLEs in the other."""
    (folder / "images").mkdir(parents=True)
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
    for picture in (1, 2):
        name = f"{picture}.png"
        Image.new("RGB", (SIDE, SIDE)).save(folder / "images" / name)
        content["images"].append(
            {"id": picture * 11, "file_name": name, "width": SIDE, "height": SIDE}
        )
        for x, y, w, h, category in OBJECTS:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": picture * 11,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": polygon(x, y, w, h) if picture == 1 else rle(x, y, w, h),
                }
            )
    change(content)
    path = folder / "set.json"
    path.write_text(json.dumps(content))
    return path


def perfect(image: NDArray[np.uint8]) -> Instances:
    rows = [[*o[:4], 0 if o[4] == 1 else 1] for o in OBJECTS]
    return instances([[float(v) for v in r] for r in rows])


def nothing(image: NDArray[np.uint8]) -> Instances:
    return instances([])


ALL = Precision(100.0, 100.0, 100.0, 100.0, 100.0, 100.0)
NONE = Precision(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_the_truth_itself_is_perfect(tmp_path: Path) -> None:
    report = evaluate(perfect, write(tmp_path / "set"), CLASSES)
    assert (report.images, report.instances) == (2, 6)
    assert report.box == ALL and report.mask == ALL
    assert report.to_json()["mask"]["ap75"] == 100.0


def test_nothing_found_is_nothing(tmp_path: Path) -> None:
    report = evaluate(nothing, write(tmp_path / "set"), CLASSES)
    assert report.box == NONE and report.mask == NONE


def test_a_size_that_does_not_occur_is_told_apart_from_zero(tmp_path: Path) -> None:
    def small_only(content: dict[str, Any]) -> None:
        content["annotations"] = [a for a in content["annotations"] if a["area"] < 500]

    path = write(tmp_path / "set", small_only)
    for segment, ap in ((perfect, 100.0), (nothing, 0.0)):
        box = evaluate(segment, path, CLASSES).box
        assert (box.small, box.medium, box.large) == (ap, -1.0, -1.0)


def test_masks_decide_the_mask_ap_alone(tmp_path: Path) -> None:
    def halves(image: NDArray[np.uint8]) -> Instances:
        found = perfect(image)
        found.masks[:, :, 14:] = 0
        return found

    report = evaluate(halves, write(tmp_path / "set"), CLASSES)
    assert report.box == ALL and report.mask.ap75 == 0 and report.mask.ap < 20


def test_each_ap_ranks_by_its_own_score(tmp_path: Path) -> None:
    """A wrong instance above the right ones by box score, below them by mask score."""

    def ranked(image: NDArray[np.uint8]) -> Instances:
        rows: list[list[float]] = [[4, 4, 20, 24, 0], [10, 52, 140, 100, 0], [100, 4, 40, 40, 0]]
        found = instances(rows, [0.5, 0.6, 0.9])
        found.mask_scores[:] = [0.5, 0.6, 0.1]
        return found

    report = evaluate(ranked, write(tmp_path / "set"), ("person",))
    assert report.mask.ap == 100.0 and report.box.ap < 70


# --- categories -------------------------------------------------------------------------------


def test_categories_are_matched_by_name(tmp_path: Path) -> None:
    def swapped(image: NDArray[np.uint8]) -> Instances:
        found = perfect(image)
        found.classes[:] = 1 - found.classes
        return found

    path = write(tmp_path / "set")
    assert evaluate(swapped, path, CLASSES).mask == NONE
    assert evaluate(swapped, path, CLASSES[::-1]).mask == ALL


def test_categories_the_model_does_not_know_do_not_count(tmp_path: Path) -> None:
    """A model of persons is judged by persons, however many other things the set has."""
    report = evaluate(perfect, write(tmp_path / "set"), ("person",))
    assert report.instances == 4
    assert (report.box.ap, report.mask.ap) == (100.0, 100.0)
    assert report.box.medium == -1  # the dogs were the objects of that size


def test_rows_of_unknown_classes_are_left_out() -> None:
    rows = results_of(perfect(np.zeros((1, 1, 3), np.uint8)), 5, {1: 18})
    assert [(r["image_id"], r["category_id"], r["bbox"]) for r in rows] == [
        (5, 18, [30, 8, 60, 40])
    ]
    assert rows[0]["score"] == pytest.approx(0.9) and rows[0]["mask_score"] == pytest.approx(0.81)


# --- the protocol -----------------------------------------------------------------------------


def random_set(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO content with crowds and a category that does not count, and rows of results."""
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
    results: list[dict[str, Any]] = []
    for picture in range(1, 9):
        content["images"].append({"id": picture, "width": SIDE, "height": SIDE})
        for _ in range(rng.integers(0, 9)):
            w, h = (int(v) for v in rng.integers(6, 110, 2))
            x, y = int(rng.integers(0, SIDE - w)), int(rng.integers(0, SIDE - h))
            category = int(rng.choice([1, 3, 18]))
            crowd = int(rng.random() < 0.15)
            box_or_mask = rle(x, y, w, h) if crowd or rng.random() < 0.5 else polygon(x, y, w, h)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": picture,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": crowd,
                    "segmentation": box_or_mask,
                }
            )
            for _ in range(rng.integers(0, 4)):
                dx, dy, dw, dh = rng.normal(0, 4, 4)
                right = rng.random() < 0.8
                row = [x + dx, y + dy, max(w + dw, 2), max(h + dh, 2), (category == 18) == right]
                found = instances([row], [float(rng.random())])
                found.mask_scores[:] = rng.random()
                results += results_of(found, picture, {0: 1, 1: 18})
    return content, results


def by_pycocotools(
    content: dict[str, Any], results: list[dict[str, Any]], kind: str
) -> list[float]:
    from pycocotools.coco import COCO  # type: ignore[import-untyped]
    from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]

    rows = [dict(r) for r in results]
    for row in rows:
        if kind == "segm":
            row["score"] = row["mask_score"]
            del row["bbox"]
        else:
            del row["segmentation"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(content))
        truth.dataset["info"] = {}
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(rows), kind)
        evaluator.params.catIds = [1, 18]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [100 * float(v) if v >= 0 else -1.0 for v in evaluator.stats[:6]]


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(seed: int) -> None:
    content, results = random_set(seed)
    box, mask = average_precision(results, content, [18, 1])
    assert 1 < mask.ap < 99 and mask != box
    for found, kind in ((box, "bbox"), (mask, "segm")):
        wanted = by_pycocotools(content, results, kind)
        np.testing.assert_allclose(list(asdict(found).values()), wanted, atol=1e-3)


@pytest.mark.parametrize("ids", ["zero", "equal", "none"])
def test_annotation_ids_do_not_matter(ids: str, tmp_path: Path) -> None:
    """Id 0 would count as no match, and equal ids as one object."""

    def change(content: dict[str, Any]) -> None:
        for index, annotation in enumerate(content["annotations"]):
            if ids == "none":
                del annotation["id"]
            else:
                annotation["id"] = index if ids == "zero" else 7

    assert evaluate(perfect, write(tmp_path / "set", change), CLASSES).mask == ALL


def test_fields_that_only_the_protocol_needs_are_made(tmp_path: Path) -> None:
    """Own COCO files often lack area and iscrowd; masks then say how large an object is."""

    def change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            del annotation["area"], annotation["iscrowd"]

    report = evaluate(perfect, write(tmp_path / "set", change), CLASSES)
    assert report.mask == ALL and report.box == ALL


def test_a_crowd_without_a_mask_is_ignored_by_its_box(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][2].update(iscrowd=1, segmentation=[])

    report = evaluate(perfect, write(tmp_path / "set", change), CLASSES)
    assert report.instances == 5 and report.mask.ap == 100.0


def test_every_class_has_its_own_figures(tmp_path: Path) -> None:
    """Persons all found, the dogs not."""

    def persons(image: NDArray[np.uint8]) -> Instances:
        found = perfect(image)
        return found.select(found.classes == 0)

    report = evaluate(persons, write(tmp_path / "set"), CLASSES)
    person, dog = report.classes
    assert (person.name, person.objects, person.mask.ap, person.box.ap) == ("person", 4, 100, 100)
    assert (dog.name, dog.objects, dog.mask.ap, dog.mask.small) == ("dog", 2, 0, -1)
    assert report.mask.ap == 50 and report.to_json()["classes"][1]["mask"]["ap"] == 0


# --- sets that are unfit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bare", "segmentation"), [(1, []), (6, []), (6, None), (2, [[1, 2, 3, 4]])]
)
def test_objects_without_masks_are_refused(bare: int, segmentation: object, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"][:bare]:
            annotation["segmentation"] = segmentation
        # A picture without objects has all its masks; it must not hide those that lack theirs.
        content["images"].append({**content["images"][0], "id": 99})

    path = write(tmp_path / "set", change)
    with pytest.raises(DatasetError, match=f"no masks for {bare} of its 6 objects") as caught:
        evaluate(perfect, path, CLASSES)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_masks_of_crowds_and_of_other_categories_are_not_missed(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            if annotation["category_id"] == 18:
                annotation["segmentation"] = []

    path = write(tmp_path / "set", change)
    assert evaluate(perfect, path, ("person",)).mask.ap == 100.0


def test_progress_sees_every_picture(tmp_path: Path) -> None:
    seen: list[int] = []

    def progress(samples: Any) -> Any:
        for sample in samples:
            seen.append(sample.image_id)
            yield sample

    evaluate(nothing, write(tmp_path / "set"), CLASSES, progress)
    assert seen == [11, 22]


def test_a_broken_picture_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "set")
    (tmp_path / "set" / "images" / "2.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="cannot be read"):
        evaluate(perfect, path, CLASSES)
