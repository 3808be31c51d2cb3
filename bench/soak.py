"""Four 1080p cameras on one machine: how old their results are, how fair, and what grows.

    python bench/soak.py --json docs/results/soak.json --minutes 10

Four synthetic cameras of people, computed in this process, through the shipped model and a
callback, as ``centermask-edge live --soak`` runs them. The governor has no limit to keep: ages are
what the latest-frame slots give by themselves. Results are counted after the first seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from centermask_edge.cli.report import write_json
from centermask_edge.live.live_config import CameraConfig, LiveConfig
from centermask_edge.live.runtime import Limits, Outcome, run
from centermask_edge.live.view.snapshot import CameraNow, Snapshot
from centermask_edge.live.view.terminal import LineView
from centermask_edge.live.wiring import open_parts
from centermask_edge.measure.leaks import Finding
from centermask_edge.measure.stages import processor_name

CAMERAS = 4
ADDRESS = "synthetic:people?width={width}&height={height}&fps={fps:g}&objects=3&seed={seed}"
SIZE = (1920, 1080)
_SETTLED_S = 10.0


@dataclass(slots=True)
class QuietView:
    """Lines to the terminal; results so far once the run has settled, for fairness from there."""

    lines: LineView = field(default_factory=lambda: LineView(Console(stderr=True)))
    settled: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> QuietView:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to finish."""

    def line(self, text: str) -> None:
        """One line for the operator."""
        self.lines.line(text)

    def update(self, found: Snapshot) -> None:
        """The run as it is now."""
        if not self.settled and found.elapsed_s >= _SETTLED_S:
            self.settled = {c.health.camera: c.results for c in found.cameras}


def _camera(now: CameraNow, settled: int) -> dict[str, Any]:
    ages = now.age_run.read()
    return {
        "camera": now.health.camera,
        "results": now.results - settled,
        "age_p50_ms": round(1000 * ages.p50_s, 1),
        "age_p95_ms": round(1000 * ages.p95_s, 1),
        "age_p99_ms": round(1000 * ages.p99_s, 1),
    }


def _finding(found: Finding) -> dict[str, Any]:
    return {
        "resource": found.resource.value,
        "first": round(found.first, 1),
        "last": round(found.last, 1),
        "per_hour": round(found.slope.per_hour, 2),
        "low": round(found.slope.low, 2),
        "high": round(found.slope.high, 2),
        "leaks": found.leaks,
    }


def unfairness(counts: list[int]) -> float:
    """The widest gap between cameras in percent of their mean.

    >>> unfairness([95, 100, 105])
    10.0
    """
    return round(100 * (max(counts) - min(counts)) / (sum(counts) / len(counts)), 2)


def measure(minutes: float, fps: float, size: tuple[int, int]) -> dict[str, Any]:
    """One run and its figures."""
    width, height = size
    cameras = tuple(
        CameraConfig(
            address=ADDRESS.format(width=width, height=height, fps=fps, seed=seed),
            name=f"camera {seed + 1}",
        )
        for seed in range(CAMERAS)
    )
    view = QuietView()
    parts = open_parts(LiveConfig(cameras=cameras), view.line)
    outcome = run(parts, Limits(seconds=60 * minutes, soak=True), view)
    return _figures(outcome, view.settled, fps, size)


def _figures(
    outcome: Outcome, settled: dict[str, int], fps: float, size: tuple[int, int]
) -> dict[str, Any]:
    last = outcome.last
    rows = [_camera(c, settled.get(c.health.camera, 0)) for c in last.cameras]
    total = last.age_run.read()
    assert outcome.leaks is not None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor_name(),
        "picture": f"{size[0]}x{size[1]}",
        "camera_fps": fps,
        "minutes": round(last.elapsed_s / 60, 2),
        "results_per_s": round(sum(c.results for c in last.cameras) / last.elapsed_s, 2),
        "age_p50_ms": round(1000 * total.p50_s, 1),
        "age_p95_ms": round(1000 * total.p95_s, 1),
        "age_p99_ms": round(1000 * total.p99_s, 1),
        "unfairness_percent": unfairness([row["results"] for row in rows]),
        "cameras": rows,
        "growth": [_finding(f) for f in outcome.leaks.findings],
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--fps", type=float, default=15.0, help="of each camera")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("WIDTH", "HEIGHT"))
    asked = parser.parse_args()
    found = measure(asked.minutes, asked.fps, tuple(asked.size))
    for row in found["cameras"] + found["growth"]:
        sys.stdout.write(f"{row}\n")
    write_json(asked.json, found)
    sys.stdout.write(
        f"{found['results_per_s']} results/s, age p95 {found['age_p95_ms']} ms, "
        f"unfair by {found['unfairness_percent']} %\n"
    )


if __name__ == "__main__":
    main()
