"""What is drawn, where, and what is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from centermask_edge.instances import Instances
from centermask_edge.live.outputs.draw import PALETTE, blend, draw

HEIGHT, WIDTH = 120, 160


def instances(*boxes: tuple[float, float, float, float]) -> Instances:
    count = len(boxes)
    return Instances(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, count, dtype=np.float32),
        np.linspace(0.9, 0.5, count, dtype=np.float32),
        np.zeros(count, np.int64),
        np.ones((count, 28, 28), np.float32),
        (HEIGHT, WIDTH),
        ("person",),
    )


def test_without_instances_the_picture_stays_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    drawn = draw(image, instances())
    np.testing.assert_array_equal(drawn, image)
    assert drawn is not image


def test_the_input_is_not_drawn_into() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert draw(image, instances((20, 40, 100, 110))).any()
    assert not image.any()


def test_only_box_and_label_change() -> None:
    image = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    drawn = draw(image, instances((60, 50, 100, 110)))
    changed = np.argwhere((drawn != image).any(2))
    # The label stands above the box and may be wider than it; the outline is a pixel wide.
    assert changed[:, 0].min() >= 20 and changed[:, 0].max() <= 112
    assert changed[:, 1].min() >= 57
    below = changed[changed[:, 0] >= 52]
    assert below[:, 1].max() <= 102


def test_blend_mixes_the_colour_into_the_mask_only() -> None:
    image = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    mask = np.zeros((30, 30), np.bool_)
    mask[5:25, 5:25] = True
    blend(image, (mask, 40, 50), (0, 200, 255))
    inside = image[65, 55].astype(int)
    assert inside.tolist() == pytest.approx([55, 145, 169], abs=2)
    assert (image[50:53, 40:43] == 100).all() and (image[:50] == 100).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (31, 33)])
def test_any_size_of_picture(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    drawn = draw(image, instances((0, 0, size[1], size[0]), (0, 0, 1, 1)))
    assert drawn.shape == image.shape and drawn.dtype == np.uint8


def test_the_best_instance_is_drawn_last() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = draw(image, instances((40, 40, 120, 110), (40, 40, 120, 110)))
    edge = drawn[40, 90].astype(int)  # anti-aliased, so not exactly the colour
    distances = [np.abs(edge - np.array(color)).sum() for color in PALETTE]
    assert int(np.argmin(distances)) == 0


@pytest.mark.parametrize(
    ("box", "rows"),
    [
        ((60, 50, 100, 90), range(20, 50)),  # above
        ((60, 2, 100, 80), range(80, 110)),  # below
        ((60, 2, 100, 118), range(0, 40)),  # inside
    ],
)
def test_the_label_stands_where_there_is_room(
    box: tuple[float, float, float, float], rows: range
) -> None:
    image = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    found = instances(box)
    empty = replace(found, masks=np.zeros_like(found.masks))
    # Where the whole width of the box is covered, there is the label, not the outline.
    full = (draw(image, empty)[:, 64:96] != 7).any(2).mean(1) > 0.9
    covered = [r for r in np.flatnonzero(full).tolist() if abs(r - box[1]) > 2]
    covered = [r for r in covered if abs(r - box[3]) > 2]
    assert len(covered) >= 8 and set(covered) <= set(rows)


def test_nothing_is_drawn_outside_the_box_by_a_thick_outline() -> None:
    image = np.full((1440, 1440, 3), 7, np.uint8)
    blend(image, (np.ones((40, 40), np.bool_), 100, 200), (0, 0, 255))
    rows, columns = np.nonzero((image != 7).any(2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (200, 239, 100, 139)


def test_the_outline_lies_in_the_mask_along_all_its_edges() -> None:
    image = np.zeros((720, 720, 3), np.uint8)
    mask = np.zeros((60, 50), np.bool_)
    mask[10:60, 5:45] = True  # its last row is the crop's
    mask[30:40, 20:30] = False
    color = (10, 200, 90)
    blend(image, (mask, 100, 200), color)
    region = image[200:260, 100:150]
    depth = 3
    core = np.zeros_like(mask)
    core[10 + depth : 60 - depth, 5 + depth : 45 - depth] = True
    core[30 - depth : 40 + depth, 20 - depth : 30 + depth] = False
    np.testing.assert_array_equal((region == color).all(2), mask & ~core)
    np.testing.assert_array_equal((region != 0).any(2), mask)


def test_labels_from_the_cache_are_the_same_and_stay_clean() -> None:
    image = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    found = instances((60, 50, 100, 90), (62, 40, 100, 90))
    first = draw(image, found)
    draw(image, found)
    np.testing.assert_array_equal(draw(image, found), first)


def test_a_label_wider_than_the_picture_is_cut_off() -> None:
    image = np.zeros((60, 30, 3), np.uint8)
    found = replace(instances((5, 30, 25, 55)), names=("a name of many words",))
    assert draw(image, found)[:, -1].any()


def test_a_picture_of_any_layout_is_copied_as_it_is() -> None:
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, 2 * WIDTH, 3), dtype=np.uint8)
    found = instances((60, 50, 100, 110))
    np.testing.assert_array_equal(
        draw(image[:, ::2], found), draw(np.ascontiguousarray(image[:, ::2]), found)
    )
