"""Results that survive an interruption: one line of JSON for each, forced to the disk."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from centermask_edge.quantize.errors import QuantizationError


def fingerprint(content: Any) -> str:
    """SHA-256 of plain data, in hexadecimal digits; equal for equal data."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """A file of results by key; a later line holds against an earlier one.

    A line that was cut off, or that is something else, is passed over: its result is made again.

    Args:
        path: of the file; None keeps results in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._results: dict[str, Any] = dict(_read(path)) if path is not None else {}
        self._whole = path is None or _ends_whole(path)

    def get(self, key: str) -> Any | None:
        """The result under a key; None where there is none."""
        return self._results.get(key)

    def put(self, key: str, result: Any) -> None:
        """Keeps a result of plain data.

        Raises:
            QuantizationError: the file cannot be written.
        """
        self._results[key] = result
        if self.path is None:
            return
        line = json.dumps({"key": key, "result": result}) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                # What an interruption cut off must not swallow this line.
                file.write(line if self._whole else f"\n{line}")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise QuantizationError(f"cannot write {self.path}: {error.strerror}") from None
        self._whole = True


def _read(path: Path) -> list[tuple[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise QuantizationError(f"cannot read {path}: {error.strerror}") from None
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
            found.append((str(entry["key"]), entry["result"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _ends_whole(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return True
    return not content or content.endswith(b"\n")
