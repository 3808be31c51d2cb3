"""Masks drawn into a picture for a page: filled, outlined and named, as a JPEG in a data URI."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.data.segmentation import pixels_of
from centermask_edge.errors import require

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

# Distinct on dark and on bright pictures; RGB.
PALETTE: tuple[Color, ...] = (
    (30, 144, 255),
    (255, 127, 80),
    (46, 204, 113),
    (219, 112, 219),
    (255, 215, 0),
    (64, 224, 208),
    (255, 99, 122),
    (102, 205, 170),
)
_OPACITY = 0.42
_NAMED = 14  # shapes up to which each is named: more names hide the picture
_QUALITY = 82
_LETTERS = 28  # of a name's height that a picture's longer side holds


@dataclass(frozen=True, slots=True)
class Shape:
    """What is drawn of an object.

    Attributes:
        segmentation: COCO's; None where there is only a box.
        box: x, y, width, height in pixels of the picture.
        color: RGB.
        name: written beside it.
        filled: whether the mask is coloured, or only outlined.
    """

    segmentation: Any
    box: Box
    color: Color
    name: str = ""
    filled: bool = True


def drawn(image: NDArray[np.uint8], shapes: Sequence[Shape], side: int) -> str:
    """The picture with shapes, the last on top, at most ``side`` pixels long, as a data URI.

    Args:
        image: uint8 (H, W, 3) BGR.
        shapes: in its pixels.
        side: longest side of what is drawn.
    """
    pillow: Any = require("PIL.Image", extra="train", why="draw pictures for a page")
    picture = pillow.fromarray(np.ascontiguousarray(image[..., ::-1]))
    height, width = image.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    picture = picture.resize(size, pillow.Resampling.BILINEAR)
    for shape in shapes:
        _mask(picture, shape, (height, width))
    for shape in shapes:
        _box(picture, shape, factor, len(shapes) <= _NAMED)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True, progressive=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _mask(picture: Any, shape: Shape, full: tuple[int, int]) -> None:
    if shape.segmentation is None:
        return
    pillow: Any = require("PIL.Image", extra="train", why="draw pictures for a page")
    filters: Any = require("PIL.ImageFilter", extra="train", why="draw pictures for a page")
    pixels = pixels_of(shape.segmentation, *full)
    mask = pillow.fromarray(pixels.astype(np.uint8) * 255).resize(
        picture.size, pillow.Resampling.BILINEAR
    )
    inner = mask.point(lambda v: 255 * (v >= 128))
    edge = pillow.fromarray(
        np.asarray(inner.filter(filters.MaxFilter(3)))
        - np.asarray(inner.filter(filters.MinFilter(3)))
    )
    if shape.filled:
        picture.paste(shape.color, mask=inner.point(lambda v: round(v * _OPACITY)))
    picture.paste(shape.color, mask=edge)


def _box(picture: Any, shape: Shape, factor: float, named: bool) -> None:
    painter: Any = require("PIL.ImageDraw", extra="train", why="draw pictures for a page")
    fonts: Any = require("PIL.ImageFont", extra="train", why="draw pictures for a page")
    draw = painter.Draw(picture)
    x, y, w, h = (v * factor for v in shape.box)
    if shape.segmentation is None:
        draw.rectangle((x, y, x + max(w, 0), y + max(h, 0)), outline=shape.color, width=2)
    if not named or not shape.name:
        return
    font = fonts.load_default(max(round(max(picture.size) / _LETTERS), 11))
    left, top, right, bottom = draw.textbbox((0, 0), shape.name, font=font)
    wide, tall = right - left + 8, bottom - top + 6
    at_x = min(max(x, 0), max(picture.size[0] - wide, 0))
    at_y = y - tall if y >= tall else min(max(y, 0), max(picture.size[1] - tall, 0))
    draw.rectangle((at_x, at_y, at_x + wide, at_y + tall), fill=shape.color)
    bright = sum(v * share for v, share in zip(shape.color, (0.3, 0.59, 0.11), strict=True)) > 130
    ink = (15, 15, 15) if bright else (255, 255, 255)
    draw.text((at_x + 4 - left, at_y + 3 - top), shape.name, fill=ink, font=font)
