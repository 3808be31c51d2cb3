"""What changed in one picture between two models, instance by instance, the worst first.

The loss of an instance says how much a person looking at the picture would miss: its whole score
where it is lost or new, else what its mask and its score lost. It ranks pictures and instances for
the report; the verdict itself rests on AP alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from centermask_edge.boxes import iou
from centermask_edge.instances import Instances
from centermask_edge.masks import crop_overlap

SAME_OBJECT = 0.5  # box IoU
NOTICED = 0.05  # losses below this are not worth a line
# Losing what nothing annotated supports, or finding what something does, is no harm but a change.
_HARMLESS = 0.5


class Kind(str, Enum):
    """What became of an instance."""

    LOST = "lost"
    NEW = "new"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One instance in both models.

    Attributes:
        kind: lost and new by the score threshold; otherwise both models show it.
        name: of its class.
        before: box score in the first model; None where it has no such instance at all.
        after: in the second model.
        mask_iou: of the two masks; None where only one model has it.
        annotated: whether an object of the data set is there; None where nobody said.
        box: float32 (4,) xyxy source pixels, of the first model where it has one.
        loss: 0 for no change.
    """

    kind: Kind
    name: str
    before: float | None
    after: float | None
    mask_iou: float | None
    annotated: bool | None
    box: NDArray[np.float32]
    loss: float


@dataclass(frozen=True, slots=True)
class PictureChange:
    """All changes of one picture.

    Attributes:
        changes: by falling loss.
        before: instances of the first model above the threshold.
        after: of the second.
        partners: for each of ``after`` its place in ``before``, -1 where it is new.
    """

    changes: tuple[Change, ...]
    before: Instances
    after: Instances
    partners: tuple[int, ...]

    @property
    def loss(self) -> tuple[float, float]:
        """Of the worst instance, then the sum: a crowd of slight changes is not the worst."""
        losses = [change.loss for change in self.changes]
        return max(losses, default=0.0), sum(losses)

    @property
    def noticed(self) -> tuple[Change, ...]:
        """Changes worth a line."""
        return tuple(c for c in self.changes if c.loss >= NOTICED or c.kind is not Kind.CHANGED)


def compare(
    before: Instances,
    after: Instances,
    threshold: float,
    objects: NDArray[np.float64] | None = None,
) -> PictureChange:
    """The changes of one picture.

    Args:
        before: every instance of the first model, those of low score included, so that a drop
            below the threshold can be told from a disappearance.
        after: of the second.
        threshold: box score from which an instance is shown.
        objects: float64 (G, 4) xyxy annotated boxes of the picture.
    """
    order = _partners(before, after)
    changes = sorted(_changes(before, after, order, threshold, objects), key=lambda c: -c.loss)
    shown_before, shown_after = before.scores >= threshold, after.scores >= threshold
    rank = np.cumsum(shown_before) - 1
    partners = [
        int(rank[order[i]]) if order[i] >= 0 and shown_before[order[i]] else -1
        for i in np.flatnonzero(shown_after)
    ]
    return PictureChange(
        tuple(changes), before.select(shown_before), after.select(shown_after), tuple(partners)
    )


def _partners(before: Instances, after: Instances) -> NDArray[np.int64]:
    """For each instance after its place before, -1 for none: pairs of one class, closest first."""
    overlap = iou(after.boxes, before.boxes)
    overlap[after.classes[:, None] != before.classes[None]] = 0
    order = np.full(len(after), -1, np.int64)
    while overlap.size and overlap.max() >= SAME_OBJECT:
        i, j = np.unravel_index(int(overlap.argmax()), overlap.shape)
        order[i] = j
        overlap[i], overlap[:, j] = 0, 0
    return order


def _changes(
    before: Instances,
    after: Instances,
    order: NDArray[np.int64],
    threshold: float,
    objects: NDArray[np.float64] | None,
) -> Iterator[Change]:
    back = {int(j): i for i, j in enumerate(order) if j >= 0}
    pairs: list[tuple[int | None, int | None]] = [(j, back.get(j)) for j in range(len(before))]
    pairs += [(None, i) for i in range(len(after)) if order[i] < 0]
    for j, i in pairs:
        old = None if j is None else float(before.scores[j])
        new = None if i is None else float(after.scores[i])
        shown = (old or 0) >= threshold, (new or 0) >= threshold
        if not any(shown):
            continue
        source, at = (before, j) if j is not None else (after, i)
        assert at is not None
        overlap = None if i is None or j is None else mask_iou(before, j, after, i)
        kind = Kind.CHANGED if all(shown) else Kind.LOST if shown[0] else Kind.NEW
        there = None if objects is None else _annotated(source.boxes[at], objects)
        loss = _loss(kind, old or 0.0, new or 0.0, overlap, there)
        yield Change(kind, source.name(at), old, new, overlap, there, source.boxes[at], loss)


def _loss(
    kind: Kind, old: float, new: float, overlap: float | None, annotated: bool | None
) -> float:
    if kind is Kind.CHANGED:
        return 1.0 - (0.0 if overlap is None else overlap) + abs(old - new)
    # What moved a hair across the threshold is no great loss, what vanished is a whole one.
    harm = annotated is None or annotated is (kind is Kind.LOST)
    return abs(old - new) * (1.0 if harm else _HARMLESS)


def _annotated(box: NDArray[np.float32], objects: NDArray[np.float64]) -> bool:
    return bool((iou(box[None], objects.astype(np.float32)) >= SAME_OBJECT).any())


def mask_iou(first: Instances, i: int, second: Instances, j: int) -> float:
    """Intersection over union of two masks in source pixels; 1 where both are empty."""
    shared, union = crop_overlap(first.crop(i), second.crop(j))
    return shared / union if union else 1.0
