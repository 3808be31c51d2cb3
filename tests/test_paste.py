"""Jittered and pasted training views: pixels, boxes and masks tell one story."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from centermask_edge.config import PreprocessConfig, TrainConfig
from centermask_edge.data.augment import Picture, View, cropped
from centermask_edge.data.coco import Sample
from centermask_edge.data.paste import paste
from centermask_edge.data.shapes import bounds, clip, filled
from centermask_edge.data.views import Views
from centermask_edge.train.mask_targets import rasterise, visible_ratio

PLAIN = PreprocessConfig(channel_order="rgb", mean=(0.0, 0.0, 0.0))
WIDTH, HEIGHT = 60, 40


def box_polygon(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float64]:
    return np.array([x0, y0, x1, y0, x1, y1, x0, y1], np.float64)


def picture(*boxes: tuple[float, float, float, float], value: int = 10) -> Picture:
    """Rectangles on an even ground: object i has the value ``value + 1 + i`` in each channel."""
    image = np.full((HEIGHT, WIDTH, 3), value, np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        image[int(y0) : int(y1), int(x0) : int(x1)] = value + number
    array = np.array(boxes, np.float64).reshape(-1, 4)
    polygons = tuple((box_polygon(*b),) for b in array)
    classes = np.arange(len(boxes), dtype=np.int64)
    return Picture(image, array, classes, np.zeros((0, 4)), polygons)


def visible(found: Picture, row: int) -> NDArray[np.bool_]:
    """An object's pixels by its polygons and what covers them."""
    assert found.polygons is not None
    height, width = found.size
    cover = found.covers[row] if found.covers else ()
    return filled(found.polygons[row], width, height) & ~filled(cover, width, height)


def test_what_is_pasted_hides_what_is_below() -> None:
    below = picture((5, 5, 25, 25), (40, 10, 50, 30), (12, 12, 18, 18))
    above = picture((10, 0, 30, 40), (0, 0, 3, 3), value=100)
    found = paste(below, above, [0])
    # The third object is gone; of the first only the five columns on the left are seen.
    assert found.classes.tolist() == [0, 1, 0]
    assert found.boxes.tolist() == [[5, 5, 10, 25], [40, 10, 50, 30], [10, 0, 30, 40]]
    colours = (11, 12, 101)
    for row, colour in enumerate(colours):
        np.testing.assert_array_equal(visible(found, row), found.image[..., 0] == colour)
        edge = bounds(visible(found, row))
        assert edge is not None and edge.tolist() == found.boxes[row].tolist()
    assert [len(c) for c in found.covers] == [1, 0, 0]
    assert (below.image[5:25, 5:25] < 100).all()  # the original is as it was


def test_remains_too_small_to_learn_are_ignored() -> None:
    below = picture((0, 0, 20, 20))
    found = paste(below, picture((1, 0, 30, 40), value=100), [0])
    assert found.classes.tolist() == [0] and found.boxes.tolist() == [[1, 0, 30, 40]]
    assert found.ignore.tolist() == [[0, 0, 1, 20]]


def test_objects_of_a_larger_picture_are_cut_and_of_a_smaller_one_fit() -> None:
    small = cropped(picture((2, 2, 10, 10)), 0, 0, 20, 16)
    assert small.size == (16, 20)
    found = paste(small, picture((15, 10, 40, 30), (30, 2, 50, 9), value=100), [0, 1])
    assert found.boxes.tolist() == [[2, 2, 10, 10], [15, 10, 20, 16]]
    assert (found.image[10:16, 15:20] == 101).all()
    found = paste(picture((30, 2, 50, 30)), cropped(small, 1, 1, 10, 10), [0])
    assert found.boxes.tolist() == [[30, 2, 50, 30], [1, 1, 9, 9]]
    assert paste(small, picture((30, 20, 50, 30)), [0]) is small  # nothing of it is in sight


