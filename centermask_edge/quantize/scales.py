"""From histograms to one range per scale group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.observers import (
    PERCENTILE,
    Histogram,
    Observer,
    merged,
    threshold,
)
from centermask_edge.quantize.placement import Sites
from centermask_edge.quantize.qdq import SIGNED_LEVELS, UNSIGNED_LEVELS


class Scales(Protocol):
    """Something that knows how large the values of a tensor get."""

    @property
    def origin(self) -> str:
        """Where the numbers come from, for metadata and reports."""

    def ranges(self, sites: Sites) -> dict[str, float]:
        """Largest magnitude to represent, by scale group.

        Raises:
            QuantizationError: it knows nothing of a tensor.
        """


@dataclass(frozen=True, slots=True)
class ObservedScales:
    """Ranges that an observer chooses from histograms; the same group is worked out once.

    Attributes:
        histograms: by tensor; more than needed may be there.
        observer: how to choose.
        percentile: for ``Observer.PERCENTILE``.
    """

    histograms: Mapping[str, Histogram]
    observer: Observer = Observer.MAX
    percentile: float = PERCENTILE
    _known: dict[tuple[tuple[str, ...], int], float] = field(default_factory=dict, repr=False)

    @property
    def origin(self) -> str:
        """The observer's name."""
        if self.observer is Observer.PERCENTILE:
            return f"{self.observer.value} {self.percentile:g}"
        return str(self.observer.value)

    def ranges(self, sites: Sites) -> dict[str, float]:
        """A group's range comes from all its members together; see :class:`Scales`.

        Raises:
            QuantizationError: a tensor has no histogram, was never seen, or was always zero.
        """
        found = {}
        for group, members in sites.members().items():
            levels = UNSIGNED_LEVELS if members[0] in sites.unsigned else SIGNED_LEVELS
            found[group] = self._range(group, members, levels)
        return found

    def _range(self, group: str, members: tuple[str, ...], levels: int) -> float:
        key = (tuple(sorted(members)), levels)
        if key not in self._known:
            _check_known(members, self.histograms)
            histogram = merged(group, [self.histograms[t] for t in members])
            self._known[key] = threshold(histogram, self.observer, levels, self.percentile)
        return self._known[key]


@dataclass(frozen=True, slots=True)
class FixedScales:
    """Ranges that are given by tensor, for example learnt in training.

    Attributes:
        values: largest magnitude by tensor; a group takes the largest of its members.
        origin: where they come from.
    """

    values: Mapping[str, float]
    origin: str = "fixed"

    def ranges(self, sites: Sites) -> dict[str, float]:
        """See :class:`Scales`."""
        found = {}
        for group, members in sites.members().items():
            _check_known(members, self.values)
            found[group] = max(float(self.values[t]) for t in members)
        return found


def _check_known(members: tuple[str, ...], known: Mapping[str, object]) -> None:
    missing = [t for t in members if t not in known]
    if missing:
        raise QuantizationError(
            f"the calibration holds no range for the activation {missing[0]!r}; it was made for "
            "another model or plan: calibrate again"
        )
