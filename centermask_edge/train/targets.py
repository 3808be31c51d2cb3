"""FCOS targets: which cell learns which box (FCOS sections 3.1-3.2, with centre sampling).

Shape legend: L cells of all levels, G ground-truth boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from centermask_edge.model.fcos import STRIDES, level_locations

Assigner = Literal["fcos", "atss"]
CENTER_RADIUS = 1.5  # in strides
_RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, 1e8))


@dataclass(frozen=True, slots=True)
class Cells:
    """All cells of a padded picture: locations float32 (L, 2) and, per cell, float32 (L,)
    stride and the range of box sizes its level is responsible for.
    """

    locations: Tensor
    strides: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True, slots=True)
class CellTargets:
    """labels int64 (L,) class or ``num_classes`` for background; reg float32 (L, 4) left, top,
    right, bottom in strides, meaningful where positive; ignore bool (L,) cells without a loss.
    """

    labels: Tensor
    reg: Tensor
    ignore: Tensor


# From the cells, boxes float32 (G, 4) xyxy, G at least 1, and the distances of each cell to each
# box's left, top, right and bottom, float32 (L, G, 4): the box that each cell would learn, int64
# (L,), and whether it does, bool (L,).
Chooser = Callable[[Cells, Tensor, Tensor], tuple[Tensor, Tensor]]


def make_cells(sizes: Sequence[tuple[int, int]], device: torch.device) -> Cells:
    """Cells of the levels P3..P7 whose (height, width) are given."""
    parts = [level_locations(h, w, s, device) for (h, w), s in zip(sizes, STRIDES, strict=True)]
    count = [len(p) for p in parts]

    def spread(values: Sequence[float]) -> Tensor:
        return torch.cat(
            [torch.full((n,), float(v), device=device) for n, v in zip(count, values, strict=True)]
        )

    return Cells(
        torch.cat(parts),
        spread(STRIDES),
        spread([r[0] for r in _RANGES]),
        spread([r[1] for r in _RANGES]),
    )


def targets_of(
    assigner: Assigner,
    cells: Cells,
    boxes: Tensor,
    classes: Tensor,
    ignore: Tensor,
    num_classes: int,
) -> CellTargets:
    """Targets of one picture by the rule of that name; arguments as of ``assign_cells``."""
    if assigner == "atss":
        from centermask_edge.train.atss import assign_adaptively

        return assign_adaptively(cells, boxes, classes, ignore, num_classes)
    return assign_cells(cells, boxes, classes, ignore, num_classes)


def inside_any(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether float (L, 2) points lie strictly inside any of float (I, 4) boxes: bool (L,)."""
    x, y = points[:, 0, None], points[:, 1, None]
    inside = (x > boxes[:, 0]) & (y > boxes[:, 1]) & (x < boxes[:, 2]) & (y < boxes[:, 3])
    return inside.any(dim=1)


def assigned(
    choose: Chooser,
    cells: Cells,
    boxes: Tensor,
    classes: Tensor,
    ignore: Tensor,
    num_classes: int,
) -> CellTargets:
    """Targets of one picture whose cells learn what ``choose`` says; see ``assign_cells``."""
    count = len(cells.locations)
    labels = classes.new_full((count,), num_classes)
    reg = boxes.new_zeros((count, 4))
    ignored = inside_any(cells.locations, ignore)
    if len(boxes) == 0:
        return CellTargets(labels, reg, ignored)
    low = cells.locations[:, None] - boxes[:, :2]
    high = boxes[:, 2:] - cells.locations[:, None]
    distances = torch.cat((low, high), dim=2)
    winner, positive = choose(cells, boxes, distances)
    labels[positive] = classes[winner[positive]]
    reg[positive] = distances[positive, winner[positive]] / cells.strides[positive, None]
    return CellTargets(labels, reg, ignored & ~positive)


def assign_cells(
    cells: Cells, boxes: Tensor, classes: Tensor, ignore: Tensor, num_classes: int
) -> CellTargets:
    """Targets of one picture.

    A cell is positive for a box if it lies strictly inside the box and within 1.5 strides of its
    centre, and if the largest of the four distances is in the level's range. Of several boxes
    the smallest wins.

    Args:
        cells: the picture's cells.
        boxes: float32 (G, 4) xyxy in input pixels.
        classes: int64 (G,).
        ignore: float32 (I, 4) regions where background is not learned.
        num_classes: label of the background.
    """
    return assigned(_central, cells, boxes, classes, ignore, num_classes)


def _central(cells: Cells, boxes: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest box of each cell among those it is near the centre of; see ``Chooser``."""
    x, y = cells.locations[:, 0, None], cells.locations[:, 1, None]
    x0, y0, x1, y1 = boxes.unbind(1)
    radius = cells.strides[:, None] * CENTER_RADIUS
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    inside = (
        torch.stack(
            (
                x - torch.maximum(cx - radius, x0),
                y - torch.maximum(cy - radius, y0),
                torch.minimum(cx + radius, x1) - x,
                torch.minimum(cy + radius, y1) - y,
            ),
            dim=2,
        ).amin(2)
        > 0
    )
    largest = distances.amax(2)
    fits = (largest >= cells.low[:, None]) & (largest <= cells.high[:, None])
    area = ((x1 - x0) * (y1 - y0)).expand(len(x), -1)
    area = torch.where(inside & fits, area, torch.inf)
    smallest, winner = area.min(dim=1)
    return winner, smallest.isfinite()
