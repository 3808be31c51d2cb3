"""Which pictures to calibrate with: those that between them show the most.

Pictures are looked at once, in order, in constant memory: near-duplicates are dropped at once, and
of the rest a pool is kept from which the more redundant of the two most alike pictures is dropped
whenever it is full. From the pool the set is taken greedily. The n-th picture that shows a fact
(a size, a class, a brightness) gains 1/n by it, and every picture gains by how unlike it is to
those already taken. Both gains only shrink as the set grows, which is what makes greedy good.

Shape legend: P pictures, F facts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import ConfigError
from centermask_edge.quantize.appearance import Look, Looks, look_at
from centermask_edge.quantize.collect import Picture
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.facts import Objects, facts_of

DEFAULT_COUNT = 128
FEWEST, MOST = 8, 1024
_POOL = 4  # candidates kept for each picture wanted
_DIVERSITY = 1.0  # facts that a scene unlike all others is worth

Detect = Callable[[Picture], Objects]


@dataclass(frozen=True, slots=True)
class Offer:
    """A picture that could be taken.

    Attributes:
        name: for the record.
        picture: uint8 (H, W, 3) BGR.
        path: the file it is; None for a frame, whose pixels are then kept.
        objects: annotated ones; None where there are no annotations.
    """

    name: str
    picture: Picture
    path: Path | None = None
    objects: Objects | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is remembered of a picture.

    Attributes:
        index: position in the source.
        name: see :class:`Offer`.
        path: see :class:`Offer`.
        size: (height, width) in pixels.
        look: how it looks.
        facts: what it shows.
    """

    index: int
    name: str
    path: Path | None
    size: tuple[int, int]
    look: Look
    facts: tuple[str, ...]


class Keeper:
    """Holds the pixels of candidates that are no files; this one holds none."""

    def keep(self, candidate: Candidate, picture: Picture) -> None:
        """Called when a candidate enters the pool."""

    def drop(self, candidate: Candidate) -> None:
        """Called when it leaves the pool."""


