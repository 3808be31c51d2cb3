"""Training views: boxes and polygons lie where the picture's pixels went."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from centermask_edge.config import PreprocessConfig
from centermask_edge.data import augment
from centermask_edge.data.augment import View, make_view, read_bgr
from centermask_edge.data.coco import Sample
from centermask_edge.errors import DatasetError

PLAIN = PreprocessConfig(channel_order="rgb", mean=(0.0, 0.0, 0.0))


def sample(path: Path, width: int, height: int, boxes: list[list[float]]) -> Sample:
    """Every box is an object whose polygon is the box, and an ignored region too."""
    array = np.array(boxes, np.float64).reshape(-1, 4)
    polygons = tuple((b[[0, 1, 2, 1, 2, 3, 0, 3]],) for b in array)
    return Sample(1, path, width, height, array, np.zeros(len(array), np.int64), polygons, array)


def bounds(view: View) -> NDArray[np.float64]:
    """Boxes around the polygons."""
    assert view.polygons is not None
    rows = [
        (p[0::2].min(), p[1::2].min(), p[0::2].max(), p[1::2].max())
        for parts in view.polygons
        for p in parts
    ]
    return np.array(rows)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("size", "short_side"), [((120, 80), 80), ((120, 80), 160), ((90, 200), 45)]
)
def test_a_box_frames_its_pixels(
    flip: bool, size: tuple[int, int], short_side: int, tmp_path: Path
) -> None:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[20:50, 10:40] = (250, 20, 10)  # red, upper left
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    view = make_view(
        sample(path, *size, [[10, 20, 40, 50]]),
        PLAIN,
        short_side=short_side,
        long_side=1000,
        flip=flip,
    )
    red = view.image[0] > 125
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(view.boxes[0], found, atol=1.01)
    np.testing.assert_allclose(bounds(view), view.boxes, rtol=1e-6)
    np.testing.assert_array_equal(view.ignore, view.boxes)
    height, width = view.image_size
    assert min(view.image_size) == short_side
    assert not view.image[:, height:].any() and not view.image[:, :, width:].any()
    assert view.image.shape[1] % 32 == 0 == view.image.shape[2] % 32
    # The colour, in the network's order of channels.
    middle = view.image[:, (rows[0] + rows[-1]) // 2, (columns[0] + columns[-1]) // 2]
    assert middle.tolist() == [250, 20, 10]


@settings(max_examples=60)
@given(
    st.integers(8, 300),
    st.integers(8, 300),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=3),
    st.integers(32, 120),
    st.integers(32, 200),
)
def test_geometry_of_a_view(
    width: int,
    height: int,
    fractions: list[tuple[float, ...]],
    short_side: int,
    long_side: int,
) -> None:
    boxes = [
        [min(a, c) * width, min(b, d) * height, max(a, c) * width, max(b, d) * height]
        for a, b, c, d in fractions
    ]
    source = sample(Path("unread"), width, height, boxes)
    views = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "read_bgr", lambda _: np.zeros((height, width, 3), np.uint8))
        for flip in (False, True):
            views.append(
                make_view(source, PLAIN, short_side=short_side, long_side=long_side, flip=flip)
            )
    straight, mirrored = views
    high, wide = straight.image_size
    assert mirrored.image_size == (high, wide)
    assert max(high, wide) <= max(long_side, short_side) and min(high, wide) <= short_side
    scale = np.array([wide / width, high / height] * 2)
    np.testing.assert_allclose(straight.boxes, source.boxes * scale, rtol=1e-5, atol=1e-4)
    assert straight.boxes.dtype == np.float32 == straight.ignore.dtype
    wanted = straight.boxes.copy()
    wanted[:, 0], wanted[:, 2] = wide - straight.boxes[:, 2], wide - straight.boxes[:, 0]
    np.testing.assert_allclose(mirrored.boxes, wanted, rtol=1e-4, atol=1e-3)
    for view in views:
        np.testing.assert_array_equal(view.ignore, view.boxes)
        if boxes:
            np.testing.assert_allclose(bounds(view), view.boxes, rtol=1e-4, atol=1e-3)
    # The sample itself is as it was.
    np.testing.assert_array_equal(source.boxes, np.array(boxes).reshape(-1, 4))


def test_boxes_only_stay_boxes_only(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 30)).save(path)
    bare = Sample(1, path, 40, 30, np.zeros((0, 4)), np.zeros(0, np.int64), None, np.zeros((0, 4)))
    view = make_view(bare, PLAIN, short_side=32, long_side=64, flip=True)
    assert view.polygons is None and view.boxes.shape == (0, 4) == view.ignore.shape


# --- pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_any_kind_of_picture_is_read_as_colour(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I;16") else "a.png")
    Image.new("L", (40, 30), 255).convert(mode if mode != "I;16" else "I").convert(mode).save(path)
    image = read_bgr(sample(path, 40, 30, []))
    assert image.shape == (30, 40, 3) and image.dtype == np.uint8


def test_pictures_are_bgr(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 3), (1, 2, 3)).save(path)
    image = read_bgr(sample(path, 4, 3, []))
    assert image[0, 0].tolist() == [3, 2, 1] and image.flags.c_contiguous


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 30)).save(path)
    with pytest.raises(DatasetError, match="is 40 x 30, its annotations say 30 x 40"):
        read_bgr(sample(path, 30, 40, []))


CONTENT = {"empty": b"", "text": b"no picture"}


def broken(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "BMP" if kind == "bomb" else "PNG")
    content = bytearray(buffer.getvalue())
    if kind == "bomb":  # a header that promises 2 ** 40 pixels
        content[18:26] = (1 << 20).to_bytes(4, "little") * 2
    if kind == "chunk":  # a length that makes the decoder take pixels for the next chunk's name
        start = content.index(b"IDAT")
        content[start - 4 : start] = (1000).to_bytes(4, "big")
    return bytes(content[:3000] if kind == "cut" else content)


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "chunk", "bomb"])
def test_a_broken_picture_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(CONTENT[kind] if kind in CONTENT else broken(kind))
    with pytest.raises(DatasetError, match="cannot be read") as caught:
        read_bgr(sample(path, 96, 64, []))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_picture_that_vanished_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        read_bgr(sample(tmp_path / "gone.png", 96, 64, []))
