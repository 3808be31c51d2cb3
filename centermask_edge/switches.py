"""The switches of the network that the paper's tables turn, and what they make of a RoI."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ChannelAttention(str, Enum):
    """What weighs the channels behind a block of VoVNet (CenterMask table 4)."""

    ESE = "ese"  # one layer of full width, hard sigmoid: VoVNetV2
    SE = "se"  # two layers over a fourth of the width, sigmoid (Hu et al., 2018)
    NONE = "none"  # VoVNetV1


class RoiAssignment(str, Enum):
    """How a RoI finds its level of the pyramid (CenterMask section 2.3, table 1)."""

    ADAPTIVE = "adaptive"  # equation 2: by the share of the picture that it covers
    CANONICAL = "canonical"  # equation 1: by its size beside 224 x 224 pixels, which are of P4


class Rules(str, Enum):
    """Whose rules turn the network's output into instances."""

    CENTERMASK2 = "centermask2"
    # Exponential distances, scores without a root, clipped boxes, sizes counted in whole pixels,
    # RoIAlign without the half-cell shift: the first release, on maskrcnn-benchmark.
    ORIGINAL = "original"


CANONICAL_SIDE, CANONICAL_LEVEL = 224.0, 4
_ORIGINAL_EPS = 1e-6  # added to the ratio of the areas


@dataclass(frozen=True, slots=True)
class RoiRules:
    """Where the features of a RoI come from; the defaults are what the CUDA kernel does.

    Attributes:
        first: lowest level of the pyramid that RoIs are taken from.
        last: highest one.
        assignment: how a RoI finds its level.
        original: no half-cell shift, two samples a bin and axis, RoIs of at least a cell, and
            areas of boxes counted in whole pixels.
    """

    first: int = 3
    last: int = 5
    assignment: RoiAssignment = RoiAssignment.ADAPTIVE
    original: bool = False

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels from the lowest to the highest.

        >>> RoiRules().levels
        (3, 4, 5)
        """
        return tuple(range(self.first, self.last + 1))

    def threshold(self, level: int) -> float:
        """What a RoI's area must pass to lie on this level or above.

        A share of the picture's area under equation 2, where it must be larger; pixels under
        equation 1, where it may be equal.

        >>> RoiRules().threshold(5), RoiRules().threshold(4)
        (0.5, 0.25)
        >>> RoiRules(assignment=RoiAssignment.CANONICAL).threshold(4)
        50176.0
        """
        if self.assignment is RoiAssignment.CANONICAL:
            return float((CANONICAL_SIDE * 2.0 ** (level - CANONICAL_LEVEL)) ** 2)
        eps = _ORIGINAL_EPS if self.original else 0.0
        return float(1.0 / (2.0 ** (self.last - level + 1) - eps))
