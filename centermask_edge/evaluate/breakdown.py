"""What keeps AP from 100, in the manner of TIDE (Bolya et al., ECCV 2020, sections 2.2 and 2.3).

Each false detection gets one kind by its overlap with the objects of its own and of other classes
(foreground from IoU 0.5, background below 0.1), each object that nobody found is missed. A kind's
cost is what AP at IoU 0.5 would gain if an oracle mended that kind alone; costs do not add up.
Where several kinds fit a detection, the first in the order of :class:`ErrorKind` counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from centermask_edge.evaluate.matching import FREE, Bools, Floats, Matched, match

FOREGROUND, BACKGROUND = 0.5, 0.1
_RECALLS = np.linspace(0, 1, 101)  # the protocol's places


class ErrorKind(str, Enum):
    """Kinds of error, as the paper names them."""

    LOCALISATION = "localisation"
    CLASSIFICATION = "classification"
    DUPLICATE = "duplicate"
    BOTH = "both"
    BACKGROUND = "background"
    MISSED = "missed"

    @property
    def meaning(self) -> str:
        """In plain words."""
        return _MEANINGS[self]


_MEANINGS = {
    ErrorKind.CLASSIFICATION: "right place, wrong class",
    ErrorKind.LOCALISATION: "right class, overlap from 0.1 to 0.5",
    ErrorKind.BOTH: "wrong class, overlap from 0.1 to 0.5",
    ErrorKind.DUPLICATE: "an object that a better detection has found already",
    ErrorKind.BACKGROUND: "nothing there: overlap below 0.1 with every object",
    ErrorKind.MISSED: "an object that nothing found, not even badly or as another class",
}
_REMOVED = (ErrorKind.DUPLICATE, ErrorKind.BOTH, ErrorKind.BACKGROUND)

Target = tuple[int, int]  # place of a picture, place of an object in it


@dataclass(frozen=True, slots=True)
class Cost:
    """One kind of error: how often, and the points of AP at IoU 0.5 that it costs."""

    kind: ErrorKind
    count: int
    points: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What keeps AP from 100.

    Attributes:
        ap50: AP at IoU 0.5 as it is, in percent.
        costs: of each kind.
        false_positives: points that all false detections together cost.
        false_negatives: points that all objects not found cost.
    """

    ap50: float
    costs: tuple[Cost, ...]
    false_positives: float
    false_negatives: float


@dataclass(slots=True)
class _Class:
    """Detections of one class that count, and how many objects there are to find."""

    scores: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    objects: int = 0

    def add(self, score: float, right: bool) -> None:
        self.scores.append(score)
        self.right.append(right)

    def ap(self) -> float:
        """In percent; 100 where nothing is left to find."""
        if not self.objects:
            return 100.0
        order = np.argsort(-np.array(self.scores, np.float64), kind="stable")
        return 100 * _interpolated(np.array(self.right, np.float64)[order], self.objects)


def _interpolated(right: Floats, objects: int) -> float:
    """Mean of the best precision from each of 101 recalls on."""
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / objects, _RECALLS, side="left")
    reached = places[places < len(best)]
    return float(best[reached].sum()) / len(_RECALLS)


@dataclass(frozen=True, slots=True)
class _Detection:
    """One detection that counts; ``target`` is the object it found or meant."""

    category: int
    score: float
    kind: ErrorKind | None  # None for a right one
    target: Target | None


@dataclass(slots=True)
class _Set:
    """All detections that count, and the category of every object."""

    detections: list[_Detection] = field(default_factory=list)
    objects: dict[Target, int] = field(default_factory=dict)


def break_down(pictures: Sequence[Matched]) -> Breakdown:
    """What keeps AP from 100.

    Args:
        pictures: overlaps of masks or of boxes.
    """
    found = _gather(pictures)
    base = _ap(found.detections, found.objects.values())
    missed = _missed(found)
    counts = Counter(d.kind for d in found.detections)
    counts[ErrorKind.MISSED] = len(missed)
    costs = tuple(Cost(k, counts[k], _mended(found, k, missed) - base) for k in ErrorKind)
    right = [d for d in found.detections if d.kind is None]
    only_found = [found.objects[d.target] for d in right if d.target is not None]
    classes = set(found.objects.values())
    return Breakdown(
        base,
        costs,
        _ap(right, found.objects.values()) - base,
        _ap(found.detections, only_found, classes) - base,
    )


