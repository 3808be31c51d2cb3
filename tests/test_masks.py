from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco  # type: ignore[import-untyped]

from centermask_edge.masks import (
    Rle,
    decode_rle,
    encode_crops,
    encode_rle,
    encode_rles,
    paste,
    paste_all,
    paste_full,
    rle_area,
)


def sample(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """The plain definition, pixel by pixel in double precision: bilinear values of the frame."""
    side = mask.shape[0]
    padded = np.pad(mask.astype(np.float64), 1)
    values = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            u = (x + 0.5 - box[0]) / (box[2] - box[0]) * side + 0.5
            v = (y + 0.5 - box[1]) / (box[3] - box[1]) * side + 0.5
            if not (0 <= u < side + 1 and 0 <= v < side + 1):
                continue
            i, j = int(v), int(u)
            di, dj = v - i, u - j
            top = padded[i, j] * (1 - dj) + padded[i, j + 1] * dj
            low = padded[i + 1, j] * (1 - dj) + padded[i + 1, j + 1] * dj
            values[y, x] = top * (1 - di) + low * di
    return values


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_paste_is_the_plain_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(1, 40, 2))
    low = rng.uniform(0, [width, height])
    high = rng.uniform(low, [width, height])
    box = np.concatenate([low, high]).astype(np.float32)
    mask = rng.random((28, 28)).astype(np.float32)
    pasted = paste_full(mask, box, height, width)
    assert pasted.shape == (height, width)
    if not (box[2] > box[0] and box[3] > box[1]):
        assert not pasted.any()
        return
    values = sample(mask, box.astype(np.float64), height, width)
    sure = np.abs(values - 0.5) > 1e-4
    np.testing.assert_array_equal(pasted[sure], values[sure] >= 0.5)


