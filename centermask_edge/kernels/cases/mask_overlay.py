"""Cases of the overlay kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.cases.compare import expect_equal
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.mask_overlay import mask_overlay
from centermask_edge.kernels.reference.mask_overlay import mask_overlay as reference

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison; ``boxes`` says what is hard about them."""

    boxes: str = "inside"
    instances: int = 5
    size: tuple[int, int] = (50, 70)
    side: int = 28
    opacity: float = 0.45
    outline: int = 0
    count: int | None = None
    index: type[np.signedinteger[Any]] = np.int64
    padding: int = 0
    soft: bool = False  # maps of any value, not discs

    def __str__(self) -> str:
        size = "x".join(map(str, self.size))
        name = f"{self.boxes.replace(' ', '_')}-{self.instances}-{size}-side{self.side}"
        name += f"-outline{self.outline}" if self.outline else ""
        name += f"-opacity{self.opacity}" + ("-soft" if self.soft else "")
        return name + (
            f"-count{self.count}-{np.dtype(self.index)}" if self.count is not None else ""
        )


def cases() -> list[Case]:
    """Boxes of every kind, with and without outlines, frames that fill no tile."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    for boxes in (
        "inside",
        "outside",
        "empty",
        "huge",
        "not finite",
        "one pixel",
        "same",
        "one half",
    ):
        yield Case(boxes)
        yield Case(boxes, outline=2, soft=True)
    yield Case(size=(1, 1))
    yield Case(size=(8, 32), outline=1)
    yield Case(size=(33, 129), padding=5)
    yield Case(instances=0)
    yield Case(instances=40, soft=True)
    yield Case(instances=40, count=33)
    yield Case(count=0)
    yield Case(count=3, index=np.int32)
    yield Case(count=99)
    yield Case(count=-1)
    yield Case(opacity=0.0, outline=1)
    yield Case(opacity=1.0)
    yield Case(side=1, soft=True)
    yield Case(side=7, soft=True)


def make_boxes(case: Case, random: np.random.Generator) -> Floats:
    """float32 (K, 4) boxes of the case's kind."""
    height, width = case.size
    span = np.array([width, height, width, height])
    corner = random.uniform(0, 0.7, (case.instances, 2))
    boxes = np.concatenate((corner, corner + random.uniform(0.1, 0.5, corner.shape)), 1) * span
    if case.boxes == "inside":
        boxes = np.clip(boxes, 0, span)
    elif case.boxes == "outside":
        boxes += random.choice([-1, -0.3, 0.3, 1], (case.instances, 1)) * span
    elif case.boxes == "empty":
        boxes[:, 2:] = boxes[:, :2] - random.integers(0, 2, (case.instances, 2))
    elif case.boxes == "huge":
        boxes = (boxes - span / 2) * 10.0 ** (np.arange(case.instances) * 6)[:, None]
    elif case.boxes == "not finite":
        for row, value in enumerate((np.nan, np.inf, -np.inf)):
            boxes[row, row] = value
        boxes[3] = [-np.inf, -np.inf, np.inf, np.inf]
    elif case.boxes == "one pixel":
        boxes[:, :2] = np.floor(boxes[:, :2])
        boxes[:, 2:] = boxes[:, :2] + 1
    elif case.boxes in ("same", "one half"):
        boxes[:] = boxes[:1]
    return np.asarray(boxes, np.float32)


def make_masks(case: Case, random: np.random.Generator) -> Floats:
    """float32 (K, M, M): discs, or noise with a NaN where ``soft``."""
    if case.boxes == "one half":  # exactly the value from which a pixel is set
        return np.full((case.instances, case.side, case.side), 0.5, np.float32)
    if case.soft:
        masks = random.uniform(0, 1, (case.instances, case.side, case.side))
        masks.reshape(-1)[::97] = np.nan
        return np.asarray(masks, np.float32)
    along = (np.arange(case.side) + 0.5) / case.side - 0.5
    disc = np.clip(3 * (0.45 - np.hypot(along[:, None], along[None])) + 0.5, 0, 1)
    return np.tile(disc.astype(np.float32), (case.instances, 1, 1))


def check(library: Library, case: Case) -> float:
    """0, if kernel and reference are equal pixel by pixel.

    Raises:
        Mismatch: they differ.
    """
    random = np.random.default_rng((case.instances, *case.size, case.outline, case.side))
    frame = random.integers(0, 256, (*case.size, 3), dtype=np.uint8)
    boxes, masks = make_boxes(case, random), make_masks(case, random)
    colors = random.integers(0, 256, (case.instances, 3), dtype=np.uint8)
    count = None if case.count is None else np.array([case.count], case.index)
    got, area = mask_overlay(
        library,
        frame,
        masks,
        boxes,
        colors,
        opacity=case.opacity,
        outline=case.outline,
        count=count,
        padding=case.padding,
    )
    drawn = case.instances if case.count is None else max(case.count, 0)
    want, want_area = reference(frame, masks, boxes, colors, case.opacity, case.outline, drawn)
    expect_equal("frame", got, want)
    if case.instances:
        expect_equal("area", area, want_area)
    return 0.0
