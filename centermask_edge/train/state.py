"""What a run needs to continue, bit by bit: a file written whole or not at all, the last two kept.

``state.pt`` is the newest, ``state.previous.pt`` the one before, for the case that the newest is
damaged. A kill at any moment leaves at least one of them whole.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from centermask_edge.errors import ModelFileError

STATE_FILE = "state.pt"
PREVIOUS_FILE = "state.previous.pt"
Content = dict[str, Any]


def write_state(folder: Path, content: Content) -> None:
    """Write ``state.pt``; what was there becomes ``state.previous.pt``.

    Raises:
        ModelFileError: the file cannot be written.
    """
    path = folder / STATE_FILE
    partial = path.with_suffix(".partial")
    try:
        torch.save(content, partial)
        _to_disk(partial)
        if path.exists():
            path.replace(folder / PREVIOUS_FILE)
        partial.replace(path)
        _to_disk(folder)
    except (OSError, RuntimeError) as error:
        raise ModelFileError(f"cannot write the training state {path}: {error}") from None


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, would survive a power failure."""
    with suppress(PermissionError):  # some systems do not open folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_state(
    folder: Path, restore: Callable[[Content], None], note: Callable[[str], None]
) -> bool:
    """Continue from the newest state that can be used; False where there is none.

    Args:
        folder: of the run.
        restore: puts a content to work; may raise anything if it does not fit, and is then
            called again with the one before.
        note: told in one line if the newest was damaged and the one before is used.

    Raises:
        ModelFileError: there are states, all of them damaged or of another run.
    """
    problems: list[str] = []
    for path in _candidates(folder):
        try:
            restore(_read(path))
        # Damaged bytes make the unpickler fail in any way: IndexError, struct.error,
        # AssertionError.
        except Exception as error:
            first = (str(error).splitlines() or [type(error).__name__])[0][:120]
            problems.append(f"cannot resume from {path}: {first}")
            continue
        if problems:
            note(f"{problems[0]}; continuing from {path.name}, the checkpoint before")
        return True
    if problems:
        raise ModelFileError(
            f"{problems[0]}; it is damaged or of another run: choose another --output or delete it"
        )
    return False


def _candidates(folder: Path) -> Iterator[Path]:
    for name in (STATE_FILE, PREVIOUS_FILE):
        if (folder / name).exists():
            yield folder / name


def _read(path: Path) -> Content:
    """The content; torch itself does not look at the checksums of its archive."""
    with zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise ValueError(f"{bad} has a wrong checksum")
    content: Content = torch.load(path, map_location="cpu", weights_only=True)
    return content
