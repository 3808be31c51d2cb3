"""The objects of one camera, followed: identities, masks between key frames, zones and lines."""

from __future__ import annotations

from collections.abc import Sequence

from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.schedule.finish import Found
from centermask_edge.live.track.place_config import LineConfig, ZoneConfig
from centermask_edge.live.track.places import Places
from centermask_edge.live.track.tracker import Tracker, TrackerRules

_LOW = 0.5


def low_score(score: float) -> float:
    """The least box score a follower wants to see, where ``score`` makes an object."""
    return _LOW * score


class TrackFollower:
    """What ``live.schedule.finish.Rules`` takes as the follower of a camera.

    Give it the instances from ``low_score`` on or more; those that belong to no object are left
    out, and frames without masks get the last ones of their objects, moved with the boxes.

    Args:
        rules: how objects are followed.
        zones: areas to watch.
        lines: lines to watch.
    """

    def __init__(
        self,
        rules: TrackerRules | None = None,
        zones: Sequence[ZoneConfig] = (),
        lines: Sequence[LineConfig] = (),
    ) -> None:
        self._tracker = Tracker(rules)
        self._least = low_score(self._tracker.rules.score)
        self._places = Places(zones, lines)

    def __call__(self, frame: Frame, instances: Instances, masks: bool = True) -> Found:
        """Instances, their identities, and what zones and lines saw; see ``Follower``."""
        seen = instances.above(self._least)
        found, ids = self._tracker.follow(seen, frame.arrival_s, masks)
        followed = set(self._tracker.ids.tolist())
        events = self._places.see(found, ids, frame.arrival_s, followed)
        return Found(found, ids, events, self._places.tallies())
