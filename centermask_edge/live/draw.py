"""Masks, boxes and labels drawn into a frame, each only inside its own box."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from centermask_edge.errors import require
from centermask_edge.instances import Instances
from centermask_edge.masks import Bools

Image = npt.NDArray[np.uint8]
Crop = tuple[Bools, int, int]

# Distinct on dark and on bright pictures; BGR.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (255, 144, 30),
    (80, 127, 255),
    (113, 204, 46),
    (219, 112, 219),
    (0, 215, 255),
    (208, 224, 64),
    (122, 99, 255),
    (170, 205, 102),
)
_OPACITY = 0.45


def _scale(image: Image) -> float:
    return max(float(min(image.shape[:2])) / 720.0, 0.35)


@lru_cache(maxsize=64)
def _tint(color: tuple[int, int, int]) -> Image:
    """What each value of a channel becomes under the colour, uint8 (1, 256, 3)."""
    values = np.arange(256)[:, None] * (1 - _OPACITY) + np.array(color) * _OPACITY
    return np.round(values).astype(np.uint8)[None]


def blend(image: Image, crop: Crop, color: tuple[int, int, int]) -> None:
    """Colour the pixels of a mask and its outline, in place.

    Args:
        image: uint8 (H, W, 3) BGR.
        crop: bool (h, w) mask with column and row of its first pixel.
        color: BGR.
    """
    mask, x0, y0 = crop
    if mask.size == 0:
        return
    region = image[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]]
    cv2: Any = require("cv2", extra="cpu", why="draw results")
    inside = mask.astype(np.uint8)
    cv2.copyTo(cv2.LUT(region, _tint(color)), inside, region)
    outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thickness = max(round(2 * _scale(image)), 1)
    # Into the region, not the image: what a thick line would leave outside the box is cut off.
    cv2.drawContours(region, outlines, -1, color, thickness, cv2.LINE_AA)


def _label(
    image: Image, text: str, box: npt.NDArray[np.float32], color: tuple[int, int, int]
) -> None:
    cv2: Any = require("cv2", extra="cpu", why="draw results")
    scale = 0.5 * _scale(image) + 0.2
    thickness = max(round(1.5 * _scale(image)), 1)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    pad = max(round(4 * _scale(image)), 2)
    tall, wide = height + base + 2 * pad, width + 2 * pad
    x = int(min(max(box[0], 0), max(image.shape[1] - wide, 0)))
    # Above the box, else below it, else inside: a label should hide no head.
    above, below = int(box[1]) - tall, int(box[3])
    rest = max(image.shape[0] - tall, 0)
    y = above if above >= 0 else below if below <= rest else int(min(max(box[1], 0), rest))
    cv2.rectangle(image, (x, y), (x + wide - 1, y + tall - 1), color, -1)
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 140
    ink = (20, 20, 20) if bright else (255, 255, 255)
    at = (x + pad, y + pad + height)
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)


def draw(
    image: Image,
    instances: Instances,
    crops: list[Crop] | None = None,
    color_ids: Sequence[int] | None = None,
) -> Image:
    """A copy of the picture with every instance drawn, the best on top.

    Args:
        image: uint8 (H, W, 3) BGR.
        instances: of that picture.
        crops: ``instances.crops()``, where the caller already has it.
        color_ids: place of each instance's colour in the palette; its rank where None.
    """
    cv2: Any = require("cv2", extra="cpu", why="draw results")
    canvas = np.ascontiguousarray(image).copy()
    pasted = instances.crops() if crops is None else crops
    thickness = max(round(2 * _scale(canvas)), 1)
    places = range(len(instances)) if color_ids is None else color_ids
    colors = [PALETTE[i % len(PALETTE)] for i in places]
    for i in reversed(range(len(instances))):
        blend(canvas, pasted[i], colors[i])
    for i in reversed(range(len(instances))):
        x0, y0, x1, y1 = (round(float(v)) for v in instances.boxes[i])
        corner = (max(x1 - 1, x0), max(y1 - 1, y0))
        cv2.rectangle(canvas, (x0, y0), corner, colors[i], thickness, cv2.LINE_AA)
        text = f"{instances.name(i)} {instances.scores[i]:.2f}"
        _label(canvas, text, instances.boxes[i], colors[i])
    return canvas
