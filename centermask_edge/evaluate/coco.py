"""Box and mask AP of anything that segments a picture, whatever the format of the set.

One function for torch and for every engine; the figures are those of
:mod:`centermask_edge.evaluate.protocol`.
"""

from __future__ import annotations

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
from centermask_edge.errors import DatasetError
from centermask_edge.evaluate.protocol import Curves as Curves
from centermask_edge.evaluate.protocol import Precision as Precision
from centermask_edge.evaluate.protocol import average_precision as average_precision
from centermask_edge.evaluate.protocol import precision_curves as precision_curves
from centermask_edge.evaluate.protocol import results_of as results_of
from centermask_edge.instances import Instances

Segment = Callable[[NDArray[np.uint8]], Instances]


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
    bare = sum(not _drawable(a.get("segmentation")) for a in objects)
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


def _drawable(segmentation: Any) -> bool:
    """Whether it is an RLE, or has a polygon of at least three points."""
    if isinstance(segmentation, list):
        return any(isinstance(part, list) and len(part) >= 6 for part in segmentation)
    return bool(segmentation)


def _completed(entry: dict[str, Any]) -> dict[str, Any]:
    # A crowd without a mask is ignored by its box.
    x, y, w, h = entry["bbox"]
    around = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    parts = entry["segmentation"] if _drawable(entry.get("segmentation")) else around
    if isinstance(parts, list):
        parts = [p for p in parts if len(p) >= 6]
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
