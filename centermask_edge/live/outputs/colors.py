"""Colours that stay with an object from frame to frame."""

from __future__ import annotations

import numpy as np

from centermask_edge import boxes as box_maths
from centermask_edge.instances import Instances

_LEAST_OVERLAP = 0.3
_PATIENCE = 10


class ColorMemory:
    """Numbers for colours, kept while an object stays about where it was.

    Not a tracker: objects that meet may swap colours. It only spares the eye the flicker of
    colours that change with the order of the scores.
    """

    def __init__(self) -> None:
        self._boxes = np.zeros((0, 4), np.float32)
        self._ids: list[int] = []
        self._missed: list[int] = []

    def assign(self, instances: Instances) -> list[int]:
        """A number for each instance of the next frame, different within the frame.

        Those that overlap one of the frames before take its number, best score first; the others
        the lowest free ones.
        """
        given: list[int | None] = [None] * len(instances)
        overlap = box_maths.iou(instances.boxes, self._boxes)
        for i in range(len(instances)):
            if overlap.shape[1] and overlap[i].max() >= _LEAST_OVERLAP:
                best = int(overlap[i].argmax())
                given[i] = self._ids[best]
                overlap[:, best] = 0
        gone = [
            k
            for k, number in enumerate(self._ids)
            if number not in given and self._missed[k] < _PATIENCE
        ]
        taken = {number for number in given if number is not None} | {self._ids[k] for k in gone}
        free = (number for number in range(len(taken) + len(instances)) if number not in taken)
        numbers = [next(free) if number is None else number for number in given]
        self._boxes = np.concatenate([instances.boxes, self._boxes[gone]])
        self._missed = [0] * len(numbers) + [self._missed[k] + 1 for k in gone]
        self._ids = numbers + [self._ids[k] for k in gone]
        return numbers
