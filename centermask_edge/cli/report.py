"""Writes the small files that commands leave beside what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from centermask_edge.errors import SinkError


def write_text(path: Path, text: str) -> None:
    """Write a file, and its folder where there is none.

    Raises:
        SinkError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}") from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values as indented JSON; see :func:`write_text`."""
    write_text(path, json.dumps(content, indent=1) + "\n")
