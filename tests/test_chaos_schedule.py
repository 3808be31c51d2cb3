"""What a schedule says, and what is said of one that cannot be read."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centermask_edge.errors import ConfigError
from centermask_edge.live.chaos.schedule import (
    USUAL_S,
    Event,
    Mishap,
    Schedule,
    parse_schedule,
)

tenths = st.integers(1, 500).map(lambda tenth: tenth / 10)


@st.composite
def in_turn(draw: st.DrawFn) -> list[Event]:
    """Mishaps of three cameras one after the other."""
    now = 0.0
    events = []
    for _ in range(draw(st.integers(1, 8))):
        now += draw(tenths)
        mishap = draw(st.sampled_from(list(Mishap)))
        lasts = 0.0 if mishap is Mishap.RESET and draw(st.booleans()) else draw(tenths)
        events.append(Event(mishap, round(now, 1), lasts, draw(st.integers(0, 3))))
        now += lasts
    return events


@given(in_turn(), st.randoms(use_true_random=False))
def test_what_is_written_is_read_again_in_any_order(events: list[Event], chance: object) -> None:
    parts = [str(event) for event in events]
    chance.shuffle(parts)  # type: ignore[attr-defined]
    read = parse_schedule(" , ".join(parts), cameras=3)
    assert read == Schedule(tuple(events))
    assert parse_schedule(str(read), cameras=3) == read


@given(in_turn())
def test_a_camera_has_its_own_and_those_of_all(events: list[Event]) -> None:
    schedule = parse_schedule(",".join(map(str, events)), cameras=3)
    for camera in (1, 2, 3):
        mine = [event for event in events if event.camera in (0, camera)]
        changes = list(schedule.changes(camera))
        assert changes[::2] == [(event.start_s, event.mishap) for event in mine]
        assert changes[1::2] == [(event.end_s, None) for event in mine]
        assert [at for at, _ in changes] == sorted(at for at, _ in changes)


@given(in_turn(), st.data())
def test_two_at_a_time_are_refused(events: list[Event], data: st.DataObject) -> None:
    struck = data.draw(st.sampled_from(events))
    inside = round(struck.start_s + struck.duration_s * data.draw(st.sampled_from((0, 0.5))), 3)
    camera = struck.camera or data.draw(st.integers(0, 3))
    more = Event(Mishap.LOSS, inside, 1.0, camera)
    with pytest.raises(ConfigError, match="meet; a camera takes one at a time"):
        parse_schedule(",".join(map(str, [*events, more])), cameras=3)


def test_two_cameras_may_go_wrong_at_once() -> None:
    assert len(parse_schedule("freeze@1+5#1,freeze@1+5#2", cameras=2).events) == 2


def test_one_may_begin_when_the_other_is_over() -> None:
    assert len(parse_schedule("freeze@1+5,loss@6+1,reset@7", cameras=1).events) == 3


def test_what_is_left_out() -> None:
    read = parse_schedule("FREEZE@10,reset@20,huge_sdp@30", cameras=1)
    assert [event.duration_s for event in read.events] == [USUAL_S, 0.0, USUAL_S]
    assert str(read) == "freeze@10+5,reset@20,huge-sdp@30+5"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read; wanted for example freeze@10+5"),
        ("freeze", "'freeze' cannot be read"),
        ("freeze@-1", "cannot be read"),
        ("freeze@1+nan", "cannot be read"),
        ("freeze@1,", "'' cannot be read"),
        ("random:x", "'random:x' cannot be read"),
        ("melt@1", "there is no 'melt'; there are freeze, reset"),
        ("freeze@1+0", "out of range; wanted a duration of at least 0.1 s"),
        ("loss@1+9999999", "out of range"),
        ("loss@9999999", "out of range"),
        ("loss@1#0", "names camera 0; there are 1 to 2"),
        ("loss@1#3", "names camera 3; there are 1 to 2"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedule(text, cameras=2)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_schedule(text, cameras=1)
    except ConfigError as error:
        assert str(error).startswith("chaos: ") and len(str(error).splitlines()) == 1


def test_random_is_the_same_for_a_seed_and_another_for_each_camera() -> None:
    def some(text: str, camera: int) -> list[tuple[float, Mishap | None]]:
        return list(itertools.islice(parse_schedule(text, 2).changes(camera), 400))

    first = some("random:7", 1)
    assert first == some("random:7", 1)
    assert first != some("random:7", 2) and first != some("random", 1)
    assert {mishap for _, mishap in first} == {None, *Mishap} - {Mishap.UNAUTHORISED}
    assert all(later >= at for (at, _), (later, _) in itertools.pairwise(first))
    assert all(mishap is None for _, mishap in first[1::2])
