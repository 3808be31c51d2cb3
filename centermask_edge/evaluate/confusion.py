"""What objects are taken for: the confusion matrix, with the background as a class of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centermask_edge.evaluate.matching import FREE, Matched, in_crowd, match_any, shown

FOUND = 0.5  # IoU from which a detection has found an object
NOTHING = "background"


@dataclass(frozen=True, slots=True)
class Confusion:
    """Objects by what they are and what they were taken for.

    Attributes:
        names: of the classes; the background comes after them.
        counts: int64 (C + 1, C + 1); rows are what is there, columns what was found. The last row
            counts detections where nothing is, the last column objects that were not found.
        least_score: box score from which a detection counts.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    least_score: float

    def worst(self, limit: int) -> list[tuple[str, str, int]]:
        """The commonest confusions of two classes: what is there, what was found, how often."""
        size = len(self.names)
        pairs = [
            (self.names[i], self.names[j], int(self.counts[i, j]))
            for i in range(size)
            for j in range(size)
            if i != j and self.counts[i, j]
        ]
        return sorted(pairs, key=lambda p: -p[2])[:limit]

    def part(self, limit: int) -> Confusion:
        """The same with the classes that are confused most only; the others are left out."""
        size = len(self.names)
        if size <= limit:
            return self
        wrong = self.counts[:size, :size].copy()
        np.fill_diagonal(wrong, 0)
        weight = 1e6 * (wrong.sum(0) + wrong.sum(1)) + self.counts[:size].sum(1)
        chosen = sorted(np.argsort(-weight, kind="stable")[:limit].tolist())
        places = np.array([*chosen, size])
        names = tuple(self.names[i] for i in chosen)
        return Confusion(names, self.counts[np.ix_(places, places)], self.least_score)


def confuse(pictures: Sequence[Matched], names: dict[int, str], least_score: float) -> Confusion:
    """The matrix of all pictures. The best score chooses its object first, of whatever class.

    Args:
        pictures: overlaps of masks or boxes.
        names: of the classes by COCO category.
        least_score: box score from which a detection counts.
    """
    place = {category: i for i, category in enumerate(names)}
    counts = np.zeros((len(names) + 1, len(names) + 1), np.int64)
    for picture in pictures:
        matches = match_any(picture, FOUND, least_score)
        ignored = in_crowd(picture, FOUND)
        for d in np.flatnonzero(shown(picture, least_score)):
            column = place[int(picture.classes[d])]
            if matches[d] != FREE:
                counts[place[int(picture.object_classes[matches[d]])], column] += 1
            elif not ignored[d]:
                counts[-1, column] += 1
        taken = set(matches.tolist())
        for g, category in enumerate(picture.object_classes):
            if not picture.crowd[g] and g not in taken:
                counts[place[int(category)], -1] += 1
    return Confusion(tuple(names.values()), counts, least_score)
