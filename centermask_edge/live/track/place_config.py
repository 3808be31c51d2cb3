"""Settings of zones and lines, checked."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Point = tuple[
    Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(allow_inf_nan=False)]
]


class Unit(str, Enum):
    """Of points."""

    RELATIVE = "relative"
    PIXELS = "pixels"


class _Place(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=80, description="What events call it.")
    unit: Unit = Field(
        Unit.RELATIVE, description="Points are shares of width and height, 0 to 1, or pixels."
    )

    def _check(self, points: Sequence[Point]) -> None:
        most = max(abs(value) for point in points for value in point)
        # A little outside is fine: a zone may reach over the edge.
        if self.unit is Unit.RELATIVE and most > 2:
            raise ValueError("points are shares of the picture, 0 to 1; for others, unit: pixels")


class ZoneConfig(_Place):
    """An area. Who is in it is decided by the pixels of masks."""

    points: tuple[Point, ...] = Field(
        min_length=3, description="Corners of a polygon, [x, y] each; it closes by itself."
    )
    inside: float = Field(
        0.5, gt=0, le=1, description="In, when at least this share of the mask is in the zone."
    )
    outside: float = Field(
        0.3, ge=0, lt=1, description="Out again, when no more than this share is in the zone."
    )
    dwell_s: float = Field(
        0.0, ge=0, le=3600, description="An entry counts after so many seconds in the zone."
    )

    @model_validator(mode="after")
    def _sensible(self) -> ZoneConfig:
        self._check(self.points)
        if self.outside >= self.inside:
            raise ValueError("outside has to be less than inside")
        if abs(_twice_area(self.points)) < 1e-9:
            raise ValueError("the points of the zone enclose no area")
        return self


class LineConfig(_Place):
    """A line from start to end. Over it from left to right, seen from its start, is ``in``."""

    start: Point = Field(description="[x, y]")
    end: Point = Field(description="[x, y]")
    over: float = Field(
        0.6,
        gt=0.5,
        le=1,
        description="On a side, when at least this share of the mask before the line is there.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> LineConfig:
        self._check((self.start, self.end))
        if self.start == self.end:
            raise ValueError("start and end of the line are the same point")
        return self


class FollowConfig(BaseModel):
    """How the objects of a camera are followed."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    score: float | None = Field(None, ge=0, le=1, description="Least box score, of this camera.")
    zones: tuple[ZoneConfig, ...] = Field((), description="Areas; who enters and leaves is told.")
    lines: tuple[LineConfig, ...] = Field((), description="Lines; who crosses them is counted.")

    @model_validator(mode="after")
    def _distinct(self) -> FollowConfig:
        check_names(self.zones, self.lines)
        return self


def check_names(zones: Sequence[ZoneConfig], lines: Sequence[LineConfig]) -> None:
    """Nothing, if all names of a camera differ.

    Raises:
        ValueError: two are the same.
    """
    names = [place.name for place in (*zones, *lines)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two zones or lines are named {twice!r}; give each its own name")


def _twice_area(points: Sequence[Point]) -> float:
    following = (*points[1:], points[0])
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, following, strict=True))
