"""Boxes that move at constant velocity, whatever the time between pictures.

A Kalman filter on centre and size, as ByteTrack and SORT have, but in seconds instead of frames:
the camera may pause. The four numbers of a box are taken as independent, so that all filters of a
camera are a few operations on arrays. T objects; times in seconds, places in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

# All in sizes of the object (square root of its area): how far a detected box lies from the true
# one, how fast a new object may be (per second), and how much that changes (per second^1.5).
_MEASURED = 0.05
_SPEED = np.array([1.5, 1.5, 0.3, 0.3])
_CHANGE = np.array([1.0, 1.0, 0.3, 0.3])
_LEAST_SIDE = 1.0


def _to_centres(boxes: Floats) -> Doubles:
    places = boxes.astype(np.float64)
    low, high = places[:, :2], places[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def _sizes(state: Doubles) -> Doubles:
    sides = np.maximum(state[:, 2:], _LEAST_SIDE)
    size: Doubles = np.sqrt(sides[:, :1] * sides[:, 1:])
    return size


@dataclass(slots=True)
class Motion:
    """The motion of T objects.

    Attributes:
        place: float64 (T, 4) centre x, y, width, height.
        speed: float64 (T, 4) of these, per second.
        place_var, cross_var, speed_var: float64 (T, 4) covariances of the two.
    """

    place: Doubles
    speed: Doubles
    place_var: Doubles
    cross_var: Doubles
    speed_var: Doubles

    @classmethod
    def at(cls, boxes: Floats) -> Motion:
        """Objects seen for the first time, float32 (T, 4) xyxy."""
        place = _to_centres(boxes)
        size = _sizes(place)
        nothing = np.zeros_like(place)
        measured = np.broadcast_to((_MEASURED * size) ** 2, place.shape).copy()
        return cls(place, nothing, measured, nothing.copy(), (_SPEED * size) ** 2)

    def predict(self, seconds: float, unseen: NDArray[np.bool_]) -> None:
        """Moves all on; those ``unseen`` (T,) keep their size."""
        self.speed[unseen, 2:] = 0
        change = (_CHANGE * _sizes(self.place)) ** 2
        self.place = self.place + seconds * self.speed
        self.place_var = (
            self.place_var
            + 2 * seconds * self.cross_var
            + seconds**2 * self.speed_var
            + change * (seconds**3 / 3)
        )
        self.cross_var = self.cross_var + seconds * self.speed_var + change * (seconds**2 / 2)
        self.speed_var = self.speed_var + change * seconds

    def correct(self, rows: NDArray[np.int64], boxes: Floats) -> None:
        """Objects ``rows`` (P,) were seen in ``boxes`` float32 (P, 4) xyxy."""
        seen = _to_centres(boxes)
        place_var, cross_var = self.place_var[rows], self.cross_var[rows]
        total = place_var + (_MEASURED * _sizes(seen)) ** 2
        to_place, to_speed = place_var / total, cross_var / total
        surprise = seen - self.place[rows]
        self.place[rows] += to_place * surprise
        self.speed[rows] += to_speed * surprise
        self.place_var[rows] = (1 - to_place) * place_var
        self.cross_var[rows] = (1 - to_place) * cross_var
        self.speed_var[rows] -= to_speed * cross_var

    def boxes(self) -> Floats:
        """Where they are, float32 (T, 4) xyxy, never empty."""
        half = np.maximum(self.place[:, 2:], _LEAST_SIDE) / 2
        centre = self.place[:, :2]
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)

    def select(self, keep: NDArray[np.bool_]) -> Motion:
        """Those where ``keep`` (T,) is true."""
        return Motion(*(getattr(self, f.name)[keep] for f in fields(self)))

    def join(self, other: Motion) -> Motion:
        """These, then the others."""
        return Motion(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )
