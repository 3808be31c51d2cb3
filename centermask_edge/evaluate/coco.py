"""Box and mask AP by the COCO protocol (faster-coco-eval), whatever the format of the set.

One function for torch and for every engine. Box AP ranks by ``scores``; mask AP ranks by
``mask_scores`` and takes sizes from mask areas, as the official evaluator does. Shape legend:
T thresholds of IoU, R = 101 places of recall, C classes.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.data.augment import read_bgr
from centermask_edge.data.coco import Annotations, Sample, category_ids, samples_of
from centermask_edge.data.dataset import VAL, read_annotations
from centermask_edge.data.segmentation import measure
from centermask_edge.errors import DatasetError, require
from centermask_edge.instances import Instances

Segment = Callable[[NDArray[np.uint8]], Instances]


@dataclass(frozen=True, slots=True)
class Precision:
    """Average precision in percent; -1 where the set has no object of that size."""

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float


@dataclass(frozen=True, slots=True)
class ClassPrecision:
    """One class: how many objects of it there are, crowds left aside, and its precision."""

    name: str
    objects: int
    box: Precision
    mask: Precision


@dataclass(frozen=True, slots=True)
class Report:
    """Result of one evaluation; ``classes`` in the order of the model's."""

    images: int
    instances: int
    box: Precision
    mask: Precision
    classes: tuple[ClassPrecision, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, AP rounded to two decimals."""
        rounded: dict[str, Any] = json.loads(
            json.dumps(asdict(self)), parse_float=lambda s: round(float(s), 2)
        )
        return rounded


@dataclass(frozen=True, slots=True)
class Curves:
    """Everything that the protocol measures of one kind, boxes or masks.

    Attributes:
        all: over all classes.
        by_class: by COCO category.
        precision: float64 (T, R, C) at recalls 0, 0.01, ..., 1 for objects of any size; -1 for
            classes without objects. T goes from IoU 0.5 to 0.95 in steps of 0.05.
    """

    all: Precision
    by_class: dict[int, Precision]
    precision: NDArray[np.float64]


_ANY_SIZE, _SIZES = 0, (1, 2, 3)
_AP50, _AP75 = 0, 5  # places among the thresholds
_MOST = -1  # detections of a picture that count: the protocol's largest number, 100


def _measure(truth: Any, results: list[dict[str, Any]], kind: str, ids: list[int]) -> Curves:
    module = require("faster_coco_eval", extra="train", why="evaluate")
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(results)
        evaluator = module.COCOeval_faster(truth, found, kind)
        evaluator.params.catIds = ids
        evaluator.run()
    stats = [round(100 * float(v), 4) if v >= 0 else -1.0 for v in evaluator.stats[:6]]
    values = np.asarray(evaluator.eval["precision"], np.float64)  # (T, R, C, sizes, numbers)
    by_class = {c: _precision(values[:, :, place, :, _MOST]) for place, c in enumerate(ids)}
    return Curves(Precision(*stats), by_class, values[..., _ANY_SIZE, _MOST])


def _precision(values: NDArray[np.float64]) -> Precision:
    """Of one class, from (T, R, sizes)."""
    of_any = values[..., _ANY_SIZE]
    parts = (of_any, of_any[_AP50], of_any[_AP75], *(values[..., size] for size in _SIZES))
    return Precision(*(_mean(part) for part in parts))


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return round(100 * float(known.mean()), 4) if known.size else -1.0


def results_of(instances: Instances, image_id: int, ids: dict[int, int]) -> list[dict[str, Any]]:
    """The instances of one picture in COCO's result format, both scores kept.

    Args:
        instances: in pixels of the picture.
        image_id: of the picture in the annotation file.
        ids: COCO category id per class index; instances of other classes are left out.
    """
    rows = []
    for box, row in zip(instances.boxes, instances.to_coco(), strict=True):
        if row["class_id"] in ids:
            x0, y0, x1, y1 = (float(v) for v in box)
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": ids[row["class_id"]],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": row["segmentation"],
                    "score": row["score"],
                    "mask_score": row["mask_score"],
                }
            )
    return rows


def average_precision(
    results: Sequence[dict[str, Any]], truth: dict[str, Any], ids: Iterable[int]
) -> tuple[Precision, Precision]:
    """Box and mask AP of rows from ``results_of``; see :func:`precision_curves`."""
    box, mask = precision_curves(results, truth, ids)
    return box.all, mask.all


def precision_curves(
    results: Sequence[dict[str, Any]], truth: dict[str, Any], ids: Iterable[int]
) -> tuple[Curves, Curves]:
    """What the protocol measures of the boxes and of the masks.

    Args:
        results: rows from ``results_of``.
        truth: content of a COCO file.
        ids: COCO categories that count; others are those the model does not know.
    """
    module = require("faster_coco_eval", extra="train", why="evaluate")
    # The protocol marks what is unmatched by id 0, and takes equal ids for one object.
    numbered = [{**a, "id": i} for i, a in enumerate(truth["annotations"], start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        content = module.COCO({**truth, "annotations": numbered})
    box_rows = [{k: v for k, v in r.items() if k != "segmentation"} for r in results]
    mask_rows = [
        {**{k: v for k, v in r.items() if k != "bbox"}, "score": r["mask_score"]} for r in results
    ]
    wanted = sorted(ids)
    return (
        _measure(content, box_rows, "bbox", wanted),
        _measure(content, mask_rows, "segm", wanted),
    )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything an evaluation found.

    Attributes:
        report: its figures.
        box: the protocol's curves of boxes.
        mask: of masks.
        samples: the pictures, in order.
        truth: content of the set in COCO's form, complete and of the model's classes only.
        results: rows of ``results_of``.
        names: of the classes by COCO category.
    """

    report: Report
    box: Curves
    mask: Curves
    samples: tuple[Sample, ...]
    truth: dict[str, Any]
    results: tuple[dict[str, Any], ...]
    names: dict[int, str]


def complete(annotations: Annotations, ids: Iterable[int]) -> dict[str, Any]:
    """The content of a set as the protocol needs it: known classes, areas, crowd marks.

    Args:
        annotations: read, and fit for training.
        ids: COCO categories that count.

    Raises:
        DatasetError: a segmentation that is none, or an object without a mask.
    """
    content, wanted = annotations.content, set(ids)
    kept = [a for a in content["annotations"] if a["category_id"] in wanted]
    objects = [a for a in kept if not a.get("iscrowd")]
    bare = sum(not a.get("segmentation") for a in objects)
    if bare:
        raise DatasetError(
            f"{annotations.path} has no masks for {bare} of its {len(objects)} objects; "
            "evaluation needs a polygon or RLE for each"
        )
    try:
        return {**content, "annotations": [_completed(a) for a in kept]}
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{annotations.path} has an object whose mask cannot be read: {error}"
        ) from None