def test_pasted_on_twice() -> None:
    once = paste(picture((0, 0, 30, 30)), picture((20, 0, 30, 30), value=50), [0])
    twice = paste(once, picture((0, 0, 15, 30), value=100), [0])
    assert twice.boxes.tolist() == [[15, 0, 20, 30], [20, 0, 30, 30], [0, 0, 15, 30]]
    for row, colour in enumerate((11, 51, 101)):
        np.testing.assert_array_equal(visible(twice, row), twice.image[..., 0] == colour)


@settings(max_examples=60)
@given(st.data())
def test_any_paste_tells_one_story(data: st.DataObject) -> None:
    def boxes(limit: int) -> list[tuple[float, float, float, float]]:
        # Objects of one picture do not overlap: each has columns of its own.
        edges = sorted(data.draw(st.sets(st.integers(0, WIDTH), min_size=2 * limit, max_size=6)))
        pairs = zip(edges[::2], edges[1::2], strict=False)
        rows = [sorted(data.draw(st.sets(st.integers(0, HEIGHT), min_size=2, max_size=2)))]
        return [(a, rows[0][0], b, rows[0][1]) for a, b in pairs]

    below, above = picture(*boxes(1)), picture(*boxes(1), value=100)
    chosen = data.draw(st.sets(st.integers(0, len(above.boxes) - 1), min_size=1))
    found = paste(below, above, sorted(chosen))
    assert found.polygons is not None
    assert len(found.boxes) == len(found.classes) == len(found.polygons) == len(found.covers)
    for row in range(len(found.boxes)):
        seen = visible(found, row)
        (colour,) = np.unique(found.image[seen])
        np.testing.assert_array_equal(seen, found.image[..., 0] == colour)
        edge = bounds(seen)
        assert edge is not None and edge.tolist() == found.boxes[row].tolist()


# --- mask targets of what is partly hidden ----------------------------------------------------


def test_targets_of_a_hidden_half() -> None:
    whole, cover = [box_polygon(0, 0, 28, 28)], [box_polygon(14, 0, 28, 28)]
    box = np.array([0.0, 0, 28, 28])
    target = rasterise(whole, box, cover)
    assert target[:, :14].all() and not target[:, 14:].any()
    assert visible_ratio(whole, box, cover) == 1.0
    # A proposal over the left quarter holds half of what is seen.
    assert visible_ratio(whole, np.array([0.0, 0, 7, 28]), cover) == pytest.approx(0.5)
    assert visible_ratio(whole, np.array([14.0, 0, 28, 28]), cover) == 1e-10
    assert visible_ratio(whole, np.array([40.0, 0, 50, 28]), cover) == 1e-10


# --- windows ----------------------------------------------------------------------------------


def shoelace(polygon: NDArray[np.float64]) -> float:
    x, y = polygon[0::2], polygon[1::2]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(-20, 40), st.integers(-20, 40)), min_size=3, max_size=8),
    st.integers(1, 24),
    st.integers(1, 24),
)
def test_a_clipped_polygon_fills_what_the_whole_one_fills(
    points: list[tuple[int, int]], width: int, height: int
) -> None:
    # Around a centre by angle: no edge crosses another.
    centre = np.mean(points, axis=0)
    points.sort(key=lambda p: float(np.arctan2(p[1] - centre[1], p[0] - centre[0])))
    polygon = np.array(points, np.float64).ravel()
    part = clip(polygon, width, height)
    # A fine raster of the whole polygon, by sums over its cells in the window.
    fine = 4
    moved = (polygon.reshape(-1, 2) + 20) * fine
    raster = filled([moved.ravel()], 60 * fine, 60 * fine)
    inside = raster[20 * fine : (20 + height) * fine, 20 * fine : (20 + width) * fine]
    area = 0.0 if part is None else shoelace(part)
    assert area == pytest.approx(inside.sum() / fine**2, abs=0.35 * len(points) + 1)
    if part is not None:
        corners = part.reshape(-1, 2)
        assert (corners >= -1e-9).all() and (corners <= np.array([width, height]) + 1e-9).all()


