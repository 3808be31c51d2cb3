"""What is in a set, counted: classes, sizes, shapes, and everything that is wrong with it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from centermask_edge.config import PreprocessConfig
from centermask_edge.data.checks import (
    Effect,
    Fault,
    Finding,
    Object,
    check_objects,
)
from centermask_edge.data.coco import Annotations
from centermask_edge.data.dataset import read_annotations, splits
from centermask_edge.data.picture_checks import Progress, check_pictures, check_shared
from centermask_edge.errors import DatasetError

Counts = tuple[tuple[str, int], ...]

# COCO's limits of area in square pixels.
_SMALL, _LARGE = 32.0**2, 96.0**2
# FCOS section 3.2: the largest distance from a place to the sides of its box, in input pixels,
# up to which a level is responsible; from the middle of a box that is half its longer side.
LEVEL_LIMITS = (64.0, 128.0, 256.0, 512.0, math.inf)
_FIRST_LEVEL = 3
# Width over height.
_ASPECTS = (
    (1 / 3, "very tall, below 1:3"),
    (2 / 3, "tall, 1:3 to 2:3"),
    (3 / 2, "about square"),
    (3.0, "wide, 3:2 to 3:1"),
    (math.inf, "very wide, above 3:1"),
)
_CROWDING = ((0, "none"), (1, "1"), (3, "2 to 3"), (7, "4 to 7"), (15, "8 to 15"), (1e9, "16 on"))


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class: its objects, the pictures they are in, how many have masks; groups beside."""

    name: str
    objects: int
    pictures: int
    masks: int
    crowds: int


