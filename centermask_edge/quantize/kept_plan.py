"""A plan with parts left in float, and the file in which people read and change it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from centermask_edge.engines.files import write_whole
from centermask_edge.errors import require
from centermask_edge.quantize.blocks import Unit
from centermask_edge.quantize.plan import Plan
from centermask_edge.quantize.search import Found
from centermask_edge.quantize.sensitivity import Ranking, decibels

_WIDTH = 98


def keeping(plan: Plan, kept: Sequence[Unit]) -> Plan:
    """The plan with parts left in float.

    The same parts give the same plan, in whatever order they are named.
    """
    names = sorted(pattern for unit in kept for pattern in unit.patterns)
    return plan.keeping(*names) if names else plan


def plan_text(plan: Plan, found: Found, ranking: Ranking) -> str:
    """The whole plan as YAML, with what was measured of every part beside it.

    It stands for itself: a change to the plan that it came from does not reach it.

    Args:
        plan: that the search started from.
        found: what is to be left in float.
        ranking: the measurements.

    Raises:
        MissingPackageError: PyYAML is not installed.
    """
    yaml = require("yaml", extra="cpu", why="write a quantization plan")
    content: dict[str, Any] = plan.model_dump(mode="json", exclude_defaults=True)
    before = content.pop("keep_float", [])
    content["name"] = f"{plan.name}-kept"
    lines = _comment(f"Found by a search that started from the plan {plan.name!r}.")
    lines += _comment(found.sentence()[:1].upper() + found.sentence()[1:] + ".")
    head = yaml.safe_dump(content, sort_keys=False, width=_WIDTH)
    total = sum(unit.macs for unit in ranking.units)
    lines += [head.rstrip(), *(["keep_float:"] if before or found.kept else [])]
    lines += [f"  - {json.dumps(name)}" for name in before]
    for unit in found.kept:
        lines += [f"  # {text}" for text in _facts(unit, ranking, total)]
        lines += [f"  - {json.dumps(pattern)}" for pattern in unit.patterns]
    return "\n".join(lines) + "\n"


def write_plan(path: Path, plan: Plan, found: Found, ranking: Ranking) -> Path:
    """Writes :func:`plan_text`, whole or not at all; its path.

    Raises:
        ModelFileError: it cannot be written.
        MissingPackageError: PyYAML is not installed.
    """
    return write_whole(path, plan_text(plan, found, ranking).encode())


def _facts(unit: Unit, ranking: Ranking, total: int) -> list[str]:
    part = ranking.of(unit)
    rank = ranking.units.index(part.unit) + 1
    share = f"{unit.macs / total:.1%} of the multiply-adds" if total else "multiply-adds unknown"
    figures = ", ".join(
        f"{kind} {'exact' if (value := decibels(ratio)) is None else f'{value:.1f}'}"
        for kind, ratio in part.alone.items()
    )
    return [f"rank {rank}, {share}, score {part.score:.2g}", f"alone in 8 bits, dB: {figures}"]


def _comment(text: str) -> list[str]:
    """The text in lines of a YAML comment."""
    lines = ["#"]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > _WIDTH:
            lines.append("#")
        lines[-1] += f" {word}"
    return lines