def test_a_window_keeps_what_is_in_it() -> None:
    found = cropped(picture((5, 5, 25, 25), (40, 10, 50, 30), (28, 2, 32, 38)), 10, 8, 20, 20)
    assert found.classes.tolist() == [0, 2]
    assert found.boxes.tolist() == [[0, 0, 15, 17], [18, 0, 20, 20]]
    for row, colour in enumerate((11, 13)):
        np.testing.assert_array_equal(visible(found, row), found.image[..., 0] == colour)


def test_boxes_of_what_a_window_cuts_are_of_the_part_that_is_left() -> None:
    # A triangle with its tip on the left: cut in half, its right part is as high as the window.
    tip = (np.array([0.0, 20, 40, 0, 40, 40]),)
    box = np.array([[0.0, 0, 40, 40]])
    whole = Picture(np.zeros((40, 60, 3), np.uint8), box, np.zeros(1, np.int64), box.copy(), (tip,))
    left = cropped(whole, 0, 0, 20, 40)
    assert left.boxes.tolist() == [[0, 10, 20, 30]] and left.ignore.tolist() == [[0, 0, 20, 40]]
    bare = Picture(whole.image, box, whole.classes, box[:0], None)
    assert cropped(bare, 0, 0, 20, 40).boxes.tolist() == [[0, 0, 20, 40]]


# --- views of a run ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for number in range(2):
        drawn = picture((5, 5, 25, 25), (40, 10, 50, 30), value=60 + 90 * number)
        path = folder / f"{number}.png"
        Image.fromarray(drawn.image).save(path)
        polygons = drawn.polygons
        found.append(
            Sample(number, path, WIDTH, HEIGHT, drawn.boxes, drawn.classes, polygons, drawn.ignore)
        )
    return found


def view(samples: list[Sample], seed: int, **changes: object) -> View:
    config = TrainConfig.model_validate({"long_side": 96, "flip": 0.5, **changes})
    views = Views(samples, PLAIN, config)
    return views.make(0, short_side=64, rng=np.random.default_rng(seed))


def test_jitter_changes_the_size_and_keeps_objects_framed(samples: list[Sample]) -> None:
    sizes = set()
    for seed in range(12):
        found = view(samples, seed, jitter=(0.5, 2.0))
        height, width = found.image_size
        sizes.add((height, width))
        assert height <= 64 and width <= 96 and min(height, width) >= 32
        assert (found.boxes[:, 2] <= width).all() and (found.boxes[:, 3] <= height).all()
        for box, label in zip(found.boxes, found.classes, strict=True):
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            assert found.image[0, y, x] == pytest.approx(61 + label, abs=1.5)
    assert len(sizes) > 4 and (64, 96) in sizes


def test_pasted_views_hold_objects_of_both_pictures(samples: list[Sample]) -> None:
    both = 0
    for seed in range(20):
        found = view(samples, seed, paste=1.0)
        assert found.polygons is not None and len(found.covers) == len(found.boxes)
        values = {int(found.image[0][y, x]) // 90 for x, y in centres(found)}
        both += len(values) == 2
    assert both >= 5
    assert view(samples, 0).covers == ()


def centres(found: View) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in (found.boxes[:, :2] + found.boxes[:, 2:]) / 2]


def test_a_view_is_decided_by_its_generator(samples: list[Sample]) -> None:
    first, again, other = (view(samples, seed, jitter=(0.5, 2.0), paste=0.5) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert first.image.shape != other.image.shape or (first.image != other.image).any()


def test_pictures_without_masks_get_nothing_pasted(samples: list[Sample], tmp_path: Path) -> None:
    one = samples[0]
    bare = Sample(0, one.path, WIDTH, HEIGHT, one.boxes, one.classes, None, one.ignore)
    config = TrainConfig(paste=1.0, flip=0.0, long_side=96)
    views = Views([bare, samples[1]], PLAIN, config)
    found = views.make(0, short_side=64, rng=np.random.default_rng(0))
    assert found.polygons is None and found.covers == () and len(found.boxes) == 2
