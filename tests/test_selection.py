"""Choosing calibration pictures: what is seen of one, what is left out, what is taken."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from calibration_pictures import Picture, noisy, scene

from centermask_edge.errors import ConfigError
from centermask_edge.quantize.appearance import Looks, look_at
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.facts import Objects, count_facts, facts_of, table
from centermask_edge.quantize.selection import (
    Candidate,
    Keeper,
    Offer,
    Pool,
    Selection,
    choose,
    select,
)


def offers(pictures: list[Picture]) -> Iterator[Offer]:
    return (Offer(f"p{i}", p) for i, p in enumerate(pictures))


def candidate(index: int, *facts: str, seed: int | None = None) -> Candidate:
    look = look_at(scene(index if seed is None else seed))
    return Candidate(index, f"p{index}", None, (64, 96), look, facts or ("brightness: dark",))


def names(selection: Selection) -> list[str]:
    return [c.name for c in selection.chosen]


def boxes(*sides: float) -> np.ndarray:
    return np.array([[0, 0, s, s] for s in sides], np.float32).reshape(-1, 4)


def test_brightness_and_contrast_are_of_the_grey_levels() -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, 20:] = (100, 150, 200)  # B, G, R
    grey = 0.114 * 100 + 0.587 * 150 + 0.299 * 200
    look = look_at(picture)
    assert look.brightness == pytest.approx(grey / 2, rel=1e-5)
    assert look.contrast == pytest.approx(grey / 2, rel=1e-5)
    assert look.largest == 200 and not look.blank


@pytest.mark.parametrize("scale", [2, 7, 16])
def test_noise_is_a_duplicate_and_another_scene_is_not(scale: int) -> None:
    picture = np.repeat(np.repeat(scene(0), scale, axis=0), scale, axis=1)
    looks = Looks.of([look_at(noisy(picture, 1))])
    assert looks.duplicates(look_at(noisy(picture, 2))).all()
    assert not looks.duplicates(look_at(scene(1))).any()
    assert looks.difference(look_at(scene(1)))[0] > 10 * looks.difference(look_at(picture))[0]


def test_the_same_place_at_another_time_of_day_is_no_duplicate() -> None:
    day = look_at(scene(0))
    night = look_at((scene(0) * 0.5).astype(np.uint8))
    assert not Looks.of([day]).duplicates(night).any()


def test_duplicates_agree_in_light_and_in_layout() -> None:
    looks = Looks.of([look_at(scene(0))])
    lighter, mirrored = scene(0) + np.uint8(20), np.ascontiguousarray(scene(0)[:, ::-1])
    bits, colours = looks.parts(look_at(lighter))
    assert bits[0] == 0 and not looks.duplicates(look_at(lighter)).any()
    bits, colours = looks.parts(look_at(mirrored))
    assert colours[0] == 0 and not looks.duplicates(look_at(mirrored)).any()


def test_an_object_that_comes_into_the_scene_is_no_duplicate() -> None:
    empty, visited = scene(0), scene(0)
    visited[8:56, 30:54] = (20, 200, 240)
    assert not Looks.of([look_at(empty)]).duplicates(look_at(visited)).any()


@pytest.mark.parametrize(
    ("picture", "blank"),
    [
        (np.zeros((50, 50, 3), np.uint8), True),
        (np.full((50, 50, 3), 90, np.uint8), True),
        (noisy(np.full((50, 50, 3), 6, np.uint8), 0), True),  # a covered camera is not quite black
        (np.random.default_rng(0).integers(0, 2, (50, 50, 3), dtype=np.uint8), True),
        (scene(0, level=40), False),
        (np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8), False),
    ],
)
def test_what_shows_nothing_is_blank(picture: Picture, blank: bool) -> None:
    assert look_at(picture).blank is blank


def test_facts_name_light_shape_and_objects() -> None:
    look = look_at(scene(0, level=100))
    found = facts_of(look, 100, 200, Objects(boxes(5, 60), ("dog", "traffic light")))
    assert found == (
        "brightness: middle",
        "class: dog",
        "class: traffic light",
        "contrast: soft",
        "object: large traffic light",
        "object: tiny dog",
        "objects: few",
        "shape: wide",
        "size: large",
        "size: tiny",
    )


def test_unknown_objects_are_not_no_objects() -> None:
    look = look_at(scene(0))
    assert not [f for f in facts_of(look, 64, 96, None) if f.startswith("objects")]
    assert "objects: none" in facts_of(look, 64, 96, Objects(boxes(), ()))


def test_a_table_counts_pictures() -> None:
    counts = count_facts([("class: a", "size: tiny"), ("class: b",), ("class: b",)])
    assert table(counts, "class") == [("b", 2), ("a", 1)]
    assert table(counts, "size")[0] == ("tiny", 1)
    assert table(counts, "objects") == []


def test_the_rarest_is_taken_before_more_of_the_same() -> None:
    common = [candidate(i, "size: large") for i in range(20)]
    rare = [candidate(30, "size: tiny"), candidate(31, "size: huge")]
    first = choose([*common, *rare], 3, seed=0)
    assert {20, 21} < set(first)


def test_of_pictures_with_the_same_facts_the_most_unlike_are_taken() -> None:
    near = [candidate(i, seed=0) for i in range(10)]
    far = [candidate(20, seed=5), candidate(21, seed=6)]
    assert {10, 11} < set(choose([*near, *far], 3, seed=0))


def test_a_picture_is_taken_once() -> None:
    chosen = choose([candidate(i) for i in range(12)], 12, seed=0)
    assert sorted(chosen) == list(range(12))


def test_the_seed_decides_between_equals_and_nothing_else_does() -> None:
    same = [candidate(i, seed=0) for i in range(30)]
    firsts = {choose(same, 1, seed)[0] for seed in range(10)}
    assert len(firsts) > 3
    pictures = [scene(i) for i in range(40)]
    once, again = (names(select(offers(pictures), 10, seed=4)) for _ in range(2))
    assert once == again
    assert once != names(select(offers(pictures), 10, seed=5))


def test_the_set_keeps_the_order_of_the_source() -> None:
    chosen = select(offers([scene(i) for i in range(30)]), 12).chosen
    assert [c.index for c in chosen] == sorted(c.index for c in chosen)


def test_duplicates_and_blank_pictures_are_left_out_and_counted() -> None:
    pictures = [scene(i) for i in range(9)]
    again = [noisy(pictures[0], i) for i in range(5)]
    black = [np.zeros((64, 96, 3), np.uint8)] * 3
    found = select(offers([*pictures, *again, *black]), 9)
    assert names(found) == [f"p{i}" for i in range(9)]
    tally = found.tally
    assert (tally.pictures, tally.duplicates, tally.blank, tally.usable) == (17, 5, 3, 9)


def test_a_full_pool_drops_one_of_the_two_most_alike() -> None:
    pool = Pool(4)
    # 1 and 3 show the same scene at slightly other light; all others are far apart.
    items = [candidate(i) for i in range(3)]
    twin = candidate(3, seed=1)
    assert [pool.add(c) for c in (*items, candidate(9))] == [None] * 4
    assert pool.add(twin) is twin  # the later one of equals
    assert {c.index for c in pool.items} == {0, 1, 2, 9}


def test_pictures_that_show_other_things_are_unlike() -> None:
    pool = Pool(3)
    for item in (candidate(0, "a: 1", seed=0), candidate(1, "b: 1", seed=1)):
        pool.add(item)
    pool.add(candidate(2, "c: 1", seed=0))
    near = candidate(3, "b: 1", seed=4)  # a scene of its own, but it shows what 1 does
    assert pool.add(near) is near


def test_a_full_pool_prefers_the_picture_that_shows_more() -> None:
    pool = Pool(3)
    poor, rich = candidate(0, "a: 1", seed=0), candidate(3, "a: 1", "a: 2", seed=0)
    for item in (poor, candidate(1, "b: 1"), candidate(2, "c: 1")):
        pool.add(item)
    assert pool.add(rich) is poor
    assert pool.looks.difference(rich.look).min() == 0  # its looks took the place, too
    assert pool.duplicate(rich.look)


def test_a_pool_stays_consistent_over_many_pictures() -> None:
    pool = Pool(6)
    for index in range(60):
        pool.add(candidate(index))
        size = len(pool.items)
        assert size == min(6, index + 1)
        for row, item in enumerate(pool.items):
            assert np.array_equal(pool.looks.bits[row], item.look.bits)
        inner = pool._unlike[:size, :size]
        assert np.isinf(np.diag(inner)).all() and np.isinf(pool._unlike[size:]).all()
        assert np.array_equal(inner, inner.T)
        expected = [[pool.looks.difference(c.look)[j] for j in range(size)] for c in pool.items]
        off = ~np.eye(size, dtype=bool)
        assert np.allclose(inner[off], np.array(expected)[off])


def test_pictures_are_let_go_while_the_next_are_read() -> None:
    alive: list[weakref.ref[Picture]] = []

    def stream() -> Iterator[Offer]:
        for index in range(60):
            picture = scene(index)
            alive.append(weakref.ref(picture))
            yield Offer(f"p{index}", picture)
            del picture
            assert sum(ref() is not None for ref in alive) <= 2

    assert len(select(stream(), 8).chosen) == 8


def test_the_keeper_holds_what_is_in_the_pool() -> None:
    class Held(Keeper):
        def __init__(self) -> None:
            self.names: set[str] = set()
            self.most = 0

        def keep(self, candidate: Candidate, picture: Picture) -> None:
            self.names.add(candidate.name)
            self.most = max(self.most, len(self.names))

        def drop(self, candidate: Candidate) -> None:
            self.names.remove(candidate.name)

    held = Held()
    found = select(offers([scene(i) for i in range(100)]), 8, keeper=held)
    assert set(names(found)) <= held.names
    assert held.most <= 4 * 8 + 1


def test_the_model_looks_only_where_nothing_is_annotated() -> None:
    asked: list[int] = []

    def detect(picture: Picture) -> Objects:
        asked.append(int(picture[0, 0, 0]))
        return Objects(boxes(30), ("cat",))

    known = Objects(boxes(30), ("dog",))
    mixed = [Offer(f"p{i}", scene(i), objects=known if i % 2 else None) for i in range(8)]
    copies = [Offer("copy", scene(0))]
    found = select([*mixed, *copies], 8, detect=detect)
    assert asked == [int(scene(i)[0, 0, 0]) for i in range(0, 8, 2)]
    assert found.tally.facts["class: cat"] == found.tally.facts["class: dog"] == 4


@pytest.mark.parametrize("count", [0, 7, 1025])
def test_an_impossible_count_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"--count {count}: .*8 to 1024"):
        select([], count)


def test_too_few_pictures_say_how_many_are_wanted() -> None:
    pictures = [*(scene(i) for i in range(9)), *(noisy(scene(0), i) for i in range(4))]
    with pytest.raises(QuantizationError, match=r"too few pictures: 9 .* wanted 16 .*--count 9"):
        select(offers(pictures), 16)
    with pytest.raises(QuantizationError) as error:
        select(offers(pictures[:3]), 16)
    assert "--count" not in str(error.value)


def test_a_black_set_is_refused() -> None:
    black = [np.zeros((64, 96, 3), np.uint8)] * 20
    with pytest.raises(QuantizationError, match="all 20 pictures are black or of one colour"):
        select(offers(black), 8)


def test_pictures_divided_by_255_are_refused() -> None:
    scaled = [(scene(i) // 128).astype(np.uint8) for i in range(10)]
    with pytest.raises(QuantizationError, match=r"10 of 10 pictures hold no value above 1"):
        select(offers(scaled), 8)


def test_a_recording_may_begin_in_the_dark() -> None:
    dark = [(scene(i) // 128).astype(np.uint8) for i in range(5)]
    assert len(select(offers([*dark, *(scene(i) for i in range(8))]), 8).chosen) == 8
