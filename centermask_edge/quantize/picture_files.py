"""Writes a calibration set, so that what can be read of it is always whole.

Pictures are named by their content and put in place first; the manifest is renamed over the old
one last. Until then an earlier set in the folder stays valid; after it, its pictures are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from centermask_edge.config import PreprocessConfig
from centermask_edge.errors import require
from centermask_edge.quantize.artefact import write_atomically
from centermask_edge.quantize.collect import Picture
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.facts import count_facts
from centermask_edge.quantize.picture_set import (
    MANIFEST,
    Manifest,
    ModelRecord,
    PictureRecord,
    PictureSet,
    SourceRecord,
    load_set,
)
from centermask_edge.quantize.picture_sources import PictureSource
from centermask_edge.quantize.selection import Candidate, Keeper, Selection

_FOLDER = "pictures"
_DRAFT = ".draft-"


@dataclass(frozen=True, slots=True)
class Purpose:
    """The model a set is for."""

    model: ModelRecord
    preprocess: PreprocessConfig


class FrameFiles(Keeper):
    """Holds the pixels of candidates as PNG files in a folder.

    Args:
        folder: to write to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, candidate: Candidate) -> Path:
        """Where a candidate's pixels are."""
        return self._folder / f"{candidate.index:06d}.png"

    def keep(self, candidate: Candidate, picture: Picture) -> None:
        """Writes them, unless the candidate is a file itself."""
        if candidate.path is None:
            pillow = require("PIL.Image", extra="cpu", why="write pictures")
            image = pillow.fromarray(picture[..., ::-1].copy())
            with _writing(self.path(candidate)):
                image.save(self.path(candidate), compress_level=3)

    def drop(self, candidate: Candidate) -> None:
        """Removes them."""
        if candidate.path is None:
            self.path(candidate).unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise QuantizationError(f"cannot write {path}: {error.strerror or error}") from None


@contextlib.contextmanager
def drafting(out: Path) -> Iterator[Path]:
    """A folder in ``out`` for what is not chosen yet; it does not outlive the block.

    Raises:
        QuantizationError: ``out`` cannot be written, or holds other things than a set.
    """
    fresh = not out.exists()
    _check_folder(out)
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=out))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if fresh:
            with contextlib.suppress(OSError):
                out.rmdir()  # only if nothing came of it


def _check_folder(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise QuantizationError(f"{out} is a file; give --out a folder")
    if (out / MANIFEST).is_file():
        load_set(out)  # or it is somebody else's
        return
    other = sorted(p.name for p in out.iterdir() if p.name != _FOLDER and _DRAFT not in p.name)
    if other:
        raise QuantizationError(
            f"{out} holds {other[0]!r} and no calibration set; give --out a new or empty folder"
        )


def write_set(
    out: Path,
    selection: Selection,
    source: PictureSource,
    frames: FrameFiles,
    *,
    seed: int,
    purpose: Purpose | None,
    copy: bool = False,
) -> PictureSet:
    """The set, written.

    Args:
        out: folder, checked by :func:`drafting`.
        selection: the chosen pictures.
        source: what they were chosen from.
        frames: holds those that are no files.
        seed: for the record.
        purpose: for the record.
        copy: put copies of files in the folder, too, instead of naming them where they are.

    Raises:
        QuantizationError: a file cannot be written.
    """
    inside = copy or source.root is None
    root = Path(_FOLDER) if inside else _relative(source.root or out, out)
    records = []
    for candidate in selection.chosen:
        path = candidate.path or frames.path(candidate)
        if inside:
            path = _settled(path, candidate, out / _FOLDER, frames.path(candidate))
        base = out / _FOLDER if inside else source.root or out
        records.append(_record(candidate, path.relative_to(base), _digest(path)))
    manifest = Manifest(
        source=_source_record(source, selection),
        seed=seed,
        root=root.as_posix(),
        model=None if purpose is None else purpose.model,
        preprocess=None if purpose is None else purpose.preprocess,
        shows=count_facts([c.facts for c in selection.chosen]),
        available=dict(sorted(selection.tally.facts.items())),
        pictures=tuple(records),
    )
    old = load_set(out) if (out / MANIFEST).is_file() else None
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    write_atomically(out / MANIFEST, text.encode())
    _remove_old(old, manifest, out)
    return load_set(out)


def _relative(root: Path, out: Path) -> Path:
    try:
        return Path(os.path.relpath(root.resolve(), out.resolve()))
    except ValueError:  # on another drive
        return root.resolve()


def _settled(path: Path, candidate: Candidate, folder: Path, draft: Path) -> Path:
    """The picture under its final name, on the disk."""
    with _writing(folder):
        folder.mkdir(exist_ok=True)
        if candidate.path is not None:
            shutil.copyfile(path, draft)
        stem = f"{candidate.index:06d}" if candidate.path is None else path.stem
        suffix = path.suffix.lower()
        target = folder / f"{stem}-{_digest(draft)[:8]}{suffix}"
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(target)
    return target


def _digest(path: Path) -> str:
    with _writing(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()


def _record(candidate: Candidate, file: Path, digest: str) -> PictureRecord:
    return PictureRecord(
        file=file.as_posix(),
        origin=candidate.name,
        sha256=digest,
        height=candidate.size[0],
        width=candidate.size[1],
        brightness=round(candidate.look.brightness, 1),
        contrast=round(candidate.look.contrast, 1),
        shows=candidate.facts,
    )


def _source_record(source: PictureSource, selection: Selection) -> SourceRecord:
    tally = selection.tally
    return SourceRecord(
        kind=source.kind,
        name=source.name,
        sha256=source.sha256,
        looked_at=tally.pictures,
        blank=tally.blank,
        duplicates=tally.duplicates,
    )


def _remove_old(old: PictureSet | None, new: Manifest, out: Path) -> None:
    """Pictures of the earlier set that this folder held and the new one does not name."""
    if old is None or old.record.root != _FOLDER:
        return
    kept = {p.file for p in new.pictures} if new.root == _FOLDER else set()
    for picture in old.record.pictures:
        if picture.file not in kept and Path(picture.file).name == picture.file:
            (out / _FOLDER / picture.file).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (out / _FOLDER).rmdir()
