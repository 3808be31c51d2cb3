"""Lowered models on disk, so that a second start needs neither onnx nor the lowering.

An entry is a folder with OpenVINO's ``model.xml`` and ``model.bin`` and our ``entry.json``; its
name is a hash of everything it was made from. It is written under another name and renamed when
complete, so a reader never sees half of one. A cache that cannot be written is no error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from centermask_edge.resources import cache_dir

_GRAPH = Path(__file__).parents[1] / "graph"
_LOWERING = ("lowering.py", "roi_levels.py", "functions.py")
_KEEP = 8
_RECORD = "entry.json"


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A complete entry: the path of its ``model.xml`` and the metadata's text."""

    model: Path
    metadata: str


def entry(content: bytes, engine_version: str) -> Path:
    """Folder of the entry for that ONNX file, engine version and lowering code."""
    digest = hashlib.sha256(content)
    digest.update(engine_version.encode())
    # The code itself, not a version number that someone would have to remember to raise.
    for name in _LOWERING:
        path = _GRAPH / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    return cache_dir() / "openvino" / digest.hexdigest()[:32]


def read(folder: Path) -> CachedModel | None:
    """The entry, or None where it is absent or not complete."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        complete = all((folder / n).stat().st_size == s for n, s in record["sizes"].items())
        metadata = str(record["metadata"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    if not complete:
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)  # the least recently used entries go first
    return CachedModel(folder / "model.xml", metadata)


def write(folder: Path, metadata: str, save: Callable[[Path], object]) -> None:
    """Publishes an entry, if the cache can be written.

    Args:
        folder: of :func:`entry`.
        metadata: text to keep with it.
        save: writes ``model.xml`` and ``model.bin`` given the path of the first.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    except OSError:
        return
    try:
        save(draft / "model.xml")
        sizes = {path.name: path.stat().st_size for path in draft.iterdir()}
        record = json.dumps({"metadata": metadata, "sizes": sizes})
        (draft / _RECORD).write_text(record, encoding="utf-8")
        for path in draft.iterdir():
            _sync(path)
        if folder.exists():
            discard(folder)
        draft.rename(folder)
        _prune(folder.parent)
    except (OSError, RuntimeError):
        pass
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def discard(folder: Path) -> None:
    """Removes an entry that turned out unreadable."""
    shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _prune(parent: Path) -> None:
    entries = [p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in entries[_KEEP:]:
        discard(old)
