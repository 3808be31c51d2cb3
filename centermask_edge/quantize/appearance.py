"""How a picture looks, in a few numbers: enough to tell scenes apart, and to see that one is empty.

A difference hash says where it gets brighter from left to right, in coarse blocks; the
distributions of the three channels say how light and how colourful it is. Two pictures that agree
in both are near-duplicates: neighbouring frames of a camera that looks at nothing new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centermask_edge.preprocess import resize
from centermask_edge.quantize.collect import Coverage, Picture

Floats = NDArray[np.float32]

_HASH_SIDE = 24
_STEP = 2.0  # grey levels between two blocks that count as a difference; sensor noise has less
_LEVELS = 32
_SAMPLE_SIDE = 144  # of the short side of what is looked at: more pixels say nothing new
_BLACK = 16  # grey level up to which video calls a pixel black
_SAME_HASH = 0.03
_SAME_COLOURS = 0.01  # mean shift in parts of the full range: 2.5 grey levels
_GREY = np.array([0.114, 0.587, 0.299], np.float32)  # of B, G, R


@dataclass(frozen=True, slots=True)
class Look:
    """What is kept of a picture.

    Attributes:
        brightness: mean grey level, 0 to 255.
        contrast: standard deviation of the grey levels.
        largest: largest value of any channel.
        bits: bool (576,) difference hash.
        colours: float32 (96,) cumulative shares of the B, G and R levels.
        blank: one colour throughout, or black: it shows nothing.
    """

    brightness: float
    contrast: float
    largest: int
    bits: NDArray[np.bool_]
    colours: Floats
    blank: bool


def look_at(picture: Picture) -> Look:
    """The looks of a picture, uint8 (H, W, 3) BGR.

    >>> look_at(np.zeros((40, 60, 3), np.uint8)).blank
    True
    """
    stride = max(1, min(picture.shape[:2]) // _SAMPLE_SIDE)
    sample = np.ascontiguousarray(picture[::stride, ::stride])
    grey = sample @ _GREY
    coverage = Coverage()
    coverage.add(sample)
    return Look(
        brightness=float(grey.mean()),
        contrast=float(grey.std()),
        largest=int(picture.max()),
        bits=_difference_hash(sample),
        colours=_cumulative(sample),
        blank=bool(coverage.flat) or bool(np.percentile(grey, 99) < _BLACK),
    )


def _difference_hash(sample: Picture) -> NDArray[np.bool_]:
    blocks = resize(sample, (_HASH_SIDE, _HASH_SIDE + 1)) @ _GREY
    return np.asarray(np.diff(blocks, axis=1) > _STEP).reshape(-1)


def _cumulative(sample: Picture) -> Floats:
    """Share of pixels at or below each of 32 levels, channel by channel."""
    counts = [
        np.bincount(sample[..., channel].reshape(-1) >> 3, minlength=_LEVELS)
        for channel in range(3)
    ]
    shares = np.cumsum(np.stack(counts), axis=1) / (sample.size // 3)
    return shares.astype(np.float32).reshape(-1)


@dataclass(frozen=True, slots=True)
class Looks:
    """Those of several pictures, stacked: bits (P, 576), colours (P, 96)."""

    bits: NDArray[np.bool_]
    colours: Floats

    @classmethod
    def of(cls, looks: Sequence[Look]) -> Looks:
        """Stacked."""
        return cls(np.stack([k.bits for k in looks]), np.stack([k.colours for k in looks]))

    @classmethod
    def empty(cls, count: int) -> Looks:
        """Room for so many."""
        bits = np.zeros((count, _HASH_SIDE * _HASH_SIDE), np.bool_)
        return cls(bits, np.zeros((count, 3 * _LEVELS), np.float32))

    def put(self, index: int, look: Look) -> None:
        """One of them, set."""
        self.bits[index] = look.bits
        self.colours[index] = look.colours

    def first(self, count: int) -> Looks:
        """A view of the first so many."""
        return Looks(self.bits[:count], self.colours[:count])

    def parts(self, other: Look) -> tuple[Floats, Floats]:
        """Share of differing bits, and mean shift of the levels (earth mover's distance)."""
        bits = (self.bits != other.bits).mean(1, dtype=np.float32)
        return bits, np.abs(self.colours - other.colours).mean(1, dtype=np.float32)

    def difference(self, other: Look) -> Floats:
        """How unlike each picture is to another: 0 the same, 1 another scene altogether."""
        bits, colours = self.parts(other)
        unlike = np.minimum(1, 2 * bits) / 2 + np.minimum(1, 4 * colours) / 2
        return unlike.astype(np.float32)

    def duplicates(self, other: Look) -> NDArray[np.bool_]:
        """Which of the pictures show nothing that the other does not."""
        bits, colours = self.parts(other)
        return (bits <= _SAME_HASH) & (colours <= _SAME_COLOURS)
