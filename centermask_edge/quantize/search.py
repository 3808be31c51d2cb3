"""The fewest parts left in float with which mask AP stays within the budget.

Everything in 8 bits is tried first. If that loses too much, the most sensitive parts are left in
float: one, two, four, ... of the ranking until the budget holds, then bisection between the last
number that failed and the first that held, then each part that is left in float is tried in 8 bits
again, the one with the most multiply-adds first. Every step is decided by a measured loss, so the
plan that comes out was itself measured. Losses are assumed to fall along the ranking; where they do
not, the plan holds all the same and may keep more than it must.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from centermask_edge.errors import ConfigError
from centermask_edge.quantize.blocks import Unit

EVALUATIONS = 24
Loss = Callable[[tuple[Unit, ...]], float]


class Outcome(Enum):
    """How a search ended."""

    NOTHING_KEPT = "nothing kept"  # all in 8 bits holds the budget
    KEPT = "kept"  # the plan holds, and every part of it was tried in 8 bits
    STOPPED = "stopped"  # the plan holds, but not everything was tried
    NOT_FOUND = "not found"  # no plan was found in the evaluations allowed
    ONLY_FLOAT = "only float"  # nothing but the float network holds
    NOISE = "noise"  # not even the float network holds


@dataclass(frozen=True, slots=True)
class Tried:
    """One evaluation: how many parts were left in float, and points of mask AP lost."""

    kept: tuple[str, ...]
    loss: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        outcome: how it ended.
        kept: parts to leave in float, most sensitive first; of a search that found no plan, those
            with which the least was lost.
        loss: points of mask AP lost with them.
        budget: points that might be lost.
        tried: every evaluation, in order.
        units: number of parts there are.
        floor: loss with everything in float, where that was measured.
    """

    outcome: Outcome
    kept: tuple[Unit, ...]
    loss: float
    budget: float
    tried: tuple[Tried, ...]
    units: int
    floor: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the plan is within the budget."""
        return self.loss <= self.budget

    def sentence(self) -> str:
        """The outcome in plain words."""
        count, best = f"{len(self.kept)} of {self.units} parts", f"{self.loss:.2f} mask AP"
        tried = f"{len(self.tried)} evaluations"
        budget = f"the budget of {self.budget:.2f}"
        if self.outcome is Outcome.NOTHING_KEPT:
            return f"everything in 8 bits loses {best}, within {budget}: nothing is kept in float"
        if self.outcome is Outcome.KEPT:
            return f"{count} kept in float: {best} lost, within {budget} ({tried})"
        if self.outcome is Outcome.STOPPED:
            return (
                f"{count} kept in float: {best} lost, within {budget}; stopped after {tried}, so "
                "fewer may do"
            )
        least = f"the least lost was {best} with {count} in float"
        if self.outcome is Outcome.NOT_FOUND:
            return f"no plan within {budget} was found in {tried}; {least}"
        if self.outcome is Outcome.ONLY_FLOAT:
            return f"no plan holds {budget} but the float model itself ({tried}); {least}"
        return (
            f"no plan can hold {budget}: even with everything in float {self.floor or 0:.2f} mask "
            f"AP are lost, because the graph is written otherwise; {least}"
        )


class _Exhausted(Exception):
    """No evaluation is left."""


class _Ledger:
    """Losses by what is kept; each set is asked for once, up to a number of sets."""

    def __init__(self, loss: Loss, budget: float, evaluations: int) -> None:
        self._loss, self.budget, self._left = loss, budget, evaluations
        self._known: dict[frozenset[str], float] = {}
        self.tried: list[Tried] = []
        self.kept: dict[frozenset[str], tuple[Unit, ...]] = {}

    def holds(self, kept: Sequence[Unit]) -> bool:
        names = frozenset(unit.name for unit in kept)
        if names not in self._known:
            if self._left < 1:
                raise _Exhausted
            self._left -= 1
            self._known[names] = self._loss(tuple(kept))
            self.kept[names] = tuple(kept)
            self.tried.append(Tried(tuple(unit.name for unit in kept), self._known[names]))
        return self._known[names] <= self.budget

    def loss(self, kept: Sequence[Unit]) -> float:
        return self._known[frozenset(unit.name for unit in kept)]

    def least(self) -> tuple[Unit, ...]:
        """What was kept where the least was lost; of several the first."""
        return self.kept[min(self._known, key=lambda names: self._known[names])]


def search(
    ranked: Sequence[Unit],
    loss: Loss,
    budget: float,
    evaluations: int = EVALUATIONS,
    float_loss: Callable[[], float] | None = None,
) -> Found:
    """The parts to leave in float so that the loss stays within the budget.

    Args:
        ranked: all parts, most sensitive first.
        loss: points of mask AP that a model loses with these parts in float; asked at most once
            for each set of parts.
        budget: points that may be lost.
        evaluations: calls of ``loss`` at most. What fails is decided after about
            2 log2(len(ranked)) of them; the rest tries parts in 8 bits again.
        float_loss: points that are lost with everything in float; asked only if nothing holds.

    Raises:
        ConfigError: a negative budget, or no evaluation allowed.
    """
    if not 0 <= budget <= 100:
        raise ConfigError(f"a budget of {budget:g} mask AP; wanted 0 to 100, for example 0.3")
    if evaluations < 1:
        raise ConfigError(f"{evaluations} evaluations; a search needs 1 at least")
    ledger = _Ledger(loss, budget, evaluations)
    kept: tuple[Unit, ...] | None = None
    try:
        enough = _enough(ranked, ledger)
        if enough is not None:
            kept = tuple(ranked[: _fewer(ranked, *enough, ledger)])
            for smaller in _given_back(kept, ledger):
                kept = smaller
    except _Exhausted:
        return _unfinished(ranked, ledger)
    if kept is None:
        return _nothing_holds(ranked, ledger, float_loss)
    outcome = Outcome.KEPT if kept else Outcome.NOTHING_KEPT
    return _found(outcome, kept, ranked, ledger)


def _enough(ranked: Sequence[Unit], ledger: _Ledger) -> tuple[int, int] | None:
    """Numbers of most sensitive parts: the last that failed (-1: none), the first that holds.

    None if no number holds. With all parts in float nothing is quantized, so one is always left.
    """
    fails, count = -1, 0
    while not ledger.holds(ranked[:count]):
        if count >= len(ranked) - 1:
            return None
        fails, count = count, min(max(1, 2 * count), len(ranked) - 1)
    return fails, count


def _fewer(ranked: Sequence[Unit], fails: int, holds: int, ledger: _Ledger) -> int:
    """The smallest number that holds, by bisection between one that fails and one that holds."""
    while holds - fails > 1:
        middle = (holds + fails) // 2
        if ledger.holds(ranked[:middle]):
            holds = middle
        else:
            fails = middle
    return holds


def _given_back(kept: tuple[Unit, ...], ledger: _Ledger) -> list[tuple[Unit, ...]]:
    """What is kept after each part that turned out not to be needed."""
    steps = []
    for unit in sorted(kept, key=lambda unit: -unit.macs):
        without = tuple(other for other in kept if other is not unit)
        if ledger.holds(without):
            kept = without
            steps.append(kept)
    return steps


def _unfinished(ranked: Sequence[Unit], ledger: _Ledger) -> Found:
    holding = [kept for kept in ledger.kept.values() if ledger.holds(kept)]
    if not holding:
        return _found(Outcome.NOT_FOUND, ledger.least(), ranked, ledger)
    fewest = min(holding, key=lambda kept: (len(kept), sum(unit.macs for unit in kept)))
    return _found(Outcome.STOPPED, fewest, ranked, ledger)


def _nothing_holds(
    ranked: Sequence[Unit], ledger: _Ledger, float_loss: Callable[[], float] | None
) -> Found:
    floor = float_loss() if float_loss is not None else None
    noise = floor is not None and floor > ledger.budget
    outcome = Outcome.NOISE if noise else Outcome.ONLY_FLOAT
    return _found(outcome, ledger.least(), ranked, ledger, floor)


def _found(
    outcome: Outcome,
    kept: tuple[Unit, ...],
    ranked: Sequence[Unit],
    ledger: _Ledger,
    floor: float | None = None,
) -> Found:
    return Found(
        outcome, kept, ledger.loss(kept), ledger.budget, tuple(ledger.tried), len(ranked), floor
    )
