"""Objects that move on paths, seen as instances: for the tracker, zones and lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from centermask_edge.instances import Instances

Floats = NDArray[np.float32]
SIZE = (240, 320)

_ROWS, _COLUMNS = np.mgrid[0:28, 0:28]
FULL = np.ones((28, 28), np.float32)
DISC = (((_ROWS - 13.5) ** 2 + (_COLUMNS - 13.5) ** 2) < 180).astype(np.float32)
# Two that fill one box without touching: a person behind another who leans.
UPPER = (_ROWS < _COLUMNS - 2).astype(np.float32)
LOWER = (_ROWS > _COLUMNS + 2).astype(np.float32)


def box(x: float, y: float, width: float = 30, height: float = 60) -> list[float]:
    """A box by its centre."""
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def scene(
    boxes: Sequence[Sequence[float]],
    masks: Sequence[Floats] | None = None,
    scores: Sequence[float] | None = None,
    classes: Sequence[int] | None = None,
    size: tuple[int, int] = SIZE,
) -> Instances:
    """Instances in a picture; boxes are cut to it, and those outside left out."""
    limits = np.array([size[1], size[0]] * 2, np.float32)
    places = np.clip(np.array(boxes, np.float32).reshape(-1, 4), 0, limits)
    count = len(places)
    score = np.array(scores or [0.9] * count, np.float32)
    maps = np.stack(masks) if masks else np.repeat(DISC[None], count, 0)
    found = Instances(
        places,
        score,
        score * np.float32(0.9),
        np.array(classes or [0] * count, np.int64),
        maps.reshape(count, 28, 28).astype(np.float32),
        size,
        ("person", "dog"),
    )
    full = (places[:, 2] > places[:, 0]) & (places[:, 3] > places[:, 1])
    return found.select(full)
