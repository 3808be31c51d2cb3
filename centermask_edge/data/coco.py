"""Annotations in COCO's form, and as plain arrays.

Every other format is brought to this one (see :mod:`centermask_edge.data.dataset`), because it is
what the evaluation protocol speaks. Shape legend: G objects, I regions to ignore.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import DatasetError

# A box around this many others, in a picture without masks, stands for a group.
_GROUP_MEMBERS = 4


@dataclass(frozen=True, slots=True)
class Annotations:
    """A set as it was read, not yet matched with a model's classes.

    Attributes:
        path: what was read; every message names it.
        folder: the file names of ``content`` are relative to it.
        content: COCO's lists ``images``, ``annotations`` and ``categories``.
    """

    path: Path
    folder: Path
    content: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the categories, in order, each once.

        Raises:
            DatasetError: a category without a name.
        """
        try:
            return tuple(dict.fromkeys(str(c["name"]) for c in self.content["categories"]))
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{self.path} has a category without a name: {error}") from None


@dataclass(frozen=True, slots=True)
class Sample:
    """One annotated picture.

    Attributes:
        image_id: id in the annotation file.
        path: the picture.
        width: in pixels.
        height: in pixels.
        boxes: float64 (G, 4) xyxy.
        classes: int64 (G,).
        polygons: per object its parts, each float64 (2 * points,) x, y; None if the picture's
            objects have boxes but not all have polygons.
        ignore: float64 (I, 4) xyxy crowds and groups.
    """

    image_id: int
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    polygons: tuple[tuple[NDArray[np.float64], ...], ...] | None
    ignore: NDArray[np.float64]


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise DatasetError(
            f"annotation file not found: {path}; give the path of a COCO json file"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as COCO json: {error}") from None
    wanted = ("images", "annotations", "categories")
    if not isinstance(data, dict) or any(not isinstance(data.get(k), list) for k in wanted):
        raise DatasetError(
            f"{path} is not a COCO file: it needs the lists images, annotations and categories"
        )
    return data


def category_ids(categories: Iterable[dict[str, Any]], classes: Sequence[str]) -> dict[int, int]:
    """Class index per category id, matched by name; categories of no class are left out."""
    index = {name: i for i, name in enumerate(classes)}
    return {int(c["id"]): index[c["name"]] for c in categories if c["name"] in index}


def _parts(segmentation: object) -> tuple[NDArray[np.float64], ...]:
    if not isinstance(segmentation, list):
        return ()
    parts = tuple(np.asarray(p, dtype=np.float64) for p in segmentation if len(p) >= 6)
    if any(p.ndim != 1 or len(p) % 2 or not np.isfinite(p).all() for p in parts):
        raise ValueError("a polygon is not a list of x, y, x, y, ...")
    return parts


def _groups(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Boxes that hold the centres of so many others that they must stand for a group."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centres[None] > boxes[:, None, :2]) & (centres[None] < boxes[:, None, 2:])
    smaller = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    members = inside.all(2) & (smaller[None] < smaller[:, None])
    return members.sum(1) >= _GROUP_MEMBERS  # type: ignore[no-any-return]


def _sample(
    image: dict[str, Any], annotations: list[dict[str, Any]], classes: dict[int, int], folder: Path
) -> Sample:
    width, height = int(image["width"]), int(image["height"])
    boxes, labels, polygons, ignore = [], [], [], []
    for a in annotations:
        if a["category_id"] not in classes:
            continue
        x, y, w, h = (float(v) for v in a["bbox"])
        if not math.isfinite(x + y + w + h):
            raise ValueError(f"a bbox is {a['bbox']}")
        box = (max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height))
        if box[2] - box[0] < 1 or box[3] - box[1] < 1:
            continue
        if a.get("iscrowd"):
            ignore.append(box)
            continue
        boxes.append(box)
        labels.append(classes[a["category_id"]])
        polygons.append(_parts(a.get("segmentation")))
    box_array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    label_array = np.array(labels, dtype=np.int64)
    ignore_array = np.array(ignore, dtype=np.float64).reshape(-1, 4)
    masked = all(polygons)
    if not masked:
        group = _groups(box_array)
        ignore_array = np.concatenate((ignore_array, box_array[group]))
        box_array, label_array = box_array[~group], label_array[~group]
    return Sample(
        int(image["id"]),
        folder / image["file_name"],
        width,
        height,
        box_array,
        label_array,
        tuple(polygons) if masked else None,
        ignore_array,
    )


def read_coco_file(path: Path) -> Annotations:
    """The content of a COCO json file, whose pictures are in ``images/`` beside it.

    Raises:
        DatasetError: unreadable, or without COCO's three lists.
    """
    return Annotations(path, path.parent / "images", _read(path))


def read_coco(path: Path, classes: Sequence[str]) -> list[Sample]:
    """:func:`samples_of` a COCO json file.

    Raises:
        DatasetError: see :func:`read_coco_file` and :func:`samples_of`.
    """
    return samples_of(read_coco_file(path), classes)


def samples_of(annotations: Annotations, classes: Sequence[str]) -> list[Sample]:
    """The pictures of a set with the objects of these classes, in the set's order.

    Crowds become regions to ignore. In pictures whose objects lack masks, a box that holds the
    centres of four or more smaller boxes is taken for a group and ignored too.

    Raises:
        DatasetError: a wrong field, no category of the wanted classes, or no picture there.
    """
    path, data = annotations.path, annotations.content
    try:
        ids = category_ids(data["categories"], classes)
        by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in data["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        samples = [_sample(i, by_image[i["id"]], ids, annotations.folder) for i in data["images"]]
    except KeyError as error:
        raise DatasetError(
            f"{path} has a category, image or annotation without the field {error}"
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{path} has a category, image or annotation with a wrong field: {error}"
        ) from None
    if not ids:
        found = ", ".join(str(c["name"]) for c in data["categories"][:5])
        raise DatasetError(
            f"{path} has no category of this model: found {found or 'none'}, "
            f"wanted some of {', '.join(classes[:5])}"
        )
    if not samples:
        raise DatasetError(f"{path} lists no images")
    missing = next((s.path for s in samples if not s.path.exists()), None)
    if missing is not None:
        raise DatasetError(f"picture named in {path} not found: {missing}")
    return samples
