"""What every generated section is made of: results that commands wrote, and Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
GPU_RESULTS = ROOT / "bench" / "results"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; numbers are aligned to the right, the first column to the left.

    >>> print(table(["stage", "ms"], [["decode", 1.5]]))
    | stage | ms |
    |---|---:|
    | decode | 1.5 |
    """
    titles = list(head)
    rule = "|---|" + "---:|" * (len(titles) - 1)
    lines = ["| " + " | ".join(titles) + " |", rule]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def results(name: str) -> Any | None:
    """The content of ``docs/results/NAME.json``, or None before it was measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def not_measured(name: str, command: str) -> str:
    """The line that stands where a result is missing."""
    return f"Not measured yet: `docs/results/{name}.json` comes from `{command}`."


def caption(data: dict[str, Any]) -> str:
    """The plain values of a result in one line: what was measured, on what, with what."""
    facts = [f"{key.replace('_', ' ')} {value}" for key, value in data.items() if _plain(value)]
    return ", ".join(facts) + "." if facts else ""


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
