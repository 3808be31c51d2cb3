"""What a tracker knows of the objects of one camera, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centermask_edge.instances import Instances
from centermask_edge.live.track.motion import Motion

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_HALF = np.float32(0.5)


@dataclass(slots=True)
class Tracks:
    """T objects.

    Attributes:
        ids: int64 (T,) identity from 1 on; 0 for one that is not confirmed.
        classes: int64 (T,).
        hits: int64 (T,) times it was seen.
        seen_s: float64 (T,) time it was last seen.
        masks: float32 (T, M, M) its last mask, inside its box; zeros where none was computed yet.
        shapes: bool (T, M, M) where that is at least 0.5.
        mask_scores: float32 (T,).
        motion: of their boxes.
    """

    ids: Ints
    classes: Ints
    hits: Ints
    seen_s: NDArray[np.float64]
    masks: Floats
    shapes: Bools
    mask_scores: Floats
    motion: Motion

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    @classmethod
    def begin(cls, found: Instances, time_s: float, masks: bool) -> Tracks:
        """An object for each instance, not confirmed."""
        count = len(found)
        maps = found.masks if masks else np.zeros_like(found.masks)
        scores = found.mask_scores if masks else np.zeros_like(found.mask_scores)
        return cls(
            np.zeros(count, np.int64),
            found.classes.copy(),
            np.ones(count, np.int64),
            np.full(count, time_s),
            maps.copy(),
            maps >= _HALF,
            scores.copy(),
            Motion.at(found.boxes),
        )

    def see(self, rows: Ints, found: Instances, time_s: float, masks: bool) -> None:
        """Objects ``rows`` (K,) are these instances."""
        self.hits[rows] += 1
        self.seen_s[rows] = time_s
        self.motion.correct(rows, found.boxes)
        if masks:
            self.masks[rows] = found.masks
            self.shapes[rows] = found.masks >= _HALF
            self.mask_scores[rows] = found.mask_scores

    def select(self, keep: Bools) -> Tracks:
        """Those where ``keep`` (T,) is true."""
        return Tracks(
            self.ids[keep],
            self.classes[keep],
            self.hits[keep],
            self.seen_s[keep],
            self.masks[keep],
            self.shapes[keep],
            self.mask_scores[keep],
            self.motion.select(keep),
        )

    def join(self, other: Tracks) -> Tracks:
        """These, then the others."""
        return Tracks(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.classes, other.classes]),
            np.concatenate([self.hits, other.hits]),
            np.concatenate([self.seen_s, other.seen_s]),
            np.concatenate([self.masks, other.masks]),
            np.concatenate([self.shapes, other.shapes]),
            np.concatenate([self.mask_scores, other.mask_scores]),
            self.motion.join(other.motion),
        )
