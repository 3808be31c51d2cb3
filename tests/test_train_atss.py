"""Adaptive assignment against the algorithm written out in loops, and what it promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from centermask_edge.model.fcos import STRIDES
from centermask_edge.train.atss import assign_adaptively
from centermask_edge.train.targets import Cells, make_cells, targets_of

SIZES = [(-(-128 // s), -(-160 // s)) for s in STRIDES]


@pytest.fixture
def cells() -> Cells:
    return make_cells(SIZES, torch.device("cpu"))


def iou(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / union


def by_hand(cells: Cells, boxes: list[list[float]]) -> list[int]:
    """Per cell the number of its box, -1 for background: algorithm 1 step by step."""
    places, strides = cells.locations.tolist(), cells.strides.tolist()
    best, owner = [0.0] * len(places), [-1] * len(places)
    for number, box in enumerate(boxes):
        cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        near: list[int] = []
        for stride in STRIDES:
            level = [i for i, s in enumerate(strides) if s == stride]
            level.sort(key=lambda i: np.hypot(places[i][0] - cx, places[i][1] - cy))
            near += level[:9]
        overlaps = {}
        for i in near:
            (x, y), half = places[i], strides[i] * 4
            overlaps[i] = iou([x - half, y - half, x + half, y + half], box)
        values = np.array(list(overlaps.values()))
        threshold = values.mean() + values.std(ddof=1)
        for i, value in overlaps.items():
            x, y = places[i]
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if inside and value >= threshold and value > best[i]:
                best[i], owner[i] = value, number
    return owner


# Centres off the middle between cells: no two cells of a level are equally near.
BOXES = [[11.3, 9.1, 58.4, 70.2], [30.7, 20.3, 150.6, 120.9], [90.2, 60.7, 101.1, 75.3]]


def found(cells: Cells, boxes: list[list[float]], ignore: Tensor | None = None) -> Tensor:
    truth = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    regions = torch.zeros((0, 4)) if ignore is None else ignore
    return assign_adaptively(cells, truth, torch.arange(len(boxes)), regions, 9).labels


def test_it_is_the_algorithm_of_the_paper(cells: Cells) -> None:
    wanted = [9 if owner < 0 else owner for owner in by_hand(cells, BOXES)]
    assert found(cells, BOXES).tolist() == wanted
    assert {0, 1, 2} < set(wanted)  # each object has a cell


def test_targets_are_distances_in_strides(cells: Cells) -> None:
    truth = torch.tensor(BOXES)
    targets = targets_of("atss", cells, truth, torch.arange(3), torch.zeros((0, 4)), 9)
    for i in torch.nonzero(targets.labels < 9).flatten().tolist():
        (x, y), stride = cells.locations[i].tolist(), float(cells.strides[i])
        x0, y0, x1, y1 = truth[targets.labels[i]].tolist()
        wanted = [(x - x0) / stride, (y - y0) / stride, (x1 - x) / stride, (y1 - y) / stride]
        assert targets.reg[i].tolist() == pytest.approx(wanted, rel=1e-5)
        assert min(wanted) > 0


def test_a_larger_object_is_learnt_on_a_coarser_level(cells: Cells) -> None:
    levels = []
    for side in (20.0, 60.0, 110.0):
        labels = found(cells, [[70 - side / 2, 62 - side / 2, 70 + side / 2, 62 + side / 2]])
        levels.append(float(cells.strides[labels < 9].mean()))
    assert levels == sorted(levels) and levels[0] < levels[2]


def test_without_objects_all_is_background_and_regions_are_ignored(cells: Cells) -> None:
    region = torch.tensor([[0.0, 0, 40, 40]])
    targets = assign_adaptively(cells, torch.zeros((0, 4)), torch.zeros(0, dtype=torch.int64),
                                region, 9)  # fmt: skip
    assert bool((targets.labels == 9).all()) and 0 < int(targets.ignore.sum()) < 60
