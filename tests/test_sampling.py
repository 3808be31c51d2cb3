"""The order of training: every picture, the stated shares, and the same again after a stop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centermask_edge.data.coco import Sample
from centermask_edge.data.sampling import BatchSampler, Pool


def sample(*, masked: bool = True, upright: bool = False, objects: int = 1) -> Sample:
    return Sample(
        0,
        Path("x.png"),
        40 if upright else 60,
        60 if upright else 40,
        np.zeros((objects, 4)),
        np.zeros(objects, np.int64),
        ((np.zeros(6),),) * objects if masked else None,
        np.zeros((0, 4)),
    )


MIXED = [sample(masked=m, upright=u) for m in (True, False) for u in (True, False)] * 5


@settings(max_examples=30)
@given(st.integers(1, 9), st.lists(st.integers(1, 7), min_size=1, max_size=8), st.integers(0, 99))
def test_a_pool_gives_everything_before_anything_again(
    size: int, draws: list[int], seed: int
) -> None:
    pool = Pool(range(100, 100 + size), seed)
    drawn = [i for count in draws for i in pool.draw(count)]
    for start in range(0, len(drawn), size):
        epoch = drawn[start : start + size]
        assert len(set(epoch)) == len(epoch) and set(epoch) <= set(range(100, 100 + size))
    assert Pool(range(100, 100 + size), seed).draw(len(drawn)) == drawn


def test_every_epoch_has_its_own_order() -> None:
    pool = Pool(range(20), 0)
    first, second = pool.draw(20), pool.draw(20)
    assert sorted(first) == sorted(second) == list(range(20)) and first != second


@pytest.mark.parametrize("share", [0.0, 0.25, 0.3, 0.75, 1.0])
def test_share_of_pictures_with_masks(share: float) -> None:
    sampler = BatchSampler(MIXED, 4, share, 0)
    counts = [sum(MIXED[i].polygons is not None for i in sampler.next()) for _ in range(300)]
    assert set(counts) <= {int(4 * share), int(np.ceil(4 * share))}
    assert np.mean(counts) / 4 == pytest.approx(share, abs=0.02)


def test_natural_share() -> None:
    samples = [sample()] * 1 + [sample(masked=False)] * 3
    sampler = BatchSampler(samples, 4, None, 0)
    assert all(sorted(sampler.next()) == [0, 1, 2, 3] for _ in range(5))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 1.0])
def test_a_share_that_cannot_be_had_gives_what_there_is(masked: bool, share: float | None) -> None:
    samples = [sample(masked=masked, upright=i < 2) for i in range(6)]
    sampler = BatchSampler(samples, 3, share, 0)
    drawn = Counter(i for _ in range(60) for i in sampler.next())
    assert sum(drawn.values()) == 180 and set(drawn) == set(range(6))


def test_a_batch_is_upright_or_landscape() -> None:
    sampler = BatchSampler(MIXED, 4, 0.5, 0)
    kinds = []
    for _ in range(200):
        kinds.append({MIXED[i].height > MIXED[i].width for i in sampler.next()})
    assert all(len(kind) == 1 for kind in kinds)
    assert 70 < sum(kind == {True} for kind in kinds) < 130


def test_orientations_come_in_their_natural_share() -> None:
    samples = [sample(upright=i == 0) for i in range(10)]
    sampler = BatchSampler(samples, 2, None, 0)
    upright = sum(samples[sampler.next()[0]].height == 60 for _ in range(400))
    assert 20 < upright < 65


def test_pictures_without_objects_are_left_out() -> None:
    samples = [sample(objects=0), sample(), sample(objects=0, masked=False)]
    sampler = BatchSampler(samples, 2, None, 0)
    assert [sampler.next() for _ in range(3)] == [[1, 1]] * 3
    with pytest.raises(ValueError, match="no picture has an object"):
        BatchSampler([sample(objects=0)], 2, None, 0)


@settings(max_examples=30)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5))
def test_a_restored_sampler_continues(before: int, elsewhere: int, seed: int) -> None:
    sampler = BatchSampler(MIXED, 3, 0.4, seed)
    for _ in range(before):
        sampler.next()
    state = sampler.state()
    following = [sampler.next() for _ in range(12)]
    other = BatchSampler(MIXED, 3, 0.4, seed)
    for _ in range(elsewhere):  # one that was used before it was restored, too
        other.next()
    other.restore(state)
    assert [other.next() for _ in range(12)] == following


def test_another_seed_is_another_order() -> None:
    orders = [[BatchSampler(MIXED, 8, 0.5, seed).next() for _ in range(3)] for seed in range(4)]
    assert len({str(order) for order in orders}) == 4
