"""Results as JSON lines in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from centermask_edge.errors import SinkError
from centermask_edge.live.outputs.outlet import LINES
from centermask_edge.live.outputs.schema import dumps, result_line
from centermask_edge.live.result import Result


class ResultLines:
    """One JSON object a result, written out at once: an interrupted run leaves whole lines.

    Args:
        path: file to write; opened with the first result, so that a run that fails to start
            keeps the old one.
        times: see ``result_line``; without, equal results give equal bytes.
    """

    queue = LINES

    def __init__(self, path: Path, *, times: bool = True) -> None:
        self.name = f"lines {path.name}"
        self._path, self._times = path, times
        self._file: BinaryIO | None = None
        self._good = 0

    def write(self, result: Result) -> None:
        """The line of one result.

        Raises:
            SinkError: it cannot be written; what is in the file stays whole lines.
        """
        line = dumps(result_line(result, times=self._times)).encode() + b"\n"
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
                self._good = 0
            # A full disk takes the first half of a line; the next attempt goes over it.
            os.ftruncate(self._file.fileno(), self._good)
            self._file.seek(self._good)
            self._write_all(self._file, line)
            self._good += len(line)
        except OSError as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None

    def _write_all(self, file: BinaryIO, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[file.write(rest) :]

    def close(self) -> None:
        """Close the file, without a half line at its end."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            with file:
                os.ftruncate(file.fileno(), self._good)
        except OSError as error:
            raise SinkError(f"cannot finish {self._path}: {error.strerror}") from None
