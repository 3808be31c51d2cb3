"""Where calibration pictures come from: a data set, a folder of files, or the frames of a video.

Nothing here decodes: the caller brings a function that reads a file, or the decoded frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from centermask_edge.data.coco import Sample, read_coco
from centermask_edge.engines.files import file_sha256
from centermask_edge.errors import DatasetError
from centermask_edge.frame import Frame
from centermask_edge.quantize.collect import Picture
from centermask_edge.quantize.facts import Objects
from centermask_edge.quantize.selection import Offer

# Of more files than this a random sample is looked at: decoding them all would take hours and
# hardly show more.
LOOKED_AT = 4096

Read = Callable[[Path], Picture]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PictureSource:
    """Pictures to choose from.

    Attributes:
        kind: ``dataset``, or as in ``live.source.Kind``.
        name: file name, or address without credentials.
        sha256: of the file, where it is one.
        root: folder that holds the files; None where pictures are frames.
        total: number of offers, where known.
        files: number of pictures that the source has, where known; more than ``total`` where a
            sample is taken.
        offers: the pictures, once.
    """

    kind: str
    name: str
    sha256: str | None
    root: Path | None
    total: int | None
    files: int | None
    offers: Iterable[Offer]


def from_dataset(
    annotations: Path, classes: Sequence[str] | None, read: Read, seed: int
) -> PictureSource:
    """The pictures of a COCO json file, with their objects.

    Args:
        annotations: the file; pictures are in ``images/`` beside it.
        classes: that count; None takes all of the file.
        read: gives uint8 (H, W, 3) BGR.
        seed: of the sample that is taken of a very large set.

    Raises:
        DatasetError: see :func:`centermask_edge.data.coco.read_coco`.
    """
    names = tuple(classes) if classes is not None else _categories(annotations)
    samples = read_coco(annotations, names)
    root = annotations.parent / "images"
    chosen = _sampled(samples, seed)
    offers = (_annotated(sample, root, names, read) for sample in chosen)
    digest = file_sha256(annotations)
    return PictureSource(
        "dataset", annotations.name, digest, root, len(chosen), len(samples), offers
    )


def _categories(annotations: Path) -> tuple[str, ...]:
    """Names of all categories; empty where the file is none, which read_coco then explains."""
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        return tuple(dict.fromkeys(str(c["name"]) for c in content["categories"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _annotated(sample: Sample, root: Path, names: Sequence[str], read: Read) -> Offer:
    objects = Objects(sample.boxes, tuple(names[i] for i in sample.classes))
    name = sample.path.relative_to(root).as_posix()
    return Offer(name, read(sample.path), sample.path, objects)


def from_files(
    root: Path, paths: Sequence[Path], kind: str, read: Read, seed: int
) -> PictureSource:
    """Files of a folder, in the order given.

    Args:
        root: the folder.
        paths: the files.
        kind: see :class:`PictureSource`.
        read: gives uint8 (H, W, 3) BGR.
        seed: of the sample that is taken of very many.
    """
    chosen = _sampled(paths, seed)
    offers = (Offer(path.relative_to(root).as_posix(), read(path), path) for path in chosen)
    name = root.name or str(root)
    return PictureSource(kind, name, None, root, len(chosen), len(paths), offers)


def from_frames(
    frames: Iterable[Frame],
    kind: str,
    name: str,
    *,
    file: Path | None = None,
    total: int | None = None,
    limit: int | None = None,
) -> PictureSource:
    """The frames of a video or of a camera.

    Args:
        frames: in order.
        kind: see :class:`PictureSource`.
        name: file name, or address without credentials.
        file: that the frames come from, if any.
        total: number of frames, where known.
        limit: of frames to look at.
    """
    known = [n for n in (total, limit) if n]
    offers = (Offer(f"frame {f.index}", f.image) for f in islice(frames, limit))
    digest = None if file is None else file_sha256(file)
    return PictureSource(kind, name, digest, None, min(known, default=None), total, offers)


def _sampled(items: Sequence[_T], seed: int) -> list[_T]:
    if len(items) <= LOOKED_AT:
        return list(items)
    chosen = np.random.default_rng(seed).choice(len(items), LOOKED_AT, replace=False)
    return [items[i] for i in sorted(chosen)]


def counted(offers: Iterable[Offer], progress: Callable[[int], None]) -> Iterator[Offer]:
    """The offers, telling after each how many have been looked at."""
    for number, offer in enumerate(offers, start=1):
        yield offer
        progress(number)


def is_dataset(text: str) -> bool:
    """Whether a source's name is that of an annotation file.

    Raises:
        DatasetError: it is, and there is none.

    >>> is_dataset("street.mp4")
    False
    """
    if not text.lower().endswith(".json") or "://" in text:
        return False
    if not Path(text).is_file():
        raise DatasetError(f"annotation file not found: {text}; give the path of a COCO json file")
    return True
