"""Pictures of the report: drawn twice, once by each file, and packed into data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from centermask_edge.data.augment import read_bgr
from centermask_edge.errors import require
from centermask_edge.instances import Instances
from centermask_edge.preprocess import resize
from centermask_edge.quantize.compare import Change, PictureChange
from centermask_edge.quantize.session import JudgedPicture

Image = NDArray[np.uint8]
Box = tuple[float, float, float, float]

# Longest side in pixels and JPEG quality, best first: the first that fits is taken.
_STEPS = ((800, 84), (720, 78), (600, 74), (480, 68), (360, 60))


class Draw(Protocol):
    """Draws instances into a copy of a picture: ``live.outputs.draw``, handed in from above."""

    def __call__(
        self,
        image: Image,
        instances: Instances,
        crops: None = None,
        color_ids: Sequence[int] | None = None,
    ) -> Image:
        """See :func:`centermask_edge.live.outputs.draw.draw`."""


@dataclass(frozen=True, slots=True)
class Slide:
    """One picture under the slider.

    Attributes:
        name: of the file.
        width: of the drawn picture in pixels.
        height: of it.
        before: data URI, instances of FP32.
        after: data URI, instances of the judged file.
        changes: worth a line, the worst first.
        boxes: of the changes, (left, top, width, height) in percent of the picture.
        same: instances without a change worth a line.
    """

    name: str
    width: int
    height: int
    before: str
    after: str
    changes: tuple[Change, ...]
    boxes: tuple[Box, ...]
    same: int


def make_slides(worst: Sequence[JudgedPicture], draw: Draw, limit: int) -> list[Slide]:
    """Slides of all pictures, as sharp as fits.

    Args:
        worst: pictures, the worst first.
        draw: draws instances into a picture.
        limit: bytes that the data URIs may take together; where even the smallest size takes more,
            the last pictures are left out.
    """
    slides: list[Slide] = []
    for side, quality in _STEPS:
        slides = [_slide(picture, draw, side, quality) for picture in worst]
        if sum(map(_weight, slides)) <= limit:
            return slides
    while slides and sum(map(_weight, slides)) > limit:
        slides.pop()
    return slides


def _weight(slide: Slide) -> int:
    return len(slide.before) + len(slide.after)


def _slide(picture: JudgedPicture, draw: Draw, side: int, quality: int) -> Slide:
    image, change = read_bgr(picture.sample), picture.change
    height, width = image.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = max(round(height * factor), 1), max(round(width * factor), 1)
    small = resize(image, size)
    before, after = (
        _jpeg(draw(small, scaled(found, size), None, ids), quality)
        for found, ids in zip((change.before, change.after), colors(change), strict=True)
    )
    noticed = change.noticed
    boxes = tuple(_percent(c.box, height, width) for c in noticed)
    return Slide(
        picture.sample.path.name,
        size[1],
        size[0],
        before,
        after,
        noticed,
        boxes,
        len(change.changes) - len(noticed),
    )


def colors(change: PictureChange) -> tuple[list[int], list[int]]:
    """Places in the palette for the instances of both files: one object, one colour."""
    count = len(change.before)
    after = []
    for partner in change.partners:
        after.append(partner if partner >= 0 else count)
        count += partner < 0
    return list(range(len(change.before))), after


def scaled(instances: Instances, size: tuple[int, int]) -> Instances:
    """The same instances in the picture at another (height, width)."""
    height, width = instances.source_size
    across, down = size[1] / width, size[0] / height
    boxes = instances.boxes * np.array([across, down, across, down], np.float32)
    return replace(instances, boxes=boxes, source_size=size)


def _percent(box: NDArray[np.float32], height: int, width: int) -> Box:
    x0, y0, x1, y1 = (
        round(100 * float(v) / n, 2) for v, n in zip(box, [width, height] * 2, strict=True)
    )
    return x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)


def _jpeg(image: Image, quality: int) -> str:
    pillow = require("PIL.Image", extra="cpu", why="write pictures into a report")
    buffer = io.BytesIO()
    picture = pillow.fromarray(np.ascontiguousarray(image[..., ::-1]))
    picture.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
