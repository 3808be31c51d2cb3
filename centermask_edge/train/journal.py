"""What a training tells about itself: ``losses.csv``, ``log.jsonl``, and TensorBoard's curves.

The two plain files are always written, a line per step and per evaluation. A run that continues
from step N first drops the lines beyond N, so that each step stands there once.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from centermask_edge.errors import ModelFileError, require
from centermask_edge.evaluate.coco import Report

LINES, TABLE = "log.jsonl", "losses.csv"


def _steps_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The whole lines up to a step; a line that a kill cut in two is left out."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("step", step + 1) <= step:
            kept.append(row)
    return kept


class Journal:
    """Writes the logs of a run; use as a context.

    Args:
        folder: of the run.
        step: the last finished one; lines beyond it are dropped.
        tensorboard: whether TensorBoard's file is written too.

    Raises:
        MissingPackageError: tensorboard is wanted and not installed.
        ModelFileError: the files cannot be written.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._board: Any = None
        if tensorboard:
            require("tensorboard", extra="train", why="write TensorBoard curves")
            module = require("torch.utils.tensorboard", extra="train", why="write training curves")
            self._board = module.SummaryWriter(str(folder), purge_step=step)
        kept = _steps_until(folder / LINES, step)
        steps = [row for row in kept if "val" not in row]
        self._columns = list(steps[0]) if steps else []
        try:
            self._lines = _continued(folder / LINES, [_json_line(row) for row in kept])
            self._table = _continued(folder / TABLE, self._table_lines(steps))
        except OSError as error:
            raise ModelFileError(f"cannot write to {folder}: {error.strerror}") from None

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """One finished step: losses, gradient norm, learning rate, seconds."""
        row = {"step": step, **values}
        self._lines.write(_json_line(row))
        self._lines.flush()
        if not self._columns:
            self._columns = list(row)
            self._table.write(_csv_line(self._columns))
        self._table.write(_csv_line([row.get(name) for name in self._columns]))
        self._table.flush()
        self._curves("train", step, values)

    def report(self, step: int, report: Report) -> None:
        """One evaluation."""
        values = {"box_ap": report.box.ap, "mask_ap": report.mask.ap}
        self._lines.write(_json_line({"step": step, "val": report.to_json()}))
        self._lines.flush()
        self._curves("val", step, values)

    def _curves(self, group: str, step: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, step)

    def _table_lines(self, steps: list[dict[str, Any]]) -> list[str]:
        rows = [[row.get(name) for name in self._columns] for row in steps]
        return [_csv_line(self._columns), *map(_csv_line, rows)] if rows else []

    def close(self) -> None:
        """Close every file."""
        files: tuple[TextIO, ...] = (self._lines, self._table)
        for file in files:
            file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _continued(path: Path, lines: list[str]) -> TextIO:
    """The file with these lines, open for more; the old one is there until the new one is whole."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(path)
    return path.open("a", encoding="utf-8", newline="")


def _json_line(row: Mapping[str, Any]) -> str:
    """JSON has no infinity: what is not finite becomes null."""
    plain = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()
    }
    return json.dumps(plain) + "\n"


def _csv_line(values: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
