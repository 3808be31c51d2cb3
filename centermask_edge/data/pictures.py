"""Picture files: suffixes that are read, the size of one, and whether two show the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import DatasetError, require

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 lie on their side
_ON_ITS_SIDE = 5
_GREY_LEVELS = 4.0  # mean difference up to which two small pictures show the same
_SHAPE = 0.03  # relative difference of the sides' ratio that rounding at a resize can make


def open_picture(path: Path) -> Any:
    """The picture, not yet decoded, by Pillow; close it.

    Raises:
        DatasetError: missing, or no picture.
    """
    pillow = require("PIL.Image", extra="train", why="read training pictures")
    try:
        return pillow.open(path)
    except FileNotFoundError:
        raise DatasetError(f"picture not found: {path}") from None
    # Damaged bytes make a decoder fail in any way: SyntaxError, ValueError, DecompressionBombError.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(f"picture {path} cannot be read: {reason}") from None


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width as the picture is shown, its EXIF orientation obeyed.

    Raises:
        DatasetError: missing, or no picture.
    """
    with open_picture(path) as picture:
        width, height = picture.size
        side = picture.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE
    return (width, height) if side else (height, width)


def same_picture(first: Path, second: Path) -> bool:
    """Whether two files show the same, be one of them resized or compressed again.

    Raises:
        DatasetError: one of them cannot be read.
    """
    if first == second:
        return True
    if first.stat().st_size == second.stat().st_size and first.read_bytes() == second.read_bytes():
        return True
    (size_a, look_a), (size_b, look_b) = _look(first), _look(second)
    if abs(size_a[0] * size_b[1] - size_a[1] * size_b[0]) > _SHAPE * size_a[0] * size_b[1]:
        return False
    return float(np.abs(look_a - look_b).mean()) < _GREY_LEVELS


def _look(path: Path) -> tuple[tuple[int, int], NDArray[np.float64]]:
    """Width and height, and the picture in 16 x 16 grey values."""
    with open_picture(path) as picture:
        size = picture.size
        try:
            picture.draft("L", (64, 64))  # a JPEG is then decoded at an eighth of its size
            small = picture.convert("L").resize((16, 16), resample=4)  # 4: each pixel counts
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise DatasetError(f"picture {path} cannot be read: {reason}") from None
    return size, np.asarray(small, np.float64)
