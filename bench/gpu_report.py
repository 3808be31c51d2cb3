"""What the figures say: the targets they meet or miss, and a short table."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Result = dict[str, Any]
MET, MISSED, OPEN = "met", "missed", "not measured"


def rows_of(result: Result, kernel: str, pattern: str = "") -> list[dict[str, Any]]:
    """Timed jobs of a kernel whose name matches."""
    return [
        row
        for row in result.get("timings", [])
        if row["kernel"] == kernel and re.search(pattern, row["name"])
    ]


def _verdict(
    values: list[float], good: Callable[[float], bool], worst: Callable[..., float]
) -> Any:
    if not values:
        return {"state": OPEN, "value": None}
    value = worst(values)
    return {"state": MET if good(value) else MISSED, "value": value}


def targets(result: Result) -> dict[str, dict[str, Any]]:
    """Each target of the design (section 8) with what was measured, the worst of its rows."""

    def fractions(kernel: str, pattern: str) -> list[float]:
        rows = rows_of(result, kernel, pattern)
        return [row["copy_fraction"] for row in rows if row["copy_fraction"] is not None]

    def ratios(pattern: str) -> list[float]:
        rows = rows_of(result, "roi_align", pattern)
        return [row["speedup"]["torchvision"] for row in rows if "torchvision" in row["speedup"]]

    times = [
        row["times"]["kernel"]["warm_p50_us"] or row["times"]["kernel"]["cold_p50_us"]
        for row in rows_of(result, "decode_nms", "80 classes, 10000 ")
    ]
    sanitizer = [
        entry["findings"] for entry in result.get("sanitizer", {}).values() if "findings" in entry
    ]
    return {
        "spatial attention at K 4000: >= 80 % of copy bandwidth": _verdict(
            fractions("spatial_attention", "K 4000"), lambda v: v >= 0.8, min
        ),
        "preprocessing, batch 16: >= 80 % of copy bandwidth": _verdict(
            fractions("preprocess", "batch 16"), lambda v: v >= 0.8, min
        ),
        "RoIAlign at K 50: >= 5 x torchvision by level": _verdict(
            ratios("K 50,"), lambda v: v >= 5, min
        ),
        "RoIAlign at K 1000: never slower than torchvision": _verdict(
            ratios("K 1000,"), lambda v: v >= 1, min
        ),
        "decode + NMS of 10 k candidates: <= 60 us": _verdict(times, lambda v: v <= 60, max),
        "compute-sanitizer: no finding": _verdict(
            [float(s) for s in sanitizer if s is not None], lambda v: v == 0, max
        ),
    }


def table(result: Result) -> str:
    """The figures as lines of text, for the end of a run."""
    tests, lines = result["tests"], [f"GPU {result['environment']['gpu']}"]
    if result["rehearsal"]:
        lines.append("REHEARSAL ON A CPU: no figure below means anything")
    lines.append(f"tests: {tests['passed']} passed, {len(tests['failures'])} failed")
    lines += [f"  FAILED {text}" for text in tests["failures"]]
    for tool, entry in result["sanitizer"].items():
        lines.append(f"{tool}: {entry.get('findings', entry.get('skipped'))}")
    bandwidth = result.get("copy_bytes_per_s")
    lines.append(f"copy bandwidth: {bandwidth / 1e9:.0f} GB/s" if bandwidth else "no bandwidth")
    lines.append(f"{'kernel':<18}{'job':<46}{'cold us':>9}{'warm us':>9}{'copy':>6}  speed-up")
    for row in result["timings"]:
        ours = row["times"]["kernel"]
        warm = "-" if ours["warm_p50_us"] is None else f"{ours['warm_p50_us']:.1f}"
        share = "-" if row["copy_fraction"] is None else f"{row['copy_fraction']:.2f}"
        speed = ", ".join(f"{name} {value:.1f}x" for name, value in row["speedup"].items())
        lines.append(
            f"{row['kernel']:<18}{row['name']:<46}{ours['cold_p50_us']:>9.1f}{warm:>9}{share:>6}  "
            f"{speed}"
        )
    for row in result["frames"]:
        times = row["times"]
        warm = "-" if times["warm_p50_us"] is None else f"{times['warm_p50_us'] / 1e3:.2f}"
        lines.append(
            f"{row['model']:<18}{row['name']:<46}{times['cold_p50_us'] / 1e3:>9.2f}{warm:>9} ms"
            f"  {row['note']}"
        )
    lines += [f"skipped: {text}" for text in result["skipped"]]
    for name, target in result["targets"].items():
        value = "" if target["value"] is None else f" ({target['value']:.2f})"
        lines.append(f"{target['state']:<13}{name}{value}")
    return "\n".join(lines)
