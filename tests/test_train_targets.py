"""FCOS targets against the rule written out cell by cell, and at its edges by hand."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from centermask_edge.train.targets import Cells, CellTargets, assign_cells, make_cells

CPU = torch.device("cpu")
CLASSES = 3
SIZES = [(32, 40), (16, 20), (8, 10), (4, 5), (2, 3)]  # levels P3..P7 of a 256 x 320 picture
RANGES = {8: (-1, 64), 16: (64, 128), 32: (128, 256), 64: (256, 512), 128: (512, 1e8)}
NONE = torch.zeros((0, 4))


def targets(
    boxes: list[list[float]], classes: list[int] | None = None, ignore: Tensor = NONE
) -> tuple[Cells, CellTargets]:
    cells = make_cells(SIZES, CPU)
    labels = torch.tensor(classes or [0] * len(boxes), dtype=torch.int64)
    return cells, assign_cells(
        cells,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels,
        ignore,
        num_classes=CLASSES,
    )


def positives(cells: Cells, found: CellTargets) -> list[tuple[int, int, int]]:
    """Stride, x and y of every positive cell."""
    rows = torch.nonzero(found.labels < CLASSES).flatten()
    return [
        (int(cells.strides[r]), *(int(v) for v in cells.locations[r].tolist()))  # type: ignore[misc]
        for r in rows
    ]


def reference(x: float, y: float, stride: float, boxes: list[list[float]]) -> int:
    """Index of the box that the cell at x, y learns, or -1."""
    low, high = RANGES[int(stride)]
    best, smallest = -1, float("inf")
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        cx, cy, radius = (x0 + x1) / 2, (y0 + y1) / 2, 1.5 * stride
        across = max(cx - radius, x0) < x < min(cx + radius, x1)
        down = max(cy - radius, y0) < y < min(cy + radius, y1)
        size = max(x - x0, y - y0, x1 - x, y1 - y)
        area = (x1 - x0) * (y1 - y0)
        if across and down and low <= size <= high and area < smallest:
            best, smallest = index, area
    return best


def test_cells_are_the_levels_in_order() -> None:
    cells = make_cells(SIZES, CPU)
    count = [h * w for h, w in SIZES]
    assert cells.locations.shape == (sum(count), 2)
    assert cells.locations[:2].tolist() == [[4, 4], [12, 4]]
    assert cells.locations[count[0] - 1].tolist() == [316, 252]
    assert cells.locations[count[0]].tolist() == [8, 8]
    for level, (stride, limits) in enumerate(RANGES.items()):
        rows = slice(sum(count[:level]), sum(count[: level + 1]))
        assert set(cells.strides[rows].tolist()) == {stride}
        assert set(zip(cells.low[rows].tolist(), cells.high[rows].tolist(), strict=True)) == {
            limits
        }


def test_only_the_centre_of_a_box_is_sampled() -> None:
    # Its middle is (100, 60): of the cells of stride 8 inside it, those nearer than 12 learn it.
    cells, found = targets([[60, 30, 140, 90]])
    assert positives(cells, found) == [(8, x, y) for y in (52, 60, 68) for x in (92, 100, 108)]
    row = torch.nonzero(found.labels < CLASSES).flatten()[4]
    np.testing.assert_allclose(found.reg[row], np.array([40, 30, 40, 30]) / 8)


def test_a_box_smaller_than_the_centre_is_not_left() -> None:
    cells, found = targets([[95, 55, 105, 65]])
    assert positives(cells, found) == [(8, 100, 60)]


def test_a_cell_on_the_border_is_outside() -> None:
    cells, found = targets([[4, 4, 20, 20]])
    assert positives(cells, found) == [(8, 12, 12)]


def test_both_ends_of_a_range_belong_to_it() -> None:
    low = [24.0, 24.0, 152.0, 56.0]  # a cell of stride 16 in its middle, 64 from both sides
    cells, found = targets([low])
    assert (16, 88, 40) in positives(cells, found)
    high = [20.0, 28.0, 148.0, 60.0]  # a cell of stride 8 in its middle, 64 from both sides
    cells, found = targets([high])
    assert [(x, y) for s, x, y in positives(cells, found) if s == 8] == [
        (84, 36),
        (84, 44),
        (84, 52),
    ]
    cells, found = targets([[19.9, 28.0, 148.1, 60.0]])
    assert not [p for p in positives(cells, found) if p[0] == 8]


def test_of_two_boxes_the_smaller_wins() -> None:
    large, small = [60.0, 30.0, 140.0, 90.0], [88.0, 50.0, 112.0, 70.0]
    for boxes, classes in (([large, small], [0, 1]), ([small, large], [1, 0])):
        cells, found = targets(boxes, classes)
        middle = (cells.strides == 8) & (cells.locations == torch.tensor([100.0, 60.0])).all(1)
        assert found.labels[middle].tolist() == [1]
        np.testing.assert_allclose(found.reg[middle][0], np.array([12, 10, 12, 10]) / 8)


def test_no_boxes_are_all_background() -> None:
    cells, found = targets([])
    assert found.labels.tolist() == [CLASSES] * len(cells.locations)
    assert not found.reg.any() and not found.ignore.any()
    assert found.reg.shape == (len(cells.locations), 4)


def test_ignored_regions_have_no_background_but_keep_their_positives() -> None:
    region = torch.tensor([[40.0, 20.0, 160.0, 100.0]])
    cells, found = targets([[60, 30, 140, 90]], ignore=region)
    x, y = cells.locations.unbind(1)
    inside = (x > 40) & (x < 160) & (y > 20) & (y < 100)
    positive = found.labels < CLASSES
    assert int(positive.sum()) == 9
    assert torch.equal(found.ignore, inside & ~positive)
    _, alone = targets([], ignore=region)
    assert torch.equal(alone.ignore, inside)


@st.composite
def box_lists(draw: st.DrawFn) -> list[list[float]]:
    """Boxes on a grid of 2 pixels, so that ties and borders come up; distinct areas."""
    boxes = []
    for _ in range(draw(st.integers(0, 5))):
        x, y = draw(st.integers(0, 150)) * 2, draw(st.integers(0, 120)) * 2
        w, h = draw(st.integers(1, 300)), draw(st.integers(1, 300))
        boxes.append([float(x), float(y), float(x + 2 * w), float(y + 2 * h)])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]
    return [b for i, b in enumerate(boxes) if areas[i] not in areas[:i]]


@settings(max_examples=25)
@given(box_lists())
def test_targets_follow_the_rule(boxes: list[list[float]]) -> None:
    classes = [i % CLASSES for i in range(len(boxes))]
    cells, found = targets(boxes, classes)
    for row, ((x, y), stride) in enumerate(
        zip(cells.locations.tolist(), cells.strides.tolist(), strict=True)
    ):
        winner = reference(x, y, stride, boxes)
        label = CLASSES if winner < 0 else classes[winner]
        assert int(found.labels[row]) == label, (x, y, stride)
        if winner >= 0:
            x0, y0, x1, y1 = boxes[winner]
            wanted = [(x - x0) / stride, (y - y0) / stride, (x1 - x) / stride, (y1 - y) / stride]
            assert found.reg[row].tolist() == wanted
