"""Images and folders of images."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from centermask_edge.errors import SourceError, require
from centermask_edge.frame import Frame
from centermask_edge.live.source import Kind

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def is_picture(path: Path) -> bool:
    """Whether the name is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """A picture as the network and the sinks want it.

    Upright by its EXIF orientation; transparency over white; 16 bits scaled to 8.

    Args:
        path: an image file.

    Returns:
        uint8 (H, W, 3) BGR.

    Raises:
        SourceError: missing, empty, damaged, or not an image.
    """
    pillow = require("PIL.Image", extra="cpu", why="read images")
    ops = require("PIL.ImageOps", extra="cpu", why="read images")
    if not os.path.exists(path):
        raise SourceError(f"image not found: {path}; give the path of an existing file")
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"the image {path} is empty (0 bytes); copy or save it again")
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and of large pictures; neither is the user's to fix.
            warnings.simplefilter("ignore")
            with pillow.open(path) as picture:
                picture.load()
                return _to_bgr(ops.exif_transpose(picture), pillow)
    except pillow.UnidentifiedImageError:
        raise SourceError(
            f"{path} is not an image this can read; wanted one of: {', '.join(IMAGE_SUFFIXES)}"
        ) from None
    except pillow.DecompressionBombError:
        raise SourceError(
            f"the image {path} has too many pixels to be read safely; make it smaller"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(
            f"the image {path} cannot be decoded ({reason}); it is damaged or cut off"
        ) from None


def _to_bgr(picture: Any, pillow: Any) -> npt.NDArray[np.uint8]:
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        gray = _to_8_bits(np.asarray(picture))
        return np.repeat(gray[..., None], 3, axis=2)
    if "A" in picture.getbands() or "transparency" in picture.info:
        over = picture.convert("RGBA")
        picture = pillow.new("RGBA", over.size, "white")
        picture.alpha_composite(over)
    rgb = np.asarray(picture.convert("RGB"), np.uint8)
    return np.ascontiguousarray(rgb[..., ::-1])


def _to_8_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The upper 8 of 16 bits; values that never need more than 8 stay as they are."""
    numbers = np.nan_to_num(values.astype(np.float64))
    if values.dtype == np.uint16 or numbers.max(initial=0) > 255:
        numbers = np.floor(numbers / 256)
    return np.clip(numbers, 0, 255).astype(np.uint8)


class PictureSource:
    """One image.

    Args:
        path: of the image.

    Raises:
        SourceError: see :func:`read_picture`.
    """

    kind = Kind.IMAGE
    rate = None
    total = 1

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.paths = [path]
        self.warnings: list[str] = []
        self._image = read_picture(path)

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(self._image, 0.0, time.monotonic(), self.name, 0)

    def close(self) -> None:
        """Nothing to close."""


class FolderSource:
    """The images of a folder, by natural order of their names.

    One that cannot be read is left out, with a warning.

    Args:
        path: of the folder; folders in it are not looked into.

    Raises:
        SourceError: it holds no image, or cannot be listed.
    """

    kind = Kind.FOLDER
    rate = None

    def __init__(self, path: Path) -> None:
        try:
            found = [p for p in path.iterdir() if is_picture(p) and p.is_file()]
        except OSError as error:
            raise SourceError(f"the folder {path} cannot be listed: {error.strerror}") from None
        if not found:
            raise SourceError(
                f"the folder {path} holds no images; wanted files named "
                f"{', '.join('*' + suffix for suffix in IMAGE_SUFFIXES)}"
            )
        self.name = path.name or str(path)
        self.paths = sorted(found, key=lambda p: natural_key(p.name))
        self.total = len(found)
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        skipped = 0
        first = ""
        for index, path in enumerate(self.paths):
            try:
                image = read_picture(path)
            except SourceError as error:
                self.warnings.append(f"skipped: {error}")
                skipped += 1
                first = first or str(error)
                continue
            yield Frame(image, 0.0, time.monotonic(), path.name, index)
        if skipped == self.total:
            self.warnings.clear()
            raise SourceError(f"none of the {skipped} images in {self.name} can be read: {first}")
        if skipped:
            self.warnings.append(f"{skipped} of {self.total} images skipped")

    def close(self) -> None:
        """Nothing to close."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts ``frame2`` before ``frame10``.

    >>> sorted(["a10.png", "a2.png", "A1.png"], key=natural_key)
    ['A1.png', 'a2.png', 'a10.png']
    """
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(p), "") if p.isascii() and p.isdigit() else (1, 0, p) for p in parts]
