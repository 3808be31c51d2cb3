"""An evaluation looked into: what errors cost, what is confused, which pictures went worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from centermask_edge.evaluate.breakdown import Breakdown, break_down
from centermask_edge.evaluate.coco import Evaluation
from centermask_edge.evaluate.confusion import Confusion, confuse
from centermask_edge.evaluate.matching import Kind, overlaps
from centermask_edge.evaluate.worst import WorstPicture, worst_pictures

PICTURES = 24


@dataclass(frozen=True, slots=True)
class Findings:
    """What lies behind the figures.

    Attributes:
        evaluation: that was looked into.
        mask: what keeps mask AP from 100.
        box: what keeps box AP from 100.
        confusion: what objects are taken for, by their masks.
        worst: pictures, the worst first.
        least_score: box score from which confusion and pictures show an instance.
    """

    evaluation: Evaluation
    mask: Breakdown
    box: Breakdown
    confusion: Confusion
    worst: tuple[WorstPicture, ...]
    least_score: float

    def to_json(self) -> dict[str, Any]:
        """Plain values: costs by kind of error, and the confusion matrix."""
        return {
            "errors": {"mask": _plain(self.mask), "box": _plain(self.box)},
            "confusion": {
                "names": [*self.confusion.names, "background"],
                "counts": self.confusion.counts.tolist(),
                "score": self.least_score,
            },
        }


def _plain(found: Breakdown) -> dict[str, Any]:
    costs = {c.kind.value: {"count": c.count, "points": round(c.points, 2)} for c in found.costs}
    return {
        "ap50": round(found.ap50, 2),
        "costs": costs,
        "false_positives": round(found.false_positives, 2),
        "false_negatives": round(found.false_negatives, 2),
    }


def look_into(evaluation: Evaluation, least_score: float) -> Findings:
    """What lies behind the figures of an evaluation.

    Args:
        evaluation: from ``evaluate_all``.
        least_score: box score from which confusion and pictures show an instance.
    """
    pictures = overlaps(evaluation, Kind.MASK)
    return Findings(
        evaluation,
        break_down(pictures),
        break_down(overlaps(evaluation, Kind.BOX)),
        confuse(pictures, evaluation.names, least_score),
        tuple(worst_pictures(pictures, evaluation.names, least_score, PICTURES)),
        least_score,
    )
