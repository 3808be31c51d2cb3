"""How people are hidden."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Style(str, Enum):
    """What is put in a person's place."""

    BLUR = "blur"
    PIXELATE = "pixelate"
    FILL = "fill"


@dataclass(frozen=True, slots=True)
class PrivacyRules:
    """How people are hidden.

    Attributes:
        style: blur and pixels are made from the same few means; a fill tells nothing but a shape.
        margin: how far beyond the mask is hidden, in shares of the box's longer side.
        hold_s: somebody who is no longer found stays hidden for so long, with the whole box.
    """

    style: Style = Style.BLUR
    margin: float = 0.06
    hold_s: float = 1.0
