"""Training views of a sample: resized, perhaps mirrored, perhaps a window of it.

Shape legend: G objects, I regions to ignore.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from centermask_edge.config import PreprocessConfig
from centermask_edge.data.coco import Sample
from centermask_edge.data.shapes import Polygon, clip
from centermask_edge.errors import DatasetError, require
from centermask_edge.preprocess import Preprocess, resize, resized_size

Objects = tuple[tuple[Polygon, ...], ...]


@dataclass(frozen=True, slots=True)
class View:
    """A sample as the network sees it, in input pixels.

    image float32 (3, H, W) normalised and padded; image_size (height, width) unpadded; boxes
    float32 (G, 4) xyxy; classes int64 (G,); ignore float32 (I, 4); polygons as in ``Sample``;
    covers per object: polygons that lie on top of it, or empty where nothing was pasted.
    """

    image: NDArray[np.float32]
    image_size: tuple[int, int]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    ignore: NDArray[np.float32]
    polygons: Objects | None
    covers: Objects = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A sample on its way to a view: image uint8 (H, W, 3) BGR, everything in its pixels.

    boxes float64 (G, 4) xyxy; classes int64 (G,); ignore float64 (I, 4); polygons as in
    ``Sample``; covers as in ``View``.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    ignore: NDArray[np.float64]
    polygons: Objects | None
    covers: Objects = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def keep(self, rows: NDArray[np.bool_]) -> Picture:
        """The same with some of the objects only."""
        chosen = np.flatnonzero(rows)
        return replace(
            self,
            boxes=self.boxes[rows],
            classes=self.classes[rows],
            polygons=None if self.polygons is None else tuple(self.polygons[i] for i in chosen),
            covers=tuple(self.covers[i] for i in chosen) if self.covers else (),
        )


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


def _flip_polygon(points: Polygon, width: int) -> Polygon:
    flipped = points.copy()
    flipped[0::2] = width - flipped[0::2]
    return flipped


def read_picture(sample: Sample, *, flip: bool) -> Picture:
    """The sample as it is, mirrored if ``flip``.

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
    return Picture(image, boxes, sample.classes, ignore, polygons)


def resized(picture: Picture, height: int, width: int) -> Picture:
    """The picture, without covers yet, at another size in pixels."""
    scale = np.array([width / picture.size[1], height / picture.size[0]] * 2)
    polygons = picture.polygons
    if polygons is not None:
        polygons = tuple(tuple(p * np.resize(scale[:2], len(p)) for p in o) for o in polygons)
    return replace(
        picture,
        image=resize(picture.image, (height, width)),
        boxes=picture.boxes * scale,
        ignore=picture.ignore * scale,
        polygons=polygons,
    )


def cropped(picture: Picture, left: int, top: int, width: int, height: int) -> Picture:
    """A window of a picture without covers; what is not in it is gone, what is cut has a new box.

    An object that the window cuts has the box around what is left of its polygons.
    """
    image = picture.image[top : top + height, left : left + width]
    height, width = image.shape[:2]
    shift, limit = np.array([left, top] * 2), np.array([width, height] * 2)
    moved = picture.boxes - shift
    boxes = np.clip(moved, 0, limit)
    polygons = picture.polygons
    if polygons is not None:
        polygons = tuple(_window_of(o, left, top, width, height) for o in polygons)
        for row in np.flatnonzero((boxes != moved).any(1)):
            boxes[row] = _tightened(boxes[row], polygons[row])
    ignore = np.clip(picture.ignore - shift, 0, limit)
    ignore = ignore[((ignore[:, 2:] - ignore[:, :2]) >= 1).all(1)]
    whole = Picture(np.ascontiguousarray(image), boxes, picture.classes, ignore, polygons)
    return whole.keep(((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1))


def _window_of(
    parts: tuple[Polygon, ...], left: int, top: int, width: int, height: int
) -> tuple[Polygon, ...]:
    offset = np.array([left, top])
    found = (clip((p.reshape(-1, 2) - offset).ravel(), width, height) for p in parts)
    return tuple(p for p in found if p is not None)


def _tightened(box: NDArray[np.float64], parts: tuple[Polygon, ...]) -> NDArray[np.float64]:
    """The box within the bounds of the parts; empty where there are none."""
    if not parts:
        return np.zeros(4)
    points = np.concatenate([p.reshape(-1, 2) for p in parts])
    low, high = np.maximum(box[:2], points.min(0)), np.minimum(box[2:], points.max(0))
    return np.concatenate((low, high))


def as_view(picture: Picture, preprocess: PreprocessConfig) -> View:
    """The picture normalised and padded, at the size it has."""
    height, width = picture.size
    sides = {"short_side": min(height, width), "long_side": max(height, width)}
    tensor, placement = Preprocess(preprocess.model_copy(update=sides))(picture.image)
    return View(
        tensor,
        placement.resized_size,
        picture.boxes.astype(np.float32),
        picture.classes,
        picture.ignore.astype(np.float32),
        picture.polygons,
        picture.covers,
    )


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
    picture = read_picture(sample, flip=flip)
    return as_view(
        resized(picture, *resized_size(*picture.size, short_side, long_side)), preprocess
    )