@dataclass(slots=True)
class Tally:
    """What became of the pictures that were looked at.

    Attributes:
        pictures: number looked at.
        blank: of one colour or black.
        scaled: of them, those whose values end at 1: pictures that were divided by 255.
        duplicates: near-duplicates of one already there.
        facts: number of the others that show each fact.
    """

    pictures: int = 0
    blank: int = 0
    scaled: int = 0
    duplicates: int = 0
    facts: Counter[str] = field(default_factory=Counter)

    @property
    def usable(self) -> int:
        """Pictures that show something new."""
        return self.pictures - self.blank - self.duplicates


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen pictures, in the order of the source, and what they were chosen from."""

    chosen: tuple[Candidate, ...]
    tally: Tally


class Pool:
    """The candidates: so many at most, and no two alike.

    Args:
        capacity: most candidates held.
    """

    def __init__(self, capacity: int) -> None:
        self.items: list[Candidate] = []
        self._capacity = capacity
        self._unlike = np.full((capacity + 1, capacity + 1), np.inf, np.float32)
        self._stacked = Looks.empty(capacity + 1)

    @property
    def looks(self) -> Looks:
        """Those of the candidates, in the order of ``items``."""
        return self._stacked.first(len(self.items))

    def duplicate(self, look: Look) -> bool:
        """Whether a picture of those looks is there."""
        return bool(self.looks.duplicates(look).any())

    def add(self, candidate: Candidate) -> Candidate | None:
        """Takes a candidate in; the one that had to leave for it, which may be itself."""
        count = len(self.items)
        if count:
            row = self.looks.difference(candidate.look)
            row = row + np.array([_other_facts(candidate, c) for c in self.items], np.float32)
            self._unlike[count, :count] = row
            self._unlike[:count, count] = row
        self._stacked.put(count, candidate.look)
        self.items.append(candidate)
        return self._thin() if len(self.items) > self._capacity else None

    def _thin(self) -> Candidate:
        pair = divmod(int(self._unlike.argmin()), len(self._unlike))
        index = min(pair, key=lambda i: (len(self.items[i].facts), -self.items[i].index))
        leaving = self.items[index]
        last = len(self.items) - 1
        if index != last:  # the last one takes its place
            self.items[index] = self.items[last]
            self._stacked.put(index, self.items[last].look)
            self._unlike[index] = self._unlike[last]
            self._unlike[:, index] = self._unlike[:, last]
            self._unlike[index, index] = np.inf
        self.items.pop()
        self._unlike[last] = np.inf
        self._unlike[:, last] = np.inf
        return leaving


def _other_facts(one: Candidate, other: Candidate) -> float:
    """Share of the facts of both that only one of them shows."""
    mine, its = set(one.facts), set(other.facts)
    return 1 - len(mine & its) / len(mine | its)


def select(
    offers: Iterable[Offer],
    count: int = DEFAULT_COUNT,
    *,
    seed: int = 0,
    detect: Detect | None = None,
    keeper: Keeper | None = None,
) -> Selection:
    """The pictures that between them show the most.

    Args:
        offers: the pictures, read once and in order.
        count: number wanted.
        seed: decides between pictures that are worth the same.
        detect: finds the objects in pictures without annotations; None leaves them unknown.
        keeper: told which candidates' pixels to hold.

    Raises:
        ConfigError: an impossible count.
        QuantizationError: too few pictures that differ and show something.
    """
    check_count(count)
    keeper = keeper or Keeper()
    pool, tally = Pool(_POOL * count), Tally()
    for candidate, picture in _candidates(offers, pool, tally, detect):
        leaving = pool.add(candidate)
        if leaving is not candidate:
            keeper.keep(candidate, picture)
            if leaving is not None:
                keeper.drop(leaving)
    _check(tally, count)
    items = sorted(pool.items, key=lambda c: c.index)
    chosen = choose(items, count, seed)
    return Selection(tuple(items[i] for i in sorted(chosen)), tally)


def check_count(count: int) -> None:
    """Nothing, if so many pictures make a calibration set.

    Raises:
        ConfigError: they do not.
    """
    if not FEWEST <= count <= MOST:
        raise ConfigError(
            f"--count {count}: a calibration set has {FEWEST} to {MOST} pictures; "
            f"{DEFAULT_COUNT} are enough for most"
        )


def _candidates(
    offers: Iterable[Offer], pool: Pool, tally: Tally, detect: Detect | None
) -> Iterator[tuple[Candidate, Picture]]:
    for index, offer in enumerate(offers):
        look = look_at(offer.picture)
        tally.pictures += 1
        if look.blank:
            tally.blank += 1
            tally.scaled += look.largest == 1
            continue
        if pool.duplicate(look):
            tally.duplicates += 1
            continue
        height, width = offer.picture.shape[:2]
        objects = offer.objects
        if objects is None and detect is not None:
            objects = detect(offer.picture)
        facts = facts_of(look, height, width, objects)
        tally.facts.update(facts)
        yield (
            Candidate(index, offer.name, offer.path, (height, width), look, facts),
            offer.picture,
        )


def _check(tally: Tally, count: int) -> None:
    if 2 * tally.scaled > tally.pictures:
        raise QuantizationError(
            f"{tally.scaled} of {tally.pictures} pictures hold no value above 1, as pictures do "
            "that were divided by 255; give them as they were recorded, with values from 0 to "
            "255: normalising is done later, as the model's metadata says"
        )
    if tally.pictures and tally.blank == tally.pictures:
        raise QuantizationError(
            f"all {tally.pictures} pictures are black or of one colour (a covered camera, or "
            "values from 0 to 1 instead of 0 to 255?), so they show nothing to calibrate with; "
            f"wanted {count} that the model will see"
        )
    if tally.usable < count:
        lower = f", or --count {tally.usable}" if tally.usable >= FEWEST else ""
        raise QuantizationError(
            f"too few pictures: {tally.usable} differ and show something, wanted {count} "
            f"(looked at {tally.pictures}: {tally.duplicates} near-duplicates, {tally.blank} "
            f"black or of one colour); give more, or a longer recording{lower}"
        )


def choose(candidates: Sequence[Candidate], count: int, seed: int) -> list[int]:
    """Greedily, the ``count`` candidates with the largest gains; the first taken first."""
    shows = _matrix(candidates)
    looks = Looks.of([c.look for c in candidates])
    # Equal gains go by this order: argmax takes the first.
    order = np.random.default_rng(seed).permutation(len(candidates))
    times = np.zeros(shows.shape[1])
    unlike = np.ones(len(candidates))
    left = np.ones(len(candidates), bool)
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        gain = shows @ (1 / (1 + times)) + _DIVERSITY * unlike
        # Rounded, so that the order of a sum does not decide.
        gain = np.where(left, gain.round(6), -np.inf)
        best = int(order[int(gain[order].argmax())])
        chosen.append(best)
        left[best] = False
        times += shows[best]
        unlike = np.minimum(unlike, looks.difference(candidates[best].look))
    return chosen


def _matrix(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """(P, F): 1 where a picture shows a fact."""
    names = sorted({name for c in candidates for name in c.facts})
    index = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(candidates), len(names)))
    for row, candidate in enumerate(candidates):
        matrix[row, [index[name] for name in candidate.facts]] = 1
    return matrix
