"""Follows the objects of one camera, in ByteTrack's manner, with masks.

As in Zhang et al., ByteTrack (2022): predicted boxes are first matched with instances of high
score, what is left over with those of low score, for an occluded object is found with a low one.
Three things differ. Two boxes that overlap may belong to two people who pass each other: overlap
is that of boxes and of masks, half and half. Time is in seconds, as cameras pause and frames are
left out. And objects of different classes are never the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from centermask_edge import boxes as box_maths
from centermask_edge.instances import Instances
from centermask_edge.live.track.assign import assign
from centermask_edge.live.track.overlap import mask_iou
from centermask_edge.live.track.tracks import Tracks

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrackerRules:
    """How objects are followed.

    Attributes:
        score: instances from this box score on are objects by themselves; those below only go on
            with an object that is there.
        hits: frames in a row in which an object has to be seen before it has an identity.
        lost_s: an object unseen for longer is gone.
        reset_s: after so long without frames all are gone.
        mask_share: weight of the masks' overlap against the boxes'; 0 to 1.
        least: overlap from which a high score goes on with an object.
        least_low: the same for a low score.
        least_new: the same for an object without identity.
    """

    score: float = 0.4
    hits: int = 3
    lost_s: float = 1.5
    reset_s: float = 5.0
    mask_share: float = 0.5
    least: float = 0.2
    least_low: float = 0.4
    least_new: float = 0.3


class Tracker:
    """One camera's objects. Equal calls give equal identities, in whatever order instances come.

    Args:
        rules: how to follow.
    """

    def __init__(self, rules: TrackerRules | None = None) -> None:
        self.rules = rules or TrackerRules()
        self._tracks: Tracks | None = None
        self._time_s = 0.0
        self._size = (0, 0)
        self._given = 0

    @property
    def ids(self) -> Ints:
        """Identities that are still followed, seen in the last frame or not."""
        return np.zeros(0, np.int64) if self._tracks is None else self._tracks.ids

    def update(self, found: Instances, time_s: float, masks: bool = True) -> Ints:
        """Identity of each instance, int64 (K,), from 1 on; 0 where it has none (yet).

        Args:
            found: instances of the next frame, those of low score, too.
            time_s: when it was taken, in seconds; frames do not come back.
            masks: whether their masks were computed.
        """
        _, ids = self._identify(self._step(found, time_s, masks))
        return ids

    def follow(self, found: Instances, time_s: float, masks: bool = True) -> tuple[Instances, Ints]:
        """As ``update``, and the instances that count: without those of low score that belong to
        no object; where no masks were computed, with the last ones of their objects.
        """
        rows = self._step(found, time_s, masks)
        has_row, ids = self._identify(rows)
        if self._tracks is not None and not masks:
            maps, scores = np.zeros_like(found.masks), np.zeros_like(found.mask_scores)
            maps[has_row] = self._tracks.masks[rows[has_row]]
            scores[has_row] = self._tracks.mask_scores[rows[has_row]]
            found = replace(found, masks=maps, mask_scores=scores)
        counts = (found.scores >= self.rules.score) | (ids > 0)
        return (found, ids) if counts.all() else (found.select(counts), ids[counts])

    def _identify(self, rows: Ints) -> tuple[Bools, Ints]:
        """Which instances have an object, and the identity of each."""
        ids, has_row = np.zeros(rows.shape, np.int64), rows >= 0
        if self._tracks is not None:
            ids[has_row] = self._tracks.ids[rows[has_row]]
        return has_row, ids

    def _step(self, found: Instances, time_s: float, masks: bool) -> Ints:
        """The object of each instance, int64 (K,) places in ``_tracks``; -1 for none."""
        tracks, before_s = self._moved(found, time_s, masks), self._time_s
        self._time_s, self._size = time_s, found.source_size
        # By score, then place: the order in which instances come decides nothing.
        order = np.lexsort((*found.boxes.T, found.classes, -found.scores))
        found = found.select(order)
        rows = self._matched(tracks, found, before_s, masks)
        seen = rows >= 0
        tracks.see(rows[seen], found.select(seen), time_s, masks)
        fresh = ~seen & (found.scores >= self.rules.score)
        rows[fresh] = len(tracks) + np.arange(fresh.sum())
        tracks = tracks.join(Tracks.begin(found.select(fresh), time_s, masks))
        self._confirm(tracks)
        rows = self._forget(tracks, rows, time_s)
        result = np.empty_like(rows)
        result[order] = rows
        return result

    def _moved(self, found: Instances, time_s: float, masks: bool) -> Tracks:
        """The objects where they should be now; none after a long pause or in another picture."""
        tracks, pause = self._tracks, time_s - self._time_s
        stale = pause > self.rules.reset_s or found.source_size != self._size
        if tracks is None or stale:
            return Tracks.begin(found.select(np.zeros(0, np.int64)), time_s, masks)
        tracks.motion.predict(max(pause, 0.0), tracks.seen_s < self._time_s)
        return tracks

    def _matched(self, tracks: Tracks, found: Instances, before_s: float, masks: bool) -> Ints:
        """The three rounds: high scores, low scores, objects without identity."""
        rules = self.rules
        likeness = self._likeness(tracks, found, masks)
        known, high = tracks.ids > 0, found.scores >= rules.score
        rows = np.full(len(found), -1, np.int64)
        _match(likeness, known, high, rules.least, rows)
        _match(likeness, known & (tracks.seen_s >= before_s), ~high, rules.least_low, rows)
        _match(likeness, ~known, high, rules.least_new, rows)
        return rows

    def _likeness(self, tracks: Tracks, found: Instances, masks: bool) -> Floats:
        """Overlap of each object with each instance, float32 (T, K)."""
        boxes = tracks.motion.boxes()
        likeness = box_maths.iou(boxes, found.boxes)
        likeness[tracks.classes[:, None] != found.classes[None]] = 0
        share = np.float32(self.rules.mask_share)
        if not masks or not share:
            return likeness
        shapes = found.masks >= np.float32(0.5)
        there = np.logical_and.outer(tracks.shapes.any((1, 2)), shapes.any((1, 2)))
        i, j = np.nonzero((likeness > 0) & there)
        if i.size:
            same = mask_iou((boxes, tracks.shapes), (found.boxes, shapes), (i, j))
            likeness[i, j] += share * (same - likeness[i, j])
        return likeness

    def _confirm(self, tracks: Tracks) -> None:
        due = np.flatnonzero((tracks.ids == 0) & (tracks.hits >= self.rules.hits))
        tracks.ids[due] = self._given + 1 + np.arange(due.size)
        self._given += due.size

    def _forget(self, tracks: Tracks, rows: Ints, time_s: float) -> Ints:
        """Lets go of who is gone; returns the new places of ``rows``."""
        unseen_s = time_s - tracks.seen_s
        keep = (unseen_s <= 0) | ((tracks.ids > 0) & (unseen_s <= self.rules.lost_s))
        self._tracks = tracks if keep.all() else tracks.select(keep)
        places = np.cumsum(keep) - 1
        return np.where(rows >= 0, places[rows], -1) if len(tracks) else rows


def _match(likeness: Floats, objects: Bools, instances: Bools, least: float, rows: Ints) -> None:
    """Writes into ``rows`` (K,) the best objects of those instances that have none yet."""
    taken = np.zeros(objects.shape, np.bool_)
    taken[rows[rows >= 0]] = True
    i = np.flatnonzero(objects & ~taken)
    j = np.flatnonzero(instances & (rows < 0))
    if i.size and j.size:
        chosen, partners = assign(likeness[np.ix_(i, j)] - np.float32(least))
        rows[j[partners]] = i[chosen]
