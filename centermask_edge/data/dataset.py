"""One way in for every annotation format, chosen by what is there.

a .json file          COCO; pictures in ``images/`` beside it
a .yaml or .yml file  YOLO, see :mod:`centermask_edge.data.yolo`
a folder              that holds one of them
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from centermask_edge.data.coco import Annotations, Sample, read_coco_file, samples_of
from centermask_edge.data.pictures import same_picture
from centermask_edge.data.yolo import read_split, read_yolo, splits_of
from centermask_edge.errors import DatasetError

TRAIN, VAL = "train", "val"
_YAML = (".yaml", ".yml")


def annotation_file(path: Path, split: str) -> Path:
    """The annotation file that a path means: itself, or the one in the folder.

    Args:
        path: a file or a folder.
        split: of several json files in a folder, the one of this name is meant.

    Raises:
        DatasetError: a folder without any, or with several that could be meant.
    """
    if not path.is_dir():
        return path
    yamls = sorted(p for p in path.iterdir() if p.suffix in _YAML)
    named = path / f"{split}.json"
    found = yamls or ([named] if named.exists() else sorted(path.glob("*.json")))
    if len(found) == 1:
        return found[0]
    what = ", ".join(p.name for p in found[:5]) or "neither"
    raise DatasetError(
        f"the folder {path} does not say where its annotations are: found {what}, wanted one "
        f"data.yaml (YOLO), one .json (COCO) or {split}.json; name the file itself"
    )


def read_annotations(
    path: Path, split: str, on_bad_line: Callable[[str], None] | None = None
) -> Annotations:
    """The set at a path, in COCO's form.

    Args:
        path: a file or a folder.
        split: which part, where the format keeps several in one place.
        on_bad_line: see :func:`centermask_edge.data.yolo.read_yolo`.

    Raises:
        DatasetError: unreadable.
    """
    file = annotation_file(path, split)
    if file.suffix in _YAML:
        return read_yolo(file, split, on_bad_line)
    return read_coco_file(file)


def class_names(path: Path, split: str) -> tuple[str, ...]:
    """Names of the classes of the set at a path, in its order, without reading its objects.

    Raises:
        DatasetError: unreadable.
    """
    file = annotation_file(path, split)
    if file.suffix in _YAML:
        return tuple(name for _, name in sorted(read_split(file, split).names.items()))
    return read_coco_file(file).names


def read_samples(path: Path, classes: Sequence[str], split: str) -> list[Sample]:
    """Pictures with their objects of these classes; see ``samples_of``.

    Raises:
        DatasetError: unreadable, without such classes, or pictures are missing.
    """
    return samples_of(read_annotations(path, split), classes)


def as_coco(annotations: Annotations, folder: Path) -> dict[str, Any]:
    """The content of a COCO json file in ``folder`` that means the same pictures where they are.

    Args:
        annotations: of any format.
        folder: where the file is to lie; file names become relative to ``images/`` in it.
    """
    root = (folder / "images").absolute()
    images = [
        {**i, "file_name": os.path.relpath((annotations.folder / i["file_name"]).absolute(), root)}
        for i in annotations.content["images"]
    ]
    return {**annotations.content, "images": images}


def without(samples: Sequence[Sample], held_out: Sequence[Sample]) -> list[Sample]:
    """The samples without those whose picture is held out as well, under the same file name.

    Names alone do not tell: ``train/0001.jpg`` and ``val/0001.jpg`` are different pictures in one
    set, and the same picture in another size in two.

    Raises:
        DatasetError: a picture of that name cannot be read.
    """
    named = defaultdict(list)
    for sample in held_out:
        named[sample.path.name].append(sample.path)
    return [s for s in samples if not any(same_picture(s.path, p) for p in named[s.path.name])]


def splits(path: Path) -> tuple[str, ...]:
    """The parts that can be read from a path; one where the format does not keep several.

    Raises:
        DatasetError: an unreadable yaml file, or one that names no part.
    """
    if path.is_dir():
        named = tuple(s for s in (TRAIN, VAL, "test") if (path / f"{s}.json").exists())
        if named and not any(p.suffix in _YAML for p in path.iterdir()):
            return named
    file = annotation_file(path, TRAIN)
    if file.suffix not in _YAML:
        return (TRAIN,)
    found = splits_of(file)
    if not found:
        raise DatasetError(f"{file} names no pictures; wanted lines such as train: images/train")
    return found
