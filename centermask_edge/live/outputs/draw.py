"""Masks, boxes and labels drawn into a frame, each only inside its own box."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from centermask_edge.errors import require
from centermask_edge.instances import Instances
from centermask_edge.masks import Crop

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

# Distinct on dark and on bright pictures; BGR.
PALETTE: tuple[Color, ...] = (
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


def _thickness(scale: float) -> int:
    return max(round(2 * scale), 1)


@lru_cache(maxsize=64)
def _tint(color: Color) -> Image:
    """What each value of a channel becomes under the colour, uint8 (1, 256, 3)."""
    values = np.arange(256)[:, None] * (1 - _OPACITY) + np.array(color) * _OPACITY
    return np.round(values).astype(np.uint8)[None]


@lru_cache(maxsize=8)
def _black(height: int, width: int) -> Image:
    # Only ever read: the system gives such zeros no memory of their own.
    return np.zeros((height, width, 3), np.uint8)


def blend(image: Image, crop: Crop, color: Color) -> None:
    """Colour the pixels of a mask and its outline, in place.

    The outline lies within the mask: what a kernel of its depth wears off. Anti-aliased lines
    along a traced contour took four fifths of all drawing.

    Args:
        image: uint8 (H, W, 3) BGR.
        crop: bool (h, w) mask with column and row of its first pixel.
        color: BGR.
    """
    mask, x0, y0 = crop
    if mask.size == 0:
        return
    cv2: Any = require("cv2", extra="cpu", why="draw results")
    region = image[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]]
    inside = mask.view(np.uint8)
    cv2.copyTo(cv2.LUT(region, _tint(color)), inside, region)
    depth = max(round(3 * _scale(image)), 1)
    kernel = np.ones((2 * depth + 1, 2 * depth + 1), np.uint8)
    core = cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    black = _black(*image.shape[:2])[: mask.shape[0], : mask.shape[1]]
    cv2.add(black, (*color, 0), dst=region, mask=cv2.subtract(inside, core))


# Names and scores come back frame after frame: a label is drawn once.
@lru_cache(maxsize=512)
def _label(text: str, color: Color, scale: float) -> Image:
    """The text on its colour, uint8 (h, w, 3), read-only."""
    cv2: Any = require("cv2", extra="cpu", why="draw results")
    size, thickness = 0.5 * scale + 0.2, max(round(1.5 * scale), 1)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thickness)
    pad = max(round(4 * scale), 2)
    label = np.full((height + base + 2 * pad, width + 2 * pad, 3), color, np.uint8)
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 140
    ink = (20, 20, 20) if bright else (255, 255, 255)
    at = (pad, pad + height)
    cv2.putText(label, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, thickness, cv2.LINE_AA)
    label.flags.writeable = False
    return label


def _put_label(image: Image, label: Image, box: Sequence[float]) -> None:
    tall, wide = label.shape[:2]
    x = int(min(max(box[0], 0), max(image.shape[1] - wide, 0)))
    # Above the box, else below it, else inside: a label should hide no head.
    above, below = int(box[1]) - tall, int(box[3])
    rest = max(image.shape[0] - tall, 0)
    y = above if above >= 0 else below if below <= rest else int(min(max(box[1], 0), rest))
    room = image[y : y + tall, x : x + wide]
    room[:] = label[: room.shape[0], : room.shape[1]]


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
    canvas = np.array(image, order="C")
    pasted = instances.crops() if crops is None else crops
    scale = _scale(canvas)
    places = range(len(instances)) if color_ids is None else color_ids
    colors = [PALETTE[i % len(PALETTE)] for i in places]
    for i in reversed(range(len(instances))):
        blend(canvas, pasted[i], colors[i])
    boxes, scores = instances.boxes.tolist(), instances.scores.tolist()
    for i in reversed(range(len(instances))):
        x0, y0, x1, y1 = (round(v) for v in boxes[i])
        corner = (max(x1 - 1, x0), max(y1 - 1, y0))
        cv2.rectangle(canvas, (x0, y0), corner, colors[i], _thickness(scale))
        text = f"{instances.name(i)} {scores[i]:.2f}"
        _put_label(canvas, _label(text, colors[i], scale), boxes[i])
    return canvas
