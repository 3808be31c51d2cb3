"""Which pictures went worst, and what went wrong in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from centermask_edge.evaluate.breakdown import BACKGROUND
from centermask_edge.evaluate.confusion import FOUND
from centermask_edge.evaluate.matching import FREE, Matched, in_crowd, match_any, shown

_WORTH = 0.1  # harm from which a picture is worth a look: one mask of IoU 0.8


class Verdict(str, Enum):
    """What became of a detection or an object."""

    RIGHT = "right"
    CONFUSED = "wrong class"
    FALSE = "false"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Judged:
    """One detection, or one object that nothing found.

    Attributes:
        verdict: what became of it.
        name: of the class that was found, or that was missed.
        other: class of the object where it was taken for another.
        score: box score; None for a missed object.
        iou: with its object, or with the one it overlaps most; None for a missed object.
        found: place among the picture's detections, None for a missed object.
        target: place among its objects, None where nothing is there.
    """

    verdict: Verdict
    name: str
    other: str
    score: float | None
    iou: float | None
    found: int | None
    target: int | None

    @property
    def harm(self) -> float:
        """From 0 for a perfect mask to 1 for what was missed."""
        if self.verdict is Verdict.RIGHT:
            return (1.0 - (self.iou or 0.0)) / 2
        return 1.0 if self.score is None or self.verdict is Verdict.CONFUSED else self.score

    @property
    def text(self) -> str:
        """In one line."""
        score = "" if self.score is None else f" {self.score:.2f}"
        if self.verdict is Verdict.MISSED:
            return f"{self.name} missed"
        if self.verdict is Verdict.CONFUSED:
            return f"{self.other} taken for {self.name}{score}"
        if self.verdict is Verdict.FALSE:
            return f"{self.name}{score}, {self._beside()}"
        return f"{self.name}{score}, mask IoU {self.iou:.2f}"

    def _beside(self) -> str:
        if self.iou is None or self.iou < BACKGROUND:
            return "nothing there"
        return "found twice" if self.iou >= FOUND else f"mask IoU only {self.iou:.2f}"


@dataclass(frozen=True, slots=True)
class WorstPicture:
    """A picture and everything in it, the most harmful first."""

    picture: Matched
    judged: tuple[Judged, ...]

    @property
    def harm(self) -> float:
        """Of all that is in it."""
        return sum(j.harm for j in self.judged)


def worst_pictures(
    pictures: Sequence[Matched], names: dict[int, str], least_score: float, limit: int
) -> list[WorstPicture]:
    """The pictures with the most harm in them, the worst first; those almost without are left out.

    Args:
        pictures: overlaps of masks.
        names: of the classes by COCO category.
        least_score: box score from which a detection is shown.
        limit: so many at most.
    """
    found = [WorstPicture(p, _judge(p, names, least_score)) for p in pictures]
    found.sort(key=lambda w: -w.harm)
    return [w for w in found[:limit] if w.harm >= _WORTH]


def _judge(picture: Matched, names: dict[int, str], least_score: float) -> tuple[Judged, ...]:
    matches = match_any(picture, FOUND, least_score)
    ignored = in_crowd(picture, FOUND)
    judged = []
    for d in np.flatnonzero(shown(picture, least_score)):
        name = names[int(picture.classes[d])]
        score, target = float(picture.found[d]["score"]), int(matches[d])
        if target == FREE:
            if not ignored[d]:
                beside = float(picture.iou[d].max(initial=0.0))
                judged.append(Judged(Verdict.FALSE, name, "", score, beside, int(d), None))
            continue
        other = names[int(picture.object_classes[target])]
        verdict = Verdict.RIGHT if other == name else Verdict.CONFUSED
        iou = float(picture.iou[d, target])
        judged.append(Judged(verdict, name, other, score, iou, int(d), target))
    for g, category in enumerate(picture.object_classes):
        if not picture.crowd[g] and g not in matches:
            judged.append(Judged(Verdict.MISSED, names[int(category)], "", None, None, None, g))
    return tuple(sorted(judged, key=lambda j: -j.harm))