def _gather(pictures: Sequence[Matched]) -> _Set:
    result = _Set()
    for place, picture in enumerate(pictures):
        matches = match(picture, FOREGROUND)
        for g, category in enumerate(picture.object_classes):
            if not picture.crowd[g]:
                result.objects[place, g] = int(category)
        for d, target in enumerate(matches):
            if target != FREE and picture.crowd[target]:
                continue
            kind, meant = (None, int(target)) if target != FREE else _kind(picture, d)
            result.detections.append(
                _Detection(
                    int(picture.classes[d]),
                    float(picture.scores[d]),
                    kind,
                    None if meant is None else (place, meant),
                )
            )
    return result


def _kind(picture: Matched, d: int) -> tuple[ErrorKind, int | None]:
    """The kind of a false detection, and the object that it meant."""
    own = picture.object_classes == picture.classes[d]
    same, at_same = _best(picture.iou[d], own & ~picture.crowd)
    other, at_other = _best(picture.iou[d], ~own & ~picture.crowd)
    if BACKGROUND <= same < FOREGROUND:
        return ErrorKind.LOCALISATION, at_same
    if other >= FOREGROUND:
        return ErrorKind.CLASSIFICATION, at_other
    if same >= FOREGROUND:
        return ErrorKind.DUPLICATE, None
    if other >= BACKGROUND:
        return ErrorKind.BOTH, None
    return ErrorKind.BACKGROUND, None


def _best(iou: Floats, chosen: Bools) -> tuple[float, int | None]:
    if not chosen.any():
        return 0.0, None
    values = np.where(chosen, iou, -1.0)
    return float(values.max()), int(values.argmax())


def _missed(found: _Set) -> set[Target]:
    seen = {d.target for d in found.detections if d.target is not None}
    return set(found.objects) - seen


def _mended(found: _Set, kind: ErrorKind, missed: set[Target]) -> float:
    """AP with one kind of error mended."""
    classes = set(found.objects.values())
    if kind is ErrorKind.MISSED:
        left = [c for target, c in found.objects.items() if target not in missed]
        return _ap(found.detections, left, classes)
    others = [d for d in found.detections if d.kind is not kind]
    if kind in _REMOVED:
        return _ap(others, found.objects.values())
    return _ap(_moved(found, kind), found.objects.values())


def _moved(found: _Set, kind: ErrorKind) -> list[_Detection]:
    """Detections of that kind put right; of several at one object the best score stays."""
    best: dict[Target, _Detection] = {}
    for detection in found.detections:
        if detection.target is not None and detection.kind in (None, kind):
            rival = best.get(detection.target)
            if rival is None or detection.score > rival.score:
                best[detection.target] = detection
    kept = []
    for detection in found.detections:  # in their order, which decides between equal scores
        if detection.target is None or detection.kind not in (None, kind):
            kept.append(detection)
        elif best[detection.target] is detection:
            category = found.objects[detection.target]
            kept.append(replace(detection, category=category, kind=None))
    return kept


def _ap(
    detections: Iterable[_Detection], objects: Iterable[int], classes: Iterable[int] | None = None
) -> float:
    """AP in percent, the mean over classes with objects.

    Args:
        detections: that count.
        objects: category of each object to find.
        classes: to average over, where not those of the objects.
    """
    counts = Counter(objects)
    rows = {c: _Class(objects=counts[c]) for c in (counts if classes is None else classes)}
    for detection in detections:
        if detection.category in rows:
            rows[detection.category].add(detection.score, detection.kind is None)
    return float(np.mean([row.ap() for row in rows.values()])) if rows else 0.0
