"""Zones and lines: pixels decide, once for each time, and nothing is told of who is lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from track_scenes import DISC, FULL, UPPER, Floats, box, scene

from centermask_edge.live.result import Event
from centermask_edge.live.track.areas import line_sides, polygon, zone_area
from centermask_edge.live.track.place_config import LineConfig, Unit, ZoneConfig, check_names
from centermask_edge.live.track.places import Places

RIGHT_HALF = ZoneConfig(name="right", points=((0.5, 0), (1, 0), (1, 1), (0.5, 1)))
# Upwards through the middle: right of it is right on the screen.
DOOR = LineConfig(name="door", start=(0.5, 1), end=(0.5, 0))


def walk(
    places: Places, xs: Sequence[float], y: float = 120, mask: Floats = FULL, start_s: float = 0.0
) -> list[Event]:
    """One object of 20 x 40 pixels with its centre at these places, ten times a second."""
    events: list[Event] = []
    for k, x in enumerate(xs):
        found = scene([box(x, y, 20, 40)], [mask])
        ids = np.ones(len(found), np.int64)
        events += places.see(found, ids, start_s + k / 10, {1})
    return events


def told(events: list[Event]) -> list[str]:
    return [f"{e.kind} {e.place} {e.direction}".rstrip() for e in events]


CORNERS = st.lists(st.tuples(st.floats(-10, 50), st.floats(-10, 40)), min_size=3, max_size=7)


@settings(max_examples=60, deadline=None)
@given(CORNERS)
def test_a_polygon_holds_the_pixels_whose_centre_is_inside(
    corners: list[tuple[float, float]],
) -> None:
    area = polygon(np.array(corners), 30, 40)
    for y, x in [(0, 0), (3, 7), (15, 20), (29, 39), (12, 31)]:
        inside = False
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if (y0 <= y + 0.5) != (y1 <= y + 0.5):
                inside ^= x0 + (y + 0.5 - y0) * ((x1 - x0) / (y1 - y0)) <= x + 0.5
        assert area[y, x] == inside


def test_areas_of_relative_and_of_pixel_points() -> None:
    area = zone_area(RIGHT_HALF, (10, 20))
    assert area[:, 10:].all() and not area[:, :10].any()
    square = ((2, 1), (5, 1), (5, 4), (2, 4))
    pixels = ZoneConfig(name="p", unit=Unit.PIXELS, points=square)
    assert zone_area(pixels, (10, 20)).sum() == 9
    left, right = line_sides(LineConfig(name="l", start=(0.5, 0.8), end=(0.5, 0.2)), (10, 20))
    assert left[2:8, :10].all() and right[2:8, 10:].all()
    assert left.sum() == right.sum() == 60


def test_in_by_half_of_the_pixels_and_out_by_three_tenths() -> None:
    places = Places([RIGHT_HALF])
    # 20 pixels wide, the zone begins at 160: the share inside is (x - 150) / 20.
    assert told(walk(places, [150, 158, 159])) == []
    assert told(walk(places, [160])) == ["enter right"]
    assert told(walk(places, [159, 157, 160, 157, 170])) == []
    (leave,) = walk(places, [156], start_s=7.5)
    assert leave == Event("leave", "right", 1, "person", "", 7.5)
    assert told(walk(places, [159, 157])) == []


def test_it_is_the_mask_that_counts_and_not_the_box() -> None:
    # Half of the box is in the zone, but far less than half of this mask's pixels, or far more.
    assert told(walk(Places([RIGHT_HALF]), [160], mask=UPPER)) == ["enter right"]
    assert told(walk(Places([RIGHT_HALF]), [160], mask=UPPER[:, ::-1].copy())) == []


def test_an_entry_counts_after_the_dwell() -> None:
    zone = RIGHT_HALF.model_copy(update={"dwell_s": 0.45})
    assert told(walk(Places([zone]), [170] * 5)) == []
    (enter,) = walk(Places([zone]), [170] * 9)
    assert enter.time_s == pytest.approx(0.5)
    # Who only passed through neither entered nor left.
    assert told(walk(Places([zone]), [140, 170, 170, 170, 140, 170, 170, 170])) == []


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(20, 300), min_size=1, max_size=25))
def test_crossings_are_those_of_the_path(xs: list[float]) -> None:
    side, expected = "", []
    for x in xs:
        # Shares in whole pixels: a pixel is set where its centre is in the box.
        left, right = np.ceil(x - 10.5), np.ceil(x + 9.5)
        share = np.clip((right - 160) / (right - left), 0, 1)
        now = "right" if share >= 0.6 else "left" if share <= 0.4 else side
        if side and now != side:
            expected.append("cross door in" if now == "right" else "cross door out")
        side = now
    # On the limit itself the last bit of the box decides.
    shares = [(np.ceil(x + 9.5) - 160) / 20 for x in xs]
    if all(abs(s - limit) > 0.06 for s in shares for limit in (0.4, 0.6)):
        assert told(walk(Places([], [DOOR]), xs)) == expected


def test_there_and_back_again_counts_each_time_and_trembling_does_not() -> None:
    there = [100.0 + 5 * k for k in range(25)]
    events = walk(Places([], [DOOR]), [*there, *there[::-1], *there])
    assert told(events) == ["cross door in", "cross door out", "cross door in"]
    assert told(walk(Places([], [DOOR]), [140] + [159, 161] * 20)) == []
    assert told(walk(Places([], [DOOR]), [100, 220, 100])) == ["cross door in", "cross door out"]


def test_around_the_end_of_a_line_is_not_over_it() -> None:
    short = LineConfig(name="door", start=(0.5, 1), end=(0.5, 0.75))  # from row 180 down
    places = Places([], [short])
    events = walk(places, [120], y=210)
    events += [e for y in (200, 180, 150, 120) for e in walk(places, [120], y=y)]
    events += [e for x in (140, 160, 180) for e in walk(places, [x], y=120)]
    events += [e for y in (150, 180, 210) for e in walk(places, [200], y=y)]
    assert told(events) == []
    assert told(walk(places, [180, 140], y=210)) == ["cross door out"]


def test_nothing_is_told_of_the_lost_and_they_go_on_where_they_were() -> None:
    places = Places([RIGHT_HALF], [DOOR])
    assert told(walk(places, [140, 200])) == ["enter right", "cross door in"]
    nobody = scene([])
    assert places.see(nobody, np.zeros(0, np.int64), 1.0, {1}) == ()
    assert told(walk(places, [200])) == []
    assert places.see(nobody, np.zeros(0, np.int64), 1.0, set()) == ()  # gone for good
    assert told(walk(places, [100])) == []


def test_who_has_no_identity_or_no_mask_is_not_looked_at() -> None:
    places = Places([RIGHT_HALF], [DOOR])
    for x, ids in ((140, 0), (200, 0), (200, 0)):
        found = scene([box(x, 120)])
        assert places.see(found, np.array([ids]), 0.0, {1}) == ()
    assert told(walk(places, [140])) == []
    assert told(walk(places, [200], mask=0 * FULL)) == []
    assert told(walk(places, [200])) == ["enter right", "cross door in"]


def test_places_follow_the_size_of_the_picture() -> None:
    places = Places([RIGHT_HALF])
    small = scene([box(70, 50, 20, 40)], [DISC], size=(100, 100))
    large = scene([box(70, 50, 20, 40)], [DISC], size=(300, 300))
    one = np.ones(1, np.int64)
    assert told(list(places.see(small, one, 0.0, {1}))) == ["enter right"]
    assert told(list(places.see(large, one, 0.1, {1}))) == ["leave right"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"points": [[0, 0], [1, 1]]}, "at least 3"),
        ({"points": [[0, 0], [1, 1], [0.5, 0.5]]}, "enclose no area"),
        ({"points": [[0, 0], [640, 0], [640, 480]]}, "unit: pixels"),
        ({"points": [[0, 0], [1, 0], [1, float("nan")]]}, "finite"),
        ({"inside": 0.3, "outside": 0.3}, "less than inside"),
        ({"name": ""}, "at least 1"),
        ({"dwell": 3}, "not permitted"),
    ],
)
def test_zones_that_make_no_sense_are_refused(values: dict[str, object], words: str) -> None:
    good = {"name": "z", "points": [[0, 0], [1, 0], [1, 1]]}
    ZoneConfig.model_validate(good)
    with pytest.raises(ValidationError, match=words):
        ZoneConfig.model_validate({**good, **values})


def test_lines_need_two_points_and_places_names_of_their_own() -> None:
    with pytest.raises(ValidationError, match="same point"):
        LineConfig(name="l", start=(0.5, 0.5), end=(0.5, 0.5))
    check_names([RIGHT_HALF], [DOOR])
    with pytest.raises(ValueError, match="two zones or lines are named 'door'"):
        check_names([RIGHT_HALF.model_copy(update={"name": "door"})], [DOOR])
