"""How much each part of the network suffers from 8 bits: a ranking by signal and noise.

The noise of each part alone in 8 bits is measured on a few pictures (see
:mod:`centermask_edge.quantize.probe`). The score is noise over signal, summed over the kinds of
output, so that the kind that suffers most decides. It is a proxy: whether a budget of mask AP holds
is for the search to measure.

For the first of the ranking the opposite is measured, too: by how much the noise of everything in
8 bits falls when this part is left in float. It says whether errors simply add up, and is no ground
to rank by: it is the difference of two large noises, and what it says of a part that contributes
little is chance (docs/quantization.md has figures).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from centermask_edge.errors import require
from centermask_edge.quantize.blocks import Unit
from centermask_edge.quantize.journal import Journal, fingerprint
from centermask_edge.quantize.probe import CELLS, KINDS, ROIS, Noise, Probe

# Scores are compared to so many digits: of two that are as good as equal the cheaper comes first.
_DIGITS = 2
_CONFIRMED = 8
_METHOD = 1  # part of the key of every result; raise it when noise is measured otherwise


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One part, measured.

    Attributes:
        unit: the part.
        alone: noise over signal by kind, with nothing but it in 8 bits.
        saved: by how much noise over signal falls when it alone is left in float; negative where
            its error undid another's; empty where it was not measured.
    """

    unit: Unit
    alone: dict[str, float]
    saved: dict[str, float]

    @property
    def score(self) -> float:
        """What it is ranked by: noise over signal, all kinds together."""
        return sum(self.alone.values())


@dataclass(frozen=True, slots=True)
class Ranking:
    """All parts, most sensitive first.

    Attributes:
        key: hash of everything the measurement depends on.
        pictures: number measured on.
        everything: noise over signal by kind, with all of the plan in 8 bits.
        levels: signal to noise in dB of every compared tensor, with all of the plan in 8 bits.
        parts: the measured parts.
    """

    key: str
    pictures: int
    everything: dict[str, float]
    levels: dict[str, float | None]
    parts: tuple[Sensitivity, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        """The parts, most sensitive first."""
        return tuple(part.unit for part in self.parts)

    def of(self, unit: Unit) -> Sensitivity:
        """The measurement of a part."""
        return next(part for part in self.parts if part.unit.name == unit.name)

    def to_json(self) -> dict[str, Any]:
        """Plain values; ratios in dB, None where there was no noise or nothing to compare."""
        return {
            "key": self.key,
            "pictures": self.pictures,
            "everything_db": {kind: decibels(v) for kind, v in self.everything.items()},
            "tensors_db": self.levels,
            "parts": [
                {
                    "name": part.unit.name,
                    "block": part.unit.block,
                    "keep_float": list(part.unit.patterns),
                    "macs": part.unit.macs,
                    "score": part.score,
                    "alone_db": {kind: decibels(v) for kind, v in part.alone.items()},
                    "saved": part.saved,
                }
                for part in self.parts
            ],
        }


def decibels(noise_over_signal: float) -> float | None:
    """Signal to noise in dB; None for no noise.

    >>> decibels(0.01), decibels(0.0)
    (20.0, None)
    """
    return None if noise_over_signal <= 0 else round(-10 * math.log10(noise_over_signal), 2)


def measure(
    probe: Probe,
    units: Sequence[Unit],
    made_from: Any,
    path: Path | None = None,
    progress: Callable[[int, int], Any] = lambda done, total: None,
    confirmed: int = _CONFIRMED,
) -> Ranking:
    """Every part measured and ranked; parts that were measured before are not measured again.

    Args:
        probe: the model, the plan and the pictures.
        units: layers or blocks.
        made_from: plain data that names the calibration, the plan and the pictures, by hash where
            they are large; together with the ranges it is the key of every result.
        path: of the journal; None keeps none.
        progress: called with measurements done and their number.
        confirmed: parts of which ``saved`` is measured.

    Raises:
        QuantizationError: the journal cannot be written.
    """
    key = _key(probe, made_from)
    journal = Journal(path)
    nodes = frozenset(edge.node for edge in probe.sites.edges)

    def noise(part: str, chosen: frozenset[str]) -> Noise:
        name = f"{key}/{part}"
        known = journal.get(name)
        if known is None:
            known = probe.noise(chosen)
            journal.put(name, known)
        return {str(tensor): float(value) for tensor, value in known.items()}

    confirmed = min(confirmed, len(units))
    total = len(units) + confirmed
    progress(0, total)
    everything = noise("all", nodes)
    parts = []
    for done, unit in enumerate(units, start=1):
        alone = noise(f"only {unit.name}", frozenset(unit.nodes))
        parts.append(Sensitivity(unit, _ratios(probe, alone), {}))
        progress(done, total)
    parts.sort(key=_order)
    for index, part in enumerate(parts[:confirmed]):
        rest = nodes - frozenset(part.unit.nodes)
        left = noise(f"but {part.unit.name}", rest) if rest else {}
        saved = {tensor: value - left.get(tensor, 0.0) for tensor, value in everything.items()}
        parts[index] = replace(part, saved=_ratios(probe, saved))
        progress(len(units) + index + 1, total)
    return Ranking(
        key,
        probe.pictures,
        _ratios(probe, everything),
        _levels(probe, everything),
        tuple(parts),
    )


def _key(probe: Probe, made_from: Any) -> str:
    ort = require("onnxruntime", extra="cpu", why="measure sensitivity")
    method = [_METHOD, CELLS, ROIS, ort.__version__]
    return fingerprint([method, made_from, probe.ranges])


def _ratios(probe: Probe, noise: Noise) -> dict[str, float]:
    """Noise over signal by kind; a kind without signal tells nothing and is left out."""
    found = {}
    for kind in KINDS:
        names = probe.outputs.by_kind.get(kind, ())
        signal = probe.signal.get(kind, 0.0)
        if names and signal > 0:
            found[kind] = sum(noise[name] for name in names) / signal
    return found


def _levels(probe: Probe, noise: Noise) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, signal in probe.signals.items():
        found[name] = decibels(noise[name] / signal) if signal > 0 else None
    return found


def _order(part: Sensitivity) -> tuple[float, int]:
    return -float(f"{part.score:.{_DIGITS - 1}e}"), part.unit.macs
