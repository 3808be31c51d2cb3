"""Masks for the frames between those in which masks are computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from centermask_edge import boxes as box_maths
from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.result import Event

_LEAST_OVERLAP = 0.3


class MaskCarrier:
    """Gives each instance the mask of the one it was in the last frame, moved with its box.

    A mask lies inside its box, so that it moves and scales with it as it is. An object that was
    not there in the frame before has an empty mask until masks are computed again. One a camera.
    """

    def __init__(self) -> None:
        self._last: Instances | None = None

    def __call__(
        self, frame: Frame, instances: Instances, masks: bool
    ) -> tuple[Instances, NDArray[np.int64], tuple[Event, ...]]:
        """The instances with masks; nothing is followed beyond that, so that identities are 0."""
        found = instances if masks else self._carried(instances)
        self._last = found
        return found, np.zeros(len(found), np.int64), ()

    def _carried(self, found: Instances) -> Instances:
        masks, scores = np.zeros_like(found.masks), np.zeros_like(found.mask_scores)
        last = self._last
        if last is not None and len(last) and last.source_size == found.source_size:
            overlap = box_maths.iou(found.boxes, last.boxes)
            overlap[found.classes[:, None] != last.classes[None]] = 0
            # By the best overlap first, each mask once.
            for _ in range(min(overlap.shape)):
                i, j = np.unravel_index(int(overlap.argmax()), overlap.shape)
                if overlap[i, j] < _LEAST_OVERLAP:
                    break
                masks[i], scores[i] = last.masks[j], last.mask_scores[j]
                overlap[i], overlap[:, j] = 0, 0
        return replace(found, masks=masks, mask_scores=scores)