def _completed(entry: dict[str, Any]) -> dict[str, Any]:
    # A crowd without a mask is ignored by its box.
    x, y, w, h = entry["bbox"]
    around = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    parts = entry.get("segmentation") or around
    if isinstance(parts, list):
        parts = [p for p in parts if len(p) >= 6] or around
    mask = measure(parts)
    assert mask is not None
    return {
        **entry,
        "segmentation": parts,
        "area": entry.get("area", mask.area),
        "iscrowd": int(bool(entry.get("iscrowd"))),
    }


def evaluate_all(
    segment: Segment,
    annotations: Path,
    classes: Sequence[str],
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = iter,
) -> Evaluation:
    """Everything about ``segment`` over every picture of a set.

    Args:
        segment: gives the instances of a picture, uint8 (H, W, 3) BGR.
        annotations: the set, see :mod:`centermask_edge.data.dataset`; its part ``val`` where it
            keeps several.
        classes: names of the model's classes, matched with the set's; categories of no class do
            not count.
        progress: wraps the samples, to show how far it is.

    Raises:
        DatasetError: unreadable annotations or pictures, or objects without a mask.
    """
    read = read_annotations(annotations, VAL)
    samples = samples_of(read, classes)
    indices = category_ids(read.content["categories"], classes)
    truth = complete(read, indices)
    ids = {index: coco for coco, index in indices.items()}
    results: list[dict[str, Any]] = []
    for sample in progress(samples):
        results += results_of(segment(read_bgr(sample)), sample.image_id, ids)
    box, mask = precision_curves(results, truth, indices)
    names = {coco: classes[index] for index, coco in sorted(ids.items())}
    rows = tuple(
        ClassPrecision(name, _count(truth, coco), box.by_class[coco], mask.by_class[coco])
        for coco, name in names.items()
    )
    count = sum(len(s.boxes) for s in samples)
    report = Report(len(samples), count, box.all, mask.all, rows)
    return Evaluation(report, box, mask, tuple(samples), truth, tuple(results), names)


def _count(truth: dict[str, Any], category: int) -> int:
    return sum(a["category_id"] == category and not a["iscrowd"] for a in truth["annotations"])


def evaluate(
    segment: Segment,
    annotations: Path,
    classes: Sequence[str],
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = iter,
) -> Report:
    """The figures of :func:`evaluate_all`.

    Raises:
        DatasetError: see there.
    """
    return evaluate_all(segment, annotations, classes, progress).report
