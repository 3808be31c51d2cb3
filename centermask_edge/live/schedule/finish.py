"""From what the engine found to results: instances in the picture's pixels, followed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.result import Event, Result, Tally
from centermask_edge.live.schedule.inference import Segmented
from centermask_edge.measure.stages import Stage


class Found(NamedTuple):
    """What is in a frame, followed.

    Attributes:
        instances: those that count.
        ids: int64 (K,) identity of each; 0 where it has none (yet).
        events: what zones and lines saw.
        tallies: what they have counted.
    """

    instances: Instances
    ids: NDArray[np.int64]
    events: tuple[Event, ...] = ()
    tallies: tuple[Tally, ...] = ()


class Follower(Protocol):
    """Follows the objects of one camera from frame to frame."""

    def __call__(self, frame: Frame, instances: Instances, masks: bool) -> Found:
        """Instances, their identities, and what zones and lines saw.

        Args:
            frame: the next one of that camera.
            instances: in it, all that the engine found; those that are no object are to be left
                out.
            masks: whether their masks were computed; otherwise those of the frames before are to
                be moved along.
        """


@dataclass(frozen=True, slots=True)
class Rules:
    """How frames become results.

    Attributes:
        batch: most frames of one call of the engine.
        score: least box score, where a camera has no follower that decides.
        scores: the same of cameras that have one of their own, by name.
        followers: of cameras whose objects are followed, by name.
    """

    batch: int = 1
    score: float = 0.4
    scores: Mapping[str, float] = field(default_factory=dict)
    followers: Mapping[str, Follower] = field(default_factory=dict)


def finish(
    segmented: Segmented, i: int, number: int, rules: Rules, names: tuple[str, ...]
) -> Result:
    """The result of frame ``i`` of a batch; its age is that at the end of this call.

    Args:
        segmented: the batch.
        i: place of the frame in it.
        number: of the batch.
        rules: least scores and followers.
        names: class names of the model.
    """
    item = segmented.frames[i]
    frame = item.frame
    start = time.perf_counter()
    found = Instances.from_detections(segmented.raw, i, item.placement, names)
    follow = rules.followers.get(frame.camera)
    if follow is not None:
        found, tracks, events, tallies = follow(frame, found, item.mode.masks)
    else:
        found = found.above(rules.scores.get(frame.camera, rules.score))
        tracks, events, tallies = np.zeros(len(found), np.int64), (), ()
    stages = {
        Stage.PREPROCESS: item.prepare_s,
        Stage.ENGINE: segmented.engine_s,
        Stage.MASKS: time.perf_counter() - start,
    }
    age = time.monotonic() - frame.arrival_s
    return Result(frame, found, tracks, events, age, stages, item.mode, number, tallies)
