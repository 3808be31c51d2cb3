"""YOLO's text annotations, with polygons, with boxes or with both, brought to COCO's form.

    data.yaml            path: .            (may be left out)
                         train: images/train
                         val: images/val
                         names: [bolt, nut] (or a map, 0: bolt)
    images/train/a.jpg
    labels/train/a.txt   class x1 y1 x2 y2 x3 y3 ...   a polygon, in parts of the picture's sides
                         class x y width height        a box by its centre

Every line is one object. A picture without a text file has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from centermask_edge.data.coco import Annotations
from centermask_edge.data.pictures import PICTURE_SUFFIXES, picture_size
from centermask_edge.data.segmentation import polygon_area
from centermask_edge.errors import DatasetError, require

Report = Callable[[str], None]

_SLACK = 0.01  # labelling tools write 1.0001 at the edge; pixels written by mistake are far beyond
_KEPT = 3  # lines named in one message


@dataclass(frozen=True, slots=True)
class Split:
    """What a yaml file says of one part of the set.

    Attributes:
        path: of the yaml file.
        names: of the classes, by the number that stands in the labels.
        places: folders of pictures, or text files that list pictures.
    """

    path: Path
    names: dict[int, str]
    places: tuple[Path, ...]


def splits_of(path: Path) -> tuple[str, ...]:
    """Those of train, val and test that a yaml file names.

    Raises:
        DatasetError: unreadable.
    """
    content = _yaml(path)
    return tuple(name for name in ("train", "val", "test") if content.get(name))


def read_split(path: Path, split: str) -> Split:
    """One part of the set that a yaml file describes.

    Raises:
        DatasetError: unreadable, without names, without that part, or it is not there.
    """
    content = _yaml(path)
    names = _names(path, content)
    entries = content.get(split)
    if not entries:
        found = ", ".join(splits_of(path)) or "none"
        raise DatasetError(
            f"{path} has no {split!r}: found {found}; add a line such as {split}: images/{split}"
        )
    root = path.parent / str(content.get("path") or ".")
    if not root.exists():
        # Written for the machine it was made on: what lies beside the file is meant.
        root = path.parent
    listed = entries if isinstance(entries, list) else [entries]
    return Split(path, names, tuple(_place(path, root, str(entry)) for entry in listed))


def _yaml(path: Path) -> dict[str, Any]:
    yaml = require("yaml", extra="train", why="read a YOLO data set")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(
            f"annotation file not found: {path}; give the data.yaml of a YOLO data set"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is not a YOLO data set: it needs the keys train, val and names")
    return content


def _names(path: Path, content: dict[str, Any]) -> dict[int, str]:
    found = content.get("names")
    if isinstance(found, list):
        found = dict(enumerate(found))
    try:
        names = {int(k): str(v) for k, v in dict(found or {}).items()}
    except (TypeError, ValueError):
        names = {}
    if not names:
        raise DatasetError(
            f"{path} names no classes; wanted names: [bolt, nut], or a map from number to name"
        )
    twice = sorted({n for n in names.values() if list(names.values()).count(n) > 1})
    if twice:
        raise DatasetError(
            f"{path} gives the name {twice[0]!r} to several classes; wanted one each"
        )
    return names


def _place(path: Path, root: Path, entry: str) -> Path:
    # Some tools write ../train/images and mean what lies beside the yaml file.
    tries = [root / entry, root / entry.removeprefix("../")]
    found = next((p for p in tries if p.exists()), None)
    if found is None:
        raise DatasetError(
            f"{path} names {entry}, which is not there; looked for {tries[0]}. Paths are relative "
            "to the key path, and without it to the file itself"
        )
    return found


def read_yolo(path: Path, split: str, on_bad_line: Report | None = None) -> Annotations:
    """One part of a YOLO data set in COCO's form; category ids are the class numbers.

    Args:
        path: of the yaml file.
        split: ``train``, ``val`` or ``test``.
        on_bad_line: is told of every line and picture that cannot be read, which is then left
            out; where None the first ones are an error.

    Raises:
        DatasetError: see :func:`read_split`; no picture, no label file at all, or bad lines.
    """
    part = read_split(path, split)
    pictures = [picture for place in part.places for picture in _pictures(place)]
    if not pictures:
        raise DatasetError(f"{path}: no picture in {', '.join(map(str, part.places))}")
    labelled = [(picture, label_file(picture)) for picture in pictures]
    if not any(label.exists() for _, label in labelled):
        raise DatasetError(
            f"{path}: none of the {len(pictures)} pictures of {split!r} has a label file; looked "
            f"for {labelled[0][1]} and its like"
        )
    bad: list[str] = []
    content = _content(part, labelled, on_bad_line or bad.append)
    if bad:
        more = f"; and {len(bad) - _KEPT} more" if len(bad) > _KEPT else ""
        raise DatasetError(
            f"{'; '.join(bad[:_KEPT])}{more}; centermask-edge data {path} lists them all"
        )
    # Names are kept relative where they can be, so that messages stay short.
    return Annotations(path, path.parent, content)


def _pictures(place: Path) -> Iterator[Path]:
    if place.is_dir():
        found = (p for p in place.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
        yield from sorted(found)
        return
    try:
        lines = place.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"list of pictures {place} cannot be read: {error}") from None
    yield from (place.parent / line.strip() for line in lines if line.strip())


def label_file(picture: Path) -> Path:
    """Where the labels of a picture are: ``labels/`` in place of the last ``images/``.

    >>> label_file(Path("set/images/train/a.jpg")).as_posix()
    'set/labels/train/a.txt'
    >>> label_file(Path("set/a.jpg")).as_posix()
    'set/a.txt'
    """
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _content(part: Split, labelled: list[tuple[Path, Path]], bad: Report) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    folder = part.path.parent
    for number, (picture, label) in enumerate(labelled, start=1):
        try:
            height, width = picture_size(picture)
        except DatasetError as error:
            bad(str(error))
            continue
        relative = picture.relative_to(folder) if picture.is_relative_to(folder) else None
        name = str(relative or picture.absolute())
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for line, words in _lines(label, bad):
            try:
                found = _object(words, part.names, height, width)
            except ValueError as error:
                bad(f"{label}:{line}: {error}")
                continue
            where = f"{label.name}:{line}"
            objects.append({"id": len(objects) + 1, "image_id": number, "where": where, **found})
    categories = [{"id": k, "name": v} for k, v in sorted(part.names.items())]
    return {"images": images, "annotations": objects, "categories": categories}


def _lines(label: Path, bad: Report) -> Iterator[tuple[int, list[str]]]:
    try:
        text = label.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        bad(f"{label} cannot be read: {error}")
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            yield number, words


def _object(words: list[str], names: dict[int, str], height: int, width: int) -> dict[str, Any]:
    kind, values = _class(words[0], names), [_share(word) for word in words[1:]]
    if len(values) == 4:
        x, y, w, h = values
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        return {**_common(kind, box), "area": box[2] * box[3]}
    if len(values) < 6 or len(values) % 2:
        raise ValueError(
            f"found {len(values)} numbers after the class, wanted 4 (a box) or x y of at least 3 "
            "points"
        )
    xs, ys = [v * width for v in values[0::2]], [v * height for v in values[1::2]]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    flat = [v for point in zip(xs, ys, strict=True) for v in point]
    return {**_common(kind, box), "area": polygon_area(flat), "segmentation": [flat]}


def _common(kind: int, box: list[float]) -> dict[str, Any]:
    return {"category_id": kind, "bbox": box, "iscrowd": 0}


def _class(word: str, names: dict[int, str]) -> int:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not value.is_integer() or int(value) not in names:
        raise ValueError(f"found class {word}, wanted one of {', '.join(map(str, names))}"[:160])
    return int(value)


def _share(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not -_SLACK <= value <= 1 + _SLACK:
        raise ValueError(f"found the coordinate {word}, wanted parts of the picture from 0 to 1")
    return value
