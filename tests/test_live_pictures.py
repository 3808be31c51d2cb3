"""Images and folders as sources: every kind of picture becomes upright 8-bit BGR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from centermask_edge.errors import SourceError
from centermask_edge.live.source import Kind
from centermask_edge.live.sources.pictures import (
    FolderSource,
    PictureSource,
    natural_key,
    read_picture,
)


def saved(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def test_colours_come_in_bgr_order(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1] = (10, 20, 30)
    image = read_picture(saved(tmp_path / "a.png", pixels))
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    assert image.shape == (2, 3, 3) and image[0, 1].tolist() == [30, 20, 10]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    # How a camera stores the upright picture under each orientation (EXIF 2.3, tag 0x0112).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(read_picture(path)[..., 0], upright)


def test_gray_is_three_equal_channels(tmp_path: Path) -> None:
    image = read_picture(saved(tmp_path / "a.png", np.array([[5, 200]], np.uint8)))
    assert image.tolist() == [[[5, 5, 5], [200, 200, 200]]]


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    pixels = np.array([[[9, 9, 9, 0], [10, 20, 30, 255]]], np.uint8)
    image = read_picture(saved(tmp_path / "a.png", pixels))
    assert image.tolist() == [[[255, 255, 255], [30, 20, 10]]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_keep_their_upper_half(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 65_535, 128]], np.uint16)
    image = read_picture(saved(tmp_path / f"a{suffix}", values))
    assert image[0, :, 0].tolist() == [0, 0, 1, 255, 0]


def test_floating_point_pictures_are_read(tmp_path: Path) -> None:
    values = np.array([[0.0, 100.0, 255.0, np.nan]], np.float32)
    image = read_picture(saved(tmp_path / "a.tif", values))
    assert image[0, :, 0].tolist() == [0, 100, 255, 0]


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "LA", "YCbCr"])
def test_every_mode_gives_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.new("RGB", (5, 4), (0, 0, 0)).convert(mode).save(path)
    image = read_picture(path)
    assert image.shape == (4, 5, 3) and image.max() <= 10


def test_one_pixel(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.array([[[1, 2, 3]]], np.uint8))
    (frame,) = PictureSource(path)
    assert frame.image.tolist() == [[[3, 2, 1]]]
    assert (frame.index, frame.pts_s, frame.camera) == (0, 0.0, "a.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "image not found"),
        (b"", r"is empty \(0 bytes\)"),
        (b"hello world", "is not an image this can read"),
        ("half", "cannot be decoded .* damaged or cut off"),
    ],
)
def test_a_bad_image_is_told_apart(
    tmp_path: Path, content: bytes | str | None, message: str
) -> None:
    path = tmp_path / "bad.jpg"
    if content == "half":
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        whole = saved(tmp_path / "whole.jpg", pixels).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_picture(path)


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", np.zeros((30, 30), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # between half and all: only a warning
    assert read_picture(path).shape == (30, 30, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(SourceError, match="too many pixels"):
        read_picture(path)


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for name in ("f10.png", "F2.PNG", "f1.jpg", "notes.txt"):
        saved(tmp_path / name, np.zeros((2, 2, 3), np.uint8), format="png")
    (tmp_path / "f3.png").mkdir()
    source = FolderSource(tmp_path)
    assert (source.kind, source.total) == (Kind.FOLDER, 3)
    assert [(f.camera, f.index) for f in source] == [("f1.jpg", 0), ("F2.PNG", 1), ("f10.png", 2)]
    assert source.warnings == []


def test_bad_images_of_a_folder_are_skipped_and_counted(tmp_path: Path) -> None:
    saved(tmp_path / "b.png", np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "c.png").write_bytes(b"no image")
    source = FolderSource(tmp_path)
    assert [f.camera for f in source] == ["b.png"]
    assert len(source.warnings) == 3 and source.warnings[-1] == "2 of 3 images skipped"
    assert "a.png" in source.warnings[0] and "c.png" in source.warnings[1]


def test_a_folder_of_bad_images_only_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SourceError, match=r"none of the 1 images.*0 bytes"):
        list(FolderSource(tmp_path))


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match="holds no images"):
        FolderSource(tmp_path)


def test_numbers_and_words_sort_together() -> None:
    names = ["10", "b", "2", "a10b", "a10", "a9", "٣"]
    assert sorted(names, key=natural_key) == ["2", "10", "٣", "a9", "a10", "a10b", "b"]
