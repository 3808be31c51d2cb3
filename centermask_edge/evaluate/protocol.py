"""The COCO protocol (faster-coco-eval): box and mask AP of rows of results.

Box AP ranks by ``scores``; mask AP ranks by ``mask_scores`` and takes sizes from mask areas, as the
official evaluator does. Shape legend: T thresholds of IoU, R = 101 places of recall, C classes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import require
from centermask_edge.instances import Instances


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
