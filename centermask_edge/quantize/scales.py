"""From histograms to one range per scale group."""

from __future__ import annotations

from collections.abc import Mapping

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


def choose_ranges(
    histograms: Mapping[str, Histogram],
    sites: Sites,
    observer: Observer = Observer.MAX,
    percentile: float = PERCENTILE,
) -> dict[str, float]:
    """Largest represented magnitude of every scale group, by group.

    Args:
        histograms: by tensor; more than needed may be there.
        sites: the places; a group's range comes from all its members together.
        observer: how to choose.
        percentile: for ``Observer.PERCENTILE``.

    Raises:
        QuantizationError: a tensor has no histogram, was never seen, or was always zero.
    """
    ranges = {}
    for group, members in sites.members().items():
        missing = [t for t in members if t not in histograms]
        if missing:
            raise QuantizationError(
                f"the calibration holds no range for the activation {missing[0]!r}; it was made "
                "for another model or plan: calibrate again"
            )
        levels = UNSIGNED_LEVELS if members[0] in sites.unsigned else SIGNED_LEVELS
        histogram = merged(group, [histograms[t] for t in members])
        ranges[group] = threshold(histogram, observer, levels, percentile)
    return ranges
