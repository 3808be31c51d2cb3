"""Training views of a sample: resized by one of several scales, perhaps mirrored.

Shape legend: G objects, I regions to ignore.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centermask_edge.config import PreprocessConfig
from centermask_edge.data.coco import Sample
from centermask_edge.errors import DatasetError, require
from centermask_edge.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class View:
    """A sample as the network sees it, in input pixels.

    image float32 (3, H, W) normalised and padded; image_size (height, width) unpadded; boxes
    float32 (G, 4) xyxy; classes int64 (G,); ignore float32 (I, 4); polygons as in ``Sample``.
    """

    image: NDArray[np.float32]
    image_size: tuple[int, int]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    ignore: NDArray[np.float32]
    polygons: tuple[tuple[NDArray[np.float64], ...], ...] | None


def read_bgr(sample: Sample) -> NDArray[np.uint8]:
    """The sample's picture, uint8 (H, W, 3) BGR.

    Raises:
        DatasetError: it cannot be decoded or is not of the size its annotations state.
    """
    pillow = require("PIL.Image", extra="train", why="read training pictures")
    ops = require("PIL.ImageOps", extra="train", why="read training pictures")
    try:
        with pillow.open(sample.path) as picture:
            # As it is shown, unless the annotations state the size of the pixels as stored.
            upright = ops.exif_transpose(picture)
            stated = upright.size == (sample.width, sample.height)
            rgb = np.asarray((upright if stated else picture).convert("RGB"))
    # Damaged bytes make a decoder fail in any way: SyntaxError, ValueError, DecompressionBombError.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(f"picture {sample.path} cannot be read: {reason}") from None
    if rgb.shape[:2] != (sample.height, sample.width):
        raise DatasetError(
            f"picture {sample.path} is {rgb.shape[1]} x {rgb.shape[0]}, its annotations say "
            f"{sample.width} x {sample.height}"
        )
    return np.ascontiguousarray(rgb[..., ::-1])


def _flip_boxes(boxes: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    return np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), axis=1)


def _flip_polygon(points: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    flipped = points.copy()
    flipped[0::2] = width - flipped[0::2]
    return flipped


def make_view(
    sample: Sample,
    preprocess: PreprocessConfig,
    *,
    short_side: int,
    long_side: int,
    flip: bool,
) -> View:
    """The sample resized to ``short_side`` (at most ``long_side``), mirrored if ``flip``.

    Raises:
        DatasetError: see ``read_bgr``.
    """
    image = read_bgr(sample)
    boxes, ignore, polygons = sample.boxes, sample.ignore, sample.polygons
    if flip:
        image = np.ascontiguousarray(image[:, ::-1])
        boxes, ignore = _flip_boxes(boxes, sample.width), _flip_boxes(ignore, sample.width)
        if polygons is not None:
            polygons = tuple(tuple(_flip_polygon(p, sample.width) for p in o) for o in polygons)
    config = preprocess.model_copy(update={"short_side": short_side, "long_side": long_side})
    tensor, placement = Preprocess(config)(image)
    scale = np.array([placement.scale_x, placement.scale_y] * 2)
    if polygons is not None:
        polygons = tuple(tuple(p * np.resize(scale[:2], len(p)) for p in o) for o in polygons)
    return View(
        tensor,
        placement.resized_size,
        (boxes * scale).astype(np.float32),
        sample.classes,
        (ignore * scale).astype(np.float32),
        polygons,
    )
