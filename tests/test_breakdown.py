"""Errors and what they cost, by hand on small sets and against the protocol on random ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluate import CATEGORIES, SIDE, instances, polygon, random_set, rle

from centermask_edge.data.coco import Annotations, Sample
from centermask_edge.evaluate.breakdown import Breakdown, ErrorKind, break_down
from centermask_edge.evaluate.coco import (
    Evaluation,
    Report,
    complete,
    precision_curves,
    results_of,
)
from centermask_edge.evaluate.confusion import confuse
from centermask_edge.evaluate.findings import look_into
from centermask_edge.evaluate.matching import Kind, match, overlaps
from centermask_edge.evaluate.worst import Verdict, worst_pictures

PERSON, DOG = 1, 18
NAMES = {PERSON: "person", DOG: "dog"}
Found = tuple[float, float, float, float, int, float]  # x, y, w, h, category, score
Place = tuple[float, float, float, float, int]


def evaluation_of(content: dict[str, Any], results: Sequence[dict[str, Any]]) -> Evaluation:
    """What ``evaluate_all`` would have found, had a model given these rows."""
    annotations = Annotations(Path("set.json"), Path("images"), content)
    truth = complete(annotations, NAMES)
    box, mask = precision_curves(results, truth, NAMES)
    empty = np.zeros((0, 4))
    samples = tuple(
        Sample(i["id"], Path("a"), SIDE, SIDE, empty, np.zeros(0, np.int64), (), empty)
        for i in content["images"]
    )
    report = Report(len(samples), len(truth["annotations"]), box.all, mask.all)
    return Evaluation(report, box, mask, samples, truth, tuple(results), NAMES)


def one_picture(there: Sequence[Place], found: Sequence[Found], crowds: int = 0) -> Evaluation:
    """A picture with boxes that fill their masks; the last ``crowds`` objects are crowds."""
    objects = [
        {
            "image_id": 1,
            "category_id": category,
            "bbox": [x, y, w, h],
            "area": w * h,
            "iscrowd": int(place >= len(there) - crowds),
            "segmentation": rle(int(x), int(y), int(w), int(h))
            if place >= len(there) - crowds
            else polygon(x, y, w, h),
        }
        for place, (x, y, w, h, category) in enumerate(there)
    ]
    rows = []
    for x, y, w, h, category, score in found:
        one = instances([[x, y, w, h, 0]], [score])
        one.mask_scores[:] = score
        rows += results_of(one, 1, {0: category})
    images = [{"id": 1, "width": SIDE, "height": SIDE, "file_name": "a.png"}]
    return evaluation_of({"images": images, "annotations": objects, "categories": CATEGORIES}, rows)


def costs(evaluation: Evaluation, kind: Kind = Kind.MASK) -> tuple[Breakdown, dict[str, int]]:
    found = break_down(overlaps(evaluation, kind))
    return found, {c.kind.value: c.count for c in found.costs if c.count}


def points(found: Breakdown, kind: ErrorKind) -> float:
    return next(c.points for c in found.costs if c.kind is kind)


BIG: Place = (20, 20, 80, 80, PERSON)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ((20, 20, 80, 80, DOG, 0.9), ErrorKind.CLASSIFICATION),
        ((60, 20, 80, 80, PERSON, 0.9), ErrorKind.LOCALISATION),  # IoU 1/3
        ((60, 20, 80, 80, DOG, 0.9), ErrorKind.BOTH),
        ((120, 120, 30, 30, PERSON, 0.9), ErrorKind.BACKGROUND),
        ((92, 20, 60, 80, PERSON, 0.9), ErrorKind.BACKGROUND),  # overlaps by less than a tenth
    ],
)
@pytest.mark.parametrize("shape", list(Kind))
def test_each_kind_of_false_detection(found: Found, kind: ErrorKind, shape: Kind) -> None:
    _, counts = costs(one_picture([BIG], [found]), shape)
    covered = kind in (ErrorKind.CLASSIFICATION, ErrorKind.LOCALISATION)
    assert counts == {kind.value: 1, **({} if covered else {"missed": 1})}


def test_a_second_detection_of_an_object_is_a_duplicate() -> None:
    rows = [(20.0, 20.0, 80.0, 80.0, PERSON, s) for s in (0.9, 0.8, 0.7)]
    found, counts = costs(one_picture([BIG], rows))
    assert counts == {"duplicate": 2}
    assert found.ap50 == 100 and points(found, ErrorKind.DUPLICATE) == 0  # they rank last


def test_what_is_near_an_object_of_its_class_is_badly_placed_whatever_else_is_there() -> None:
    """Over a dog by most of its area, and a third over a person: the first kind counts."""
    dog: Place = (60, 20, 80, 80, DOG)
    _, counts = costs(one_picture([BIG, dog], [(60, 20, 80, 80, PERSON, 0.9)]))
    assert counts == {"localisation": 1, "missed": 1}


def test_an_oracle_of_classes_moves_the_detection_to_its_class() -> None:
    dog: Place = (110, 110, 40, 40, DOG)
    rows = [(20.0, 20.0, 80.0, 80.0, DOG, 0.9), (110.0, 110.0, 40.0, 40.0, DOG, 0.8)]
    found, counts = costs(one_picture([BIG, dog], rows))
    # Persons 0, dogs half: the right dog ranks second.
    assert found.ap50 == pytest.approx(25, abs=0.3) and counts == {"classification": 1}
    assert points(found, ErrorKind.CLASSIFICATION) == pytest.approx(75, abs=0.3)
    assert found.false_positives == pytest.approx(25, abs=0.3)


def test_an_oracle_of_places_keeps_the_best_of_an_object_only() -> None:
    """Badly placed ones above the right one: mended, the object is found once, at the top."""
    rows = [(60.0, 20.0, 80.0, 80.0, PERSON, 0.9), (20.0, 20.0, 80.0, 80.0, PERSON, 0.5)]
    found, counts = costs(one_picture([BIG], rows))
    assert counts == {"localisation": 1} and found.ap50 == pytest.approx(50)
    assert points(found, ErrorKind.LOCALISATION) == pytest.approx(50)
    assert found.false_negatives == 0


def test_missed_objects_are_no_longer_asked_for() -> None:
    other: Place = (110, 110, 40, 40, PERSON)
    found, counts = costs(one_picture([BIG, other], [(20, 20, 80, 80, PERSON, 0.9)]))
    assert counts == {"missed": 1} and found.ap50 == pytest.approx(100 * 51 / 101)
    assert points(found, ErrorKind.MISSED) == pytest.approx(100 - found.ap50)


def test_nothing_found_is_all_missed() -> None:
    found, counts = costs(one_picture([BIG], []))
    assert found.ap50 == 0 and counts == {"missed": 1}
    assert points(found, ErrorKind.MISSED) == 100 == found.false_negatives


def test_a_set_without_objects_costs_nothing() -> None:
    found, counts = costs(one_picture([], [(20, 20, 80, 80, PERSON, 0.9)]))
    assert found.ap50 == 0 and counts == {"background": 1}
    assert points(found, ErrorKind.BACKGROUND) == 0


def test_what_lies_in_a_crowd_is_no_error() -> None:
    rows = [(30.0, 30.0, 20.0, 20.0, PERSON, 0.9), (50.0, 50.0, 20.0, 20.0, PERSON, 0.8)]
    evaluation = one_picture([BIG], rows, crowds=1)
    assert costs(evaluation)[1] == {}
    confusion = confuse(overlaps(evaluation, Kind.MASK), NAMES, 0.5)
    assert confusion.counts.sum() == 0
    assert worst_pictures(overlaps(evaluation, Kind.MASK), NAMES, 0.5, 9) == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", list(Kind))
def test_ap_is_the_protocols_and_costs_are_none_below_zero(seed: int, kind: Kind) -> None:
    content, rows = random_set(seed)
    evaluation = evaluation_of(content, rows)
    found, counts = costs(evaluation, kind)
    curves = evaluation.mask if kind is Kind.MASK else evaluation.box
    assert found.ap50 == pytest.approx(curves.all.ap50, abs=1e-3)
    assert all(c.points >= 0 for c in found.costs) and len(counts) > 3
    together = found.false_positives, found.false_negatives
    removed = (ErrorKind.BACKGROUND, ErrorKind.BOTH, ErrorKind.DUPLICATE)
    assert together[0] >= max(points(found, k) for k in removed) - 1e-9
    assert together[1] >= points(found, ErrorKind.MISSED) - 1e-9


@pytest.mark.parametrize("seed", range(2))
def test_every_detection_and_every_object_is_counted_once(seed: int) -> None:
    content, rows = random_set(seed)
    evaluation = evaluation_of(content, rows)
    pictures = overlaps(evaluation, Kind.MASK)
    taken = [m for p in pictures for m in match(p, 0.5)]
    _, counts = costs(evaluation)
    false = sum(n for kind, n in counts.items() if kind != "missed")
    assert false == taken.count(-1) and len(taken) == len(rows)
    for picture in pictures:
        single = [m for m in match(picture, 0.5) if m >= 0 and not picture.crowd[m]]
        assert len(single) == len(set(single))


# --- classes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_the_mean_over_classes_is_the_whole(seed: int) -> None:
    evaluation = evaluation_of(*random_set(seed))
    for curves in (evaluation.box, evaluation.mask):
        for field in ("ap", "ap50", "ap75"):
            values = [getattr(p, field) for p in curves.by_class.values()]
            assert np.mean(values) == pytest.approx(getattr(curves.all, field), abs=1e-3)
        assert curves.precision.shape == (10, 101, 2)


def test_confusions_by_class() -> None:
    dog: Place = (110, 110, 40, 40, DOG)
    lost: Place = (110, 20, 30, 30, DOG)
    rows = [
        (20.0, 20.0, 80.0, 80.0, DOG, 0.9),
        (20.0, 20.0, 80.0, 80.0, PERSON, 0.8),  # the object is taken: found where nothing is
        (110.0, 110.0, 40.0, 40.0, DOG, 0.7),
        (110.0, 20.0, 30.0, 30.0, DOG, 0.2),  # below the score
    ]
    evaluation = one_picture([BIG, dog, lost], rows)
    pictures = overlaps(evaluation, Kind.MASK)
    found = confuse(pictures, NAMES, 0.5)
    assert found.names == ("person", "dog")
    assert found.counts.tolist() == [[0, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert found.worst(5) == [("person", "dog", 1)]
    (worst,) = worst_pictures(pictures, NAMES, 0.5, 9)
    assert [j.verdict for j in worst.judged] == [
        Verdict.CONFUSED,
        Verdict.MISSED,
        Verdict.FALSE,
        Verdict.RIGHT,
    ]
    assert [j.text for j in worst.judged] == [
        "person taken for dog 0.90",
        "dog missed",
        "person 0.80, found twice",
        "dog 0.70, mask IoU 1.00",
    ]


def test_the_most_confused_classes_stand_for_many() -> None:
    names = {i: f"class {i}" for i in range(30)}
    whole = confuse([], names, 0.5)
    whole.counts[7, 21], whole.counts[3, 3], whole.counts[29, -1] = 5, 100, 7
    part = whole.part(3)
    assert part.names == ("class 3", "class 7", "class 21")
    assert part.counts.tolist() == [[100, 0, 0, 0], [0, 0, 5, 0], [0] * 4, [0] * 4]
    assert whole.part(30) is whole


def test_the_worst_picture_comes_first() -> None:
    content, rows = random_set(1)
    found = look_into(evaluation_of(content, rows), 0.3)
    harms = [w.harm for w in found.worst]
    assert harms == sorted(harms, reverse=True) and harms[0] > 1
    assert found.to_json()["errors"]["mask"]["ap50"] == round(found.mask.ap50, 2)
    assert found.to_json()["confusion"]["names"] == ["person", "dog", "background"]
