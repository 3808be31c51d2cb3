"""Which detection is which object: overlaps of a picture's instances and the protocol's matches.

Legend: D detections of a picture, G its objects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.data.coco import Sample
from centermask_edge.data.segmentation import rle_of
from centermask_edge.errors import require
from centermask_edge.evaluate.coco import Evaluation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

FREE = -1
_ALMOST_ONE = 1 - 1e-10  # the protocol lets IoU 1 pass a threshold of 1


class Kind(str, Enum):
    """By what two shapes are compared and detections ranked."""

    MASK = "mask"
    BOX = "box"


@dataclass(frozen=True, slots=True)
class Matched:
    """The detections of one picture beside its objects.

    Attributes:
        sample: the picture.
        found: rows of ``results_of``, the best score first.
        scores: float64 (D,) that they are ranked by.
        classes: int64 (D,) COCO categories.
        objects: COCO annotations, crowds included.
        object_classes: int64 (G,) COCO categories.
        crowd: bool (G,).
        iou: float64 (D, G); for a crowd the share of the detection that lies in it.
    """

    sample: Sample
    found: tuple[dict[str, Any], ...]
    scores: Floats
    classes: Integers
    objects: tuple[dict[str, Any], ...]
    object_classes: Integers
    crowd: Bools
    iou: Floats

    def of_class(self) -> Bools:
        """Which detection and which object have one class, bool (D, G)."""
        same: Bools = self.classes[:, None] == self.object_classes[None]
        return same


def overlaps(evaluation: Evaluation, kind: Kind) -> list[Matched]:
    """Every picture with its overlaps, in the protocol's order: by the pictures' ids."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in evaluation.results:
        found[row["image_id"]].append(row)
    for entry in evaluation.truth["annotations"]:
        objects[entry["image_id"]].append(entry)
    samples = sorted(evaluation.samples, key=lambda s: s.image_id)
    return [_matched(s, found[s.image_id], objects[s.image_id], kind) for s in samples]


def _matched(
    sample: Sample, found: list[dict[str, Any]], objects: list[dict[str, Any]], kind: Kind
) -> Matched:
    field = "mask_score" if kind is Kind.MASK else "score"
    ranked = sorted(found, key=lambda row: -row[field])
    crowd = np.array([bool(o["iscrowd"]) for o in objects], np.bool_)
    return Matched(
        sample,
        tuple(ranked),
        np.array([row[field] for row in ranked], np.float64),
        np.array([row["category_id"] for row in ranked], np.int64),
        tuple(objects),
        np.array([o["category_id"] for o in objects], np.int64),
        crowd,
        _iou(ranked, objects, crowd, kind, sample),
    )


def _iou(
    found: Sequence[dict[str, Any]],
    objects: Sequence[dict[str, Any]],
    crowd: Bools,
    kind: Kind,
    sample: Sample,
) -> Floats:
    if not found or not objects:
        return np.zeros((len(found), len(objects)))
    coder: Any = require("faster_coco_eval.core.mask", extra="train", why="evaluate")
    if kind is Kind.MASK:
        first: Any = [row["segmentation"] for row in found]
        second: Any = [rle_of(o["segmentation"], sample.height, sample.width) for o in objects]
    else:
        first = np.array([row["bbox"] for row in found], np.float64)
        second = np.array([o["bbox"] for o in objects], np.float64)
    shares = coder.iou(first, second, crowd.astype(np.uint8).tolist())
    return np.asarray(shares, np.float64).reshape(len(found), len(objects))


def match(picture: Matched, threshold: float) -> Integers:
    """The object that each detection takes, int64 (D,), or ``FREE``; by COCO's protocol.

    The best score chooses first, among the free objects of its class; a crowd may be taken by
    several, and only by those that find nothing else.
    """
    taken = np.zeros(len(picture.objects), np.bool_)
    matches = np.full(len(picture.found), FREE, np.int64)
    iou = np.where(picture.of_class(), picture.iou, -1.0)
    least = min(threshold, _ALMOST_ONE)
    for d in range(len(matches)):
        for group in (~picture.crowd & ~taken, picture.crowd):
            values = np.where(group, iou[d], -1.0)
            if not values.size or values.max() < least:
                continue
            # Of equals the last one, as the protocol's loop leaves it.
            best = len(values) - 1 - int(values[::-1].argmax())
            matches[d], taken[best] = best, True
            break
    return matches


def match_any(picture: Matched, threshold: float, least_score: float) -> Integers:
    """The object that each shown detection takes, of whatever class, int64 (D,), or ``FREE``.

    Args:
        picture: its overlaps.
        threshold: IoU from which a detection has found an object.
        least_score: box score from which a detection is shown; others take nothing.
    """
    values = np.where(picture.crowd[None], -1.0, picture.iou)
    values[~shown(picture, least_score)] = -1.0
    matches = np.full(len(picture.found), FREE, np.int64)
    for d in range(len(matches)):
        if values.shape[1] and values[d].max() >= threshold:
            matches[d] = int(values[d].argmax())
            values[:, matches[d]] = -1.0
    return matches


def shown(picture: Matched, least_score: float) -> Bools:
    """Which detections have at least that box score, bool (D,)."""
    return np.array([row["score"] >= least_score for row in picture.found], np.bool_)


def in_crowd(picture: Matched, threshold: float) -> Bools:
    """Which detections lie in a crowd of their class, bool (D,)."""
    within = (picture.iou >= threshold) & picture.of_class() & picture.crowd[None]
    return np.asarray(within.any(axis=1), np.bool_)
