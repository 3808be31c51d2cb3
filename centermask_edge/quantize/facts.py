"""What a picture adds to a calibration set, as short facts: "size: small", "brightness: dark".

Sizes are the object's side (the square root of its box's area) in parts of the picture's. Each is
twice the one before, so that each is about one level of the detector's pyramid; the mask branch,
too, chooses its level by this share (CenterMask eq. 2).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centermask_edge.quantize.appearance import Look

KINDS: dict[str, tuple[str, ...]] = {
    "size": ("tiny", "small", "medium", "large", "huge"),
    "objects": ("none", "one", "few", "many", "crowd"),
    "brightness": ("night", "dark", "middle", "bright", "glaring"),
    "contrast": ("fog", "soft", "normal", "hard"),
    "shape": ("portrait", "square", "landscape", "wide"),
}
_LIMITS: dict[str, tuple[float, ...]] = {
    "size": (1 / 16, 1 / 8, 1 / 4, 1 / 2),
    "objects": (1, 2, 5, 10),
    "brightness": (32, 72, 128, 184),  # mean grey level
    "contrast": (20, 40, 60),  # standard deviation of the grey levels
    "shape": (0.9, 1.1, 1.6),  # width / height
}


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of a picture of a known size.

    Attributes:
        boxes: (G, 4) xyxy pixels.
        names: class of each.
    """

    boxes: NDArray[np.floating]
    names: tuple[str, ...]


def named(kind: str, value: float) -> str:
    """The name of a value.

    >>> named("size", 0.2), named("objects", 0), named("brightness", 250.0)
    ('medium', 'none', 'glaring')
    """
    return KINDS[kind][bisect.bisect_right(_LIMITS[kind], value)]


def facts_of(look: Look, height: int, width: int, objects: Objects | None) -> tuple[str, ...]:
    """The facts of a picture, sorted.

    Args:
        look: its looks.
        height: in pixels.
        width: in pixels.
        objects: those in it; None where they are not known.
    """
    found = {
        fact("brightness", named("brightness", look.brightness)),
        fact("contrast", named("contrast", look.contrast)),
        fact("shape", named("shape", width / height)),
    }
    if objects is not None:
        found.add(fact("objects", named("objects", len(objects.names))))
        found.update(_objects(objects, height * width))
    return tuple(sorted(found))


def _objects(objects: Objects, area: int) -> set[str]:
    sides = np.clip(objects.boxes[:, 2:] - objects.boxes[:, :2], 0, None)
    shares = np.sqrt(sides.prod(1) / area)
    found = set()
    for name, share in zip(objects.names, shares, strict=True):
        size = named("size", float(share))
        # Both together too: a large dog says nothing of a large person.
        found |= {fact("class", name), fact("size", size), fact("object", f"{size} {name}")}
    return found


def fact(kind: str, value: str) -> str:
    """As text, for the manifest."""
    return f"{kind}: {value}"


def table(counts: dict[str, int], kind: str) -> list[tuple[str, int]]:
    """Values of a kind with their counts: in order of their size, classes by count.

    >>> table({"size: huge": 3, "size: tiny": 1}, "size")[:2]
    [('tiny', 1), ('small', 0)]
    """
    prefix = fact(kind, "")
    found = {k.removeprefix(prefix): n for k, n in counts.items() if k.startswith(prefix)}
    if kind in KINDS:
        return [(value, found.get(value, 0)) for value in KINDS[kind]] if found else []
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def count_facts(pictures: Sequence[Sequence[str]]) -> dict[str, int]:
    """Number of pictures that show each fact, sorted by fact."""
    counts: dict[str, int] = {}
    for facts in pictures:
        for name in facts:
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