@dataclass(frozen=True, slots=True)
class Survey:
    """One part of a set, counted.

    Attributes:
        path: as the user gave it.
        split: train, val or test.
        annotations: what was read.
        pictures: how many are listed.
        decoded: how many of them were opened and decoded.
        classes: a row for each, in the set's order.
        sizes: objects that are small, medium and large by COCO's measure.
        levels: objects by the level of the pyramid that finds them.
        aspects: objects by shape.
        crowding: pictures by their number of objects.
        picture_sizes: commonest sizes of pictures.
        input_size: short and long side of the network's input that ``levels`` are for.
        findings: everything that is wrong.
    """

    path: Path
    split: str
    annotations: Annotations = field(repr=False)
    pictures: int
    decoded: int
    classes: tuple[ClassRow, ...]
    sizes: Counts
    levels: Counts
    aspects: Counts
    crowding: Counts
    picture_sizes: Counts
    input_size: tuple[int, int]
    findings: tuple[Finding, ...]

    @property
    def objects(self) -> int:
        """How many objects, groups left aside."""
        return sum(row.objects for row in self.classes)

    @property
    def masks(self) -> int:
        """How many of them have a mask."""
        return sum(row.masks for row in self.classes)

    @property
    def name(self) -> str:
        """Folder and file, and which part."""
        return f"{'/'.join(self.path.absolute().parts[-2:])}, {self.split}"

    def by_fault(self) -> dict[Fault, list[Finding]]:
        """The findings of each kind, the gravest kinds first."""
        found: dict[Fault, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            found[finding.fault].append(finding)
        order = list(Effect)
        return dict(sorted(found.items(), key=lambda f: (order.index(f[0].effect), -len(f[1]))))

    @property
    def refused(self) -> bool:
        """Whether training would refuse the set."""
        return any(f.fault.effect is Effect.STOPS for f in self.findings)


def survey_all(
    path: Path,
    preprocess: PreprocessConfig,
    limit: int | None = None,
    progress: Progress = iter,
) -> list[Survey]:
    """A survey of every part of the set at a path.

    Args:
        path: see :mod:`centermask_edge.data.dataset`.
        preprocess: of the model that is to be trained.
        limit: decode so many pictures of each part at most.
        progress: wraps the pictures that are decoded.

    Raises:
        DatasetError: it cannot be read at all.
    """
    read = [(split, _read(path, split)) for split in splits(path)]
    found: list[Survey] = []
    known: dict[bytes, Path] = {}
    for split, (content, bad) in read:
        others = [(name, a) for name, (a, _) in read if name != split]
        shared = check_shared(content, others) if split == "train" else ()
        findings = [*bad, *check_pictures(content, limit, progress, known), *shared]
        found.append(_survey(path, split, content, preprocess, limit, findings))
    return found


def survey(
    path: Path, split: str, preprocess: PreprocessConfig, limit: int | None = None
) -> Survey:
    """A survey of one part; see :func:`survey_all`.

    Raises:
        DatasetError: it cannot be read at all.
    """
    annotations, bad = _read(path, split)
    findings = [*bad, *check_pictures(annotations, limit)]
    return _survey(path, split, annotations, preprocess, limit, findings)


def _read(path: Path, split: str) -> tuple[Annotations, list[Finding]]:
    bad: list[Finding] = []

    def note(line: str) -> None:
        where, _, found = line.partition(": ")
        bad.append(Finding(Fault.BAD_LINE, where, found))

    return read_annotations(path, split, note), bad


def _survey(
    path: Path,
    split: str,
    annotations: Annotations,
    preprocess: PreprocessConfig,
    limit: int | None,
    findings: Sequence[Finding],
) -> Survey:
    checked = check_objects(annotations)
    single = [o for o in checked.objects if not o.crowd]
    images = {i["id"]: i for i in annotations.content["images"] if _sized(i)}
    missing = sum(f.fault is Fault.MISSING_PICTURE for f in findings)
    there = len(annotations.content["images"]) - missing
    classes = tuple(_classes(annotations, checked.objects))
    unused = [Finding(Fault.EMPTY_CLASS, r.name) for r in classes if not r.objects]
    return Survey(
        path,
        split,
        annotations,
        len(annotations.content["images"]),
        there if limit is None else min(limit, there),
        classes,
        _binned((_size(o) for o in single), ("small", "medium", "large")),
        _binned(
            (_level(o, images[o.image], preprocess) for o in single),
            tuple(f"P{_FIRST_LEVEL + i}" for i in range(len(LEVEL_LIMITS))),
        ),
        _binned(map(_aspect, single), tuple(name for _, name in _ASPECTS)),
        _crowding(single, len(annotations.content["images"])),
        _commonest(annotations),
        (preprocess.short_side, preprocess.long_side),
        (*findings, *checked.findings, *unused),
    )


def _sized(image: Any) -> bool:
    return isinstance(image, dict) and {"id", "width", "height"} <= image.keys()


def _classes(annotations: Annotations, objects: Sequence[Object]) -> Iterator[ClassRow]:
    by_category: dict[Any, list[Object]] = defaultdict(list)
    for item in objects:
        by_category[item.category].append(item)
    for category in annotations.content["categories"]:
        if not isinstance(category, dict) or not {"id", "name"} <= category.keys():
            raise DatasetError(f"{annotations.path} has a category without id or name")
        mine = by_category[category["id"]]
        single = [o for o in mine if not o.crowd]
        yield ClassRow(
            str(category["name"]),
            len(single),
            len({o.image for o in single}),
            sum(o.mask is not None for o in single),
            len(mine) - len(single),
        )


def _binned(values: Any, names: tuple[str, ...]) -> Counts:
    found = Counter(values)
    return tuple((name, found[place]) for place, name in enumerate(names))


def _size(item: Object) -> int:
    has_area = item.mask is not None and item.mask.area > 0
    area = item.mask.area if item.mask and has_area else max(item.box[2] * item.box[3], 0.0)
    return 0 if area < _SMALL else 1 if area < _LARGE else 2


def _level(item: Object, image: dict[str, Any], preprocess: PreprocessConfig) -> int:
    short, long = sorted((float(image["width"]), float(image["height"])))
    scale = min(preprocess.short_side / short, preprocess.long_side / long)
    reach = max(item.box[2], item.box[3]) / 2 * scale
    return next(i for i, limit in enumerate(LEVEL_LIMITS) if reach <= limit)


def _aspect(item: Object) -> int:
    ratio = item.box[2] / item.box[3] if item.box[3] > 0 else math.inf
    return next(i for i, (limit, _) in enumerate(_ASPECTS) if ratio <= limit)


def _crowding(objects: Sequence[Object], pictures: int) -> Counts:
    per_picture = Counter(o.image for o in objects)
    found = Counter(
        next(i for i, (most, _) in enumerate(_CROWDING) if n <= most) for n in per_picture.values()
    )
    found[0] = max(pictures - len(per_picture), 0)
    return tuple((name, found[i]) for i, (_, name) in enumerate(_CROWDING))


def _commonest(annotations: Annotations) -> Counts:
    images = [i for i in annotations.content["images"] if _sized(i)]
    found = Counter(f"{i['width']} x {i['height']}" for i in images).most_common()
    rest = sum(n for _, n in found[4:])
    return (*found[:4], *([("others", rest)] if rest else ()))
