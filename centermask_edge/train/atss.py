"""Adaptive assignment: each object sets its own threshold from how well cells near it fit.

Source: Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
Training Sample Selection", CVPR 2020, algorithm 1. Costs nothing at run time: only the targets
differ. Shape legend: L cells of all levels, G ground-truth boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from centermask_edge.train.mask_targets import pairwise_iou
from centermask_edge.train.targets import Cells, CellTargets, assigned

CANDIDATES = 9  # per level, table 5 of the paper
ANCHOR = 8.0  # side of a cell's square, in strides


def _candidates(cells: Cells, centres: Tensor) -> Tensor:
    """The nearest cells of every level, bool (L, G)."""
    distance = torch.cdist(cells.locations, centres)
    chosen = torch.zeros_like(distance, dtype=torch.bool)
    for stride in cells.strides.unique().tolist():
        level = torch.nonzero(cells.strides == stride).flatten()
        count = min(CANDIDATES, len(level))
        nearest = distance[level].topk(count, dim=0, largest=False).indices
        chosen.scatter_(0, level[nearest], True)
    return chosen


def _thresholds(iou: Tensor, chosen: Tensor) -> Tensor:
    """Mean plus standard deviation of the candidates' IoU, per object: (G,)."""
    count = chosen.sum(0)
    mean = (iou * chosen).sum(0) / count
    spread = ((iou - mean) ** 2 * chosen).sum(0) / (count - 1).clamp(min=1)
    return mean + spread.sqrt()


def assign_adaptively(
    cells: Cells, boxes: Tensor, classes: Tensor, ignore: Tensor, num_classes: int
) -> CellTargets:
    """Targets of one picture; arguments as of ``assign_cells``.

    A cell is positive for a box if it is among the nearest nine of its level, if its square of
    eight strides overlaps the box at least as well as the box's own threshold says, and if it lies
    strictly inside the box. Of several boxes the best overlapping one wins.
    """
    return assigned(_adaptive, cells, boxes, classes, ignore, num_classes)


def _adaptive(cells: Cells, boxes: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """The box that each cell overlaps best among those that fit it; see ``Chooser``."""
    half = cells.strides[:, None] * (ANCHOR / 2)
    squares = torch.cat((cells.locations - half, cells.locations + half), dim=1)
    iou = pairwise_iou(squares, boxes)
    chosen = _candidates(cells, (boxes[:, :2] + boxes[:, 2:]) / 2)
    fits = chosen & (iou >= _thresholds(iou, chosen)) & (distances.amin(2) > 0)
    best, winner = torch.where(fits, iou, -1.0).max(dim=1)
    return winner, best >= 0