def fast_sample(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """As ``sample``, for large frames."""

    def weights(low: float, high: float, size: int) -> np.ndarray:
        cells = (np.arange(size) + 0.5 - low) / (high - low) * mask.shape[0] - 0.5
        near: np.ndarray = np.maximum(1 - np.abs(cells[:, None] - np.arange(mask.shape[0])), 0)
        return near

    box = box.astype(np.float64)
    down = weights(box[1], box[3], height)
    values: np.ndarray = down @ mask.astype(np.float64) @ weights(box[0], box[2], width).T
    return values


def test_large_crops_are_the_plain_definition_too() -> None:
    rng = np.random.default_rng(5)
    boxes = [[0, 0, 1280, 720], [3.3, 7.8, 1200.4, 60.1], [640.5, 1.5, 660.2, 719.9]]
    boxes += [[100.7, 20.2, 433.3, 700.6], [900, 100, 1033, 400], [0.2, 600, 1279.8, 600.9]]
    for box in np.array(boxes, np.float32):
        mask = rng.random((28, 28)).astype(np.float32)
        values = fast_sample(mask, box, 720, 1280)
        sure = np.abs(values - 0.5) > 1e-4
        assert sure.mean() > 0.99
        pasted = paste_full(mask, box, 720, 1280)
        np.testing.assert_array_equal(pasted[sure], values[sure] >= 0.5)


def many(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks and boxes of all sizes; among them one without area, and one beyond the frame."""
    rng = np.random.default_rng(seed)
    size = np.array([width, height])
    low = rng.uniform(0, size, (12, 2))
    boxes = np.concatenate([low, rng.uniform(low, size)], 1).astype(np.float32)
    boxes[3] = [5, 5, 5, 9]
    boxes[4] = np.nan
    boxes[5] = [0, 0, width, height]
    boxes[6] = [width, 0, width + 3, height]
    return rng.random((12, 28, 28)).astype(np.float32), boxes


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(1, 1), (40, 30), (720, 1280)])
def test_together_is_one_by_one(seed: int, size: tuple[int, int]) -> None:
    masks, boxes = many(seed, *size)
    together = paste_all(masks, boxes, *size)
    for (crop, x0, y0), mask, box in zip(together, masks, boxes, strict=True):
        alone, x, y = paste(mask, box, *size)
        assert (x0, y0) == (x, y) and crop.shape == alone.shape and crop.dtype == np.bool_
        np.testing.assert_array_equal(crop, alone)
    assert encode_rles(together, *size) == [encode_rle(*crop, *size) for crop in together]
    local = encode_crops(together)
    assert local == [encode_rle(crop, 0, 0, *crop.shape) for crop, _, _ in together]
    for rle, (crop, _, _) in zip(local, together, strict=True):
        np.testing.assert_array_equal(decode_rle(rle), crop)


def test_nothing_to_paste_or_encode() -> None:
    nothing = paste_all(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), 9, 9)
    assert nothing == [] and encode_rles(nothing, 9, 9) == [] and encode_crops(nothing) == []


def test_nothing_is_set_outside_the_box_even_for_a_full_mask() -> None:
    full = np.ones((28, 28), np.float32)
    pasted = paste_full(full, np.array([3.4, 2.6, 9.6, 7.4], np.float32), 20, 20)
    wanted = np.zeros((20, 20), bool)
    wanted[3:7, 3:10] = True
    np.testing.assert_array_equal(pasted, wanted)


def test_exactly_one_half_is_set() -> None:
    half = np.full((32, 32), 0.5, np.float32)  # a power of two: the grid is exact
    crop, x0, y0 = paste(half, np.array([0, 0, 32, 32], np.float32), 32, 32)
    assert crop.all() and (x0, y0) == (0, 0)
    almost = np.nextafter(half, np.float32(0))
    assert not paste(almost, np.array([0, 0, 32, 32], np.float32), 32, 32)[0].any()


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [5, 5, 9, 5], [7, 7, 3, 3], [np.nan, 0, 5, 5]])
def test_a_box_without_area_gives_an_empty_crop(box: list[float]) -> None:
    crop, _, _ = paste(np.ones((28, 28), np.float32), np.array(box, np.float32), 10, 10)
    assert crop.size == 0
    assert rle_area(encode_rle(crop, 5, 5, 10, 10)) == 0


def test_a_box_inside_one_pixel_is_set_only_if_it_holds_the_centre() -> None:
    full = np.ones((28, 28), np.float32)
    assert paste_full(full, np.array([4.3, 4.3, 4.7, 4.7], np.float32), 9, 9).sum() == 1
    assert paste_full(full, np.array([4.6, 4.6, 4.9, 4.9], np.float32), 9, 9).sum() == 0


@st.composite
def crops(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int, int]:
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    h, w = draw(st.integers(1, height - y0)), draw(st.integers(1, width - x0))
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]))
    return np.random.default_rng(seed).random((h, w)) < share, x0, y0, height, width


@settings(max_examples=300, deadline=None)
@given(crops())
@example((np.ones((5, 3), bool), 2, 0, 5, 5))
@example((np.ones((1, 1), bool), 0, 0, 1, 1))
def test_rle_is_what_coco_writes(case: tuple[np.ndarray, int, int, int, int]) -> None:
    crop, x0, y0, height, width = case
    frame = np.zeros((height, width), np.uint8, order="F")
    frame[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
    rle = encode_rle(crop, x0, y0, height, width)
    wanted = coco.encode(frame)
    assert rle == {"size": wanted["size"], "counts": wanted["counts"].decode()}
    np.testing.assert_array_equal(decode_rle(rle), frame.astype(bool))
    assert rle_area(rle) == frame.sum() == coco.area(wanted)


@settings(max_examples=60, deadline=None)
@given(st.lists(crops(), min_size=1, max_size=6))
def test_many_rles_at_once_are_what_coco_writes(
    cases: list[tuple[np.ndarray, int, int, int, int]],
) -> None:
    height, width = max(case[3] for case in cases), max(case[4] for case in cases)
    frames = np.zeros((height, width, len(cases)), np.uint8, order="F")
    for i, (crop, x0, y0, _, _) in enumerate(cases):
        frames[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1], i] = crop
    rles = encode_rles([case[:3] for case in cases], height, width)
    assert [rle["counts"] for rle in rles] == [r["counts"].decode() for r in coco.encode(frames)]


def test_rle_of_a_large_frame_needs_long_numbers() -> None:
    rng = np.random.default_rng(3)
    frame = np.zeros((2160, 3840), np.uint8, order="F")
    frame[100:2100, 5:3800] = rng.random((2000, 3795)) < 0.001
    frame[:, 2000:2600] = 1
    rle = encode_rle(frame[:, 5:3800].astype(bool), 5, 0, 2160, 3840)
    assert rle["counts"] == coco.encode(frame)["counts"].decode()
    np.testing.assert_array_equal(decode_rle(rle), frame)


@pytest.mark.parametrize("counts", ["24", "2422", ""])
def test_runs_that_do_not_fill_the_frame_are_refused(counts: str) -> None:
    with pytest.raises(ValueError, match="pixels of a 2 x 4 frame"):
        decode_rle(Rle(size=[2, 4], counts=counts))
