from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from centermask_edge.config import PreprocessConfig
from centermask_edge.frame import check_image
from centermask_edge.preprocess import Placement, Preprocess, padded_size, resize, resized_size

sides = st.integers(1, 5000)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ((427, 640), (600, 899)),  # the official code's own sizes for two of its test pictures
        ((400, 600), (600, 900)),
        ((720, 1280), (562, 1000)),
        ((640, 480), (800, 600)),
        ((1, 1), (600, 600)),
        ((1, 5000), (1, 1000)),
        ((5000, 1), (1000, 1)),
    ],
)
def test_resized_size(source: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert resized_size(*source, 600, 1000) == wanted


@given(sides, sides, st.integers(32, 800), st.integers(0, 800))
def test_resized_size_keeps_its_promises(height: int, width: int, short: int, more: int) -> None:
    new_height, new_width = resized_size(height, width, short, short + more)
    assert max(new_height, new_width) <= short + more
    assert min(new_height, new_width) <= short
    assert short in (new_height, new_width) or short + more in (new_height, new_width)
    assert (new_height <= new_width) == (height <= width) or new_height == new_width


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_resized_size_refuses_no_pixels(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        resized_size(*size, 600, 1000)


@given(sides, sides)
def test_padding_is_the_next_multiple(height: int, width: int) -> None:
    padded = padded_size(height, width)
    assert all(
        p % 32 == 0 and 0 <= p - s < 32 for p, s in zip(padded, (height, width), strict=True)
    )


@pytest.mark.parametrize("order", ["bgr", "rgb"])
@pytest.mark.parametrize("std", [(1.0, 1.0, 1.0), (57.375, 57.12, 58.395)])
def test_pixels_are_resized_then_normalised_then_padded(
    order: str, std: tuple[float, float, float]
) -> None:
    config = PreprocessConfig.model_validate(
        {"channel_order": order, "std": std, "short_side": 64, "long_side": 96}
    )
    image = noise(50, 70)
    tensor, placement = Preprocess(config)(image)
    height, width = placement.resized_size
    assert (placement.source_size, placement.padded_size) == ((50, 70), tensor.shape[1:])
    assert (height, width) == (64, 90)
    picture = Image.fromarray(image[..., ::-1] if order == "rgb" else image)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    wanted = (pixels - np.array(config.mean, np.float32)) / np.array(std, np.float32)
    np.testing.assert_array_equal(tensor[:, :height, :width], wanted.transpose(2, 0, 1))
    assert tensor.dtype == np.float32
    assert not tensor[:, height:].any() and not tensor[:, :, width:].any()


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((8, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, (8, 100))
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 2


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    image = noise(20, 30)
    assert resize(image, (20, 30)) is image


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (333, 1), (31, 33)])
def test_odd_sizes_pass(size: tuple[int, int]) -> None:
    tensor, placement = Preprocess(PreprocessConfig(short_side=64, long_side=128))(noise(*size))
    assert tensor.shape == (3, *placement.padded_size)
    assert np.isfinite(tensor).all()


def test_a_reversed_view_is_taken() -> None:
    image = noise(40, 60)
    config = PreprocessConfig(short_side=64, long_side=128)
    view, _ = Preprocess(config)(image[::-1, ::-1])
    copy, _ = Preprocess(config)(np.ascontiguousarray(image[::-1, ::-1]))
    np.testing.assert_array_equal(view, copy)


@given(sides, sides)
def test_boxes_come_back(height: int, width: int) -> None:
    resized = resized_size(height, width, 352, 640)
    placement = Placement((height, width), resized, padded_size(*resized))
    box = np.array([[0.0, 0.0, width, height]], np.float32)
    there = box * np.array([placement.scale_x, placement.scale_y] * 2, np.float32)
    np.testing.assert_allclose(there[0, 2:], resized[::-1], rtol=1e-6)
    np.testing.assert_allclose(placement.to_source(there), box, rtol=1e-6)
    assert placement.to_source(there).dtype == np.float32


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        check_image(image)
