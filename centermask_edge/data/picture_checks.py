"""What is wrong with the pictures of a set: missing, damaged, of another size, there twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from centermask_edge.data.checks import Fault, Finding
from centermask_edge.data.coco import Annotations
from centermask_edge.data.pictures import open_picture, same_picture
from centermask_edge.errors import DatasetError

Progress = Callable[[Sequence[dict[str, Any]]], Iterable[dict[str, Any]]]


def check_pictures(
    annotations: Annotations,
    limit: int | None = None,
    progress: Progress = iter,
    known: dict[bytes, Path] | None = None,
) -> Iterator[Finding]:
    """What is wrong with the pictures: all looked for, some or all of them decoded.

    Args:
        annotations: the set.
        limit: decode so many at most, evenly spread.
        progress: wraps the pictures that are decoded.
        known: pictures of other parts by their digests; those of this part are added.
    """
    there: list[dict[str, Any]] = []
    names: set[str] = set()
    for image in annotations.content["images"]:
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            continue  # told by check_objects
        name = image["file_name"]
        if name in names:
            yield Finding(Fault.TWIN_PICTURE, name, "listed twice")
        elif (annotations.folder / name).is_file():
            there.append(image)
        else:
            yield Finding(Fault.MISSING_PICTURE, name)
        names.add(name)
    count = len(there) if limit is None else min(limit, len(there))
    chosen = [there[i * len(there) // count] for i in range(count)]
    first = {} if known is None else known
    for image in progress(chosen):
        path = annotations.folder / image["file_name"]
        yield from _decoded(path, image)
        twin = first.setdefault(_digest(path), path)
        if twin.name != path.name:  # of one name in two parts: see check_shared
            yield Finding(Fault.TWIN_PICTURE, image["file_name"], f"the same file as {twin}")


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return str(path).encode()  # told as unreadable


def _decoded(path: Path, image: dict[str, Any]) -> Iterator[Finding]:
    try:
        with open_picture(path) as picture:
            size = picture.size
            picture.load()
    except DatasetError as error:
        yield Finding(Fault.UNREADABLE_PICTURE, image["file_name"], str(error))
        return
    except Exception as error:  # a decoder may fail in any way
        yield Finding(Fault.UNREADABLE_PICTURE, image["file_name"], " ".join(str(error).split()))
        return
    stated = (image.get("width"), image.get("height"))
    if stated not in (size, size[::-1]):
        found = f"{size[0]} x {size[1]}, stated {stated[0]} x {stated[1]}"
        yield Finding(Fault.OTHER_SIZE, image["file_name"], found)


def check_shared(
    annotations: Annotations, others: Sequence[tuple[str, Annotations]]
) -> Iterator[Finding]:
    """Pictures of a set that are in other parts as well, under the same file name.

    Args:
        annotations: the set.
        others: names and contents of the other parts.
    """
    paths = _paths(annotations)
    for part, other in others:
        for name, path in _paths(other).items():
            if name not in paths:
                continue
            try:
                same = same_picture(paths[name], path)
            except (DatasetError, OSError):
                continue  # told by check_pictures
            if same:
                yield Finding(Fault.SHARED_PICTURE, name, f"also in {part}")


def _paths(annotations: Annotations) -> dict[str, Path]:
    images = (i for i in annotations.content["images"] if isinstance(i, dict))
    found = (annotations.folder / str(i.get("file_name")) for i in images)
    return {path.name: path for path in found}
