"""Box and mask AP on a COCO-format set, by the COCO protocol (faster-coco-eval).

One function for torch and for every engine. Box AP ranks by ``scores``; mask AP ranks by
``mask_scores`` and takes sizes from mask areas, as the official evaluator does.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.data.augment import read_bgr
from centermask_edge.data.coco import Sample, category_ids, read_coco
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
class Report:
    """Result of one evaluation."""

    images: int
    instances: int
    box: Precision
    mask: Precision

    def to_json(self) -> dict[str, Any]:
        """Plain values, AP rounded to two decimals."""
        rounded: dict[str, Any] = json.loads(
            json.dumps(asdict(self)), parse_float=lambda s: round(float(s), 2)
        )
        return rounded


def _summary(truth: Any, results: list[dict[str, Any]], kind: str, ids: list[int]) -> Precision:
    module = require("faster_coco_eval", extra="train", why="evaluate")
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(results)
        evaluator = module.COCOeval_faster(truth, found, kind)
        evaluator.params.catIds = ids
        evaluator.run()
    stats = [round(100 * float(v), 4) if v >= 0 else -1.0 for v in evaluator.stats[:6]]
    return Precision(*stats)


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
    """Box and mask AP of rows from ``results_of``.

    Args:
        results: the rows.
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
        _summary(content, box_rows, "bbox", wanted),
        _summary(content, mask_rows, "segm", wanted),
    )


def _check_masks(path: Path, truth: dict[str, Any], ids: Container[int]) -> None:
    objects = [a for a in truth["annotations"] if a["category_id"] in ids and not a.get("iscrowd")]
    bare = sum(not a.get("segmentation") for a in objects)
    if bare:
        raise DatasetError(
            f"{path} has no masks for {bare} of its {len(objects)} objects; "
            "evaluation needs a polygon or RLE for each"
        )


def evaluate(
    segment: Segment,
    annotations: Path,
    classes: Sequence[str],
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = iter,
) -> Report:
    """Box and mask AP of ``segment`` over every picture of a COCO json file.

    Args:
        segment: gives the instances of a picture, uint8 (H, W, 3) BGR.
        annotations: the COCO file; pictures are in ``images/`` beside it.
        classes: names of the model's classes, matched with the file's categories; categories
            of no class do not count.
        progress: wraps the samples, to show how far it is.

    Raises:
        DatasetError: unreadable annotations or pictures, or objects without a mask.
    """
    samples = read_coco(annotations, classes)
    truth = json.loads(annotations.read_text())
    indices = category_ids(truth["categories"], classes)
    _check_masks(annotations, truth, indices)
    ids = {index: coco for coco, index in indices.items()}
    results: list[dict[str, Any]] = []
    for sample in progress(samples):
        results += results_of(segment(read_bgr(sample)), sample.image_id, ids)
    box, mask = average_precision(results, truth, indices)
    return Report(len(samples), sum(len(s.boxes) for s in samples), box, mask)
