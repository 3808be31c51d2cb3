"""What the figures say: the targets they meet or miss, and a short table."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gpu_sanitizer import NEEDED

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
) -> Result:
    if not values:
        return {"state": OPEN, "value": None}
    value = worst(values)
    return {"state": MET if good(value) else MISSED, "value": value}


def _fractions(result: Result, kernel: str, pattern: str) -> list[float]:
    return [row["copy_fraction"] for row in rows_of(result, kernel, pattern)]


def _ratios(result: Result, pattern: str) -> list[float]:
    rows = rows_of(result, "roi_align", pattern)
    return [row["speedup"]["torchvision"] for row in rows if "torchvision" in row["speedup"]]


def _decode_us(result: Result) -> list[float]:
    rows = rows_of(result, "decode_nms", "80 classes, 10000 ")
    times = [row["times"]["kernel"] for row in rows]
    return [t["warm_p50_us"] or t["cold_p50_us"] for t in times]


def _outside_ms(result: Result) -> list[float]:
    """Preprocessing and drawing of one 1080p frame; without either there is no figure."""
    rows = [
        *rows_of(result, "preprocess", "1920x1080, BGR, batch 1$")[:1],
        *rows_of(result, "mask_overlay", "1920x1080, 50 masks")[:1],
    ]
    if len(rows) < 2:
        return []
    return [sum(row["times"]["kernel"]["cold_p50_us"] for row in rows) / 1e3]


def _findings(result: Result) -> list[float]:
    """Findings of all tools; none, where a tool that matters has not run and the rest are clean."""
    entries = result.get("sanitizer", {})
    found = {tool: e["findings"] for tool, e in entries.items() if "findings" in e}
    failed = any("failed" in e for e in entries.values())
    complete = not failed and all(tool in found for tool in NEEDED)
    return [float(n) for n in found.values()] if complete or any(found.values()) else []


def targets(result: Result) -> dict[str, Result]:
    """Each target of the design (section 8) with what was measured, the worst of its rows."""
    return {
        "spatial attention at K 4000: >= 80 % of copy bandwidth": _verdict(
            _fractions(result, "spatial_attention", "K 4000,"), lambda v: v >= 0.8, min
        ),
        "preprocessing, batch 16: >= 80 % of copy bandwidth": _verdict(
            _fractions(result, "preprocess", "batch 16"), lambda v: v >= 0.8, min
        ),
        "RoIAlign at K 50: >= 5 x torchvision by level": _verdict(
            _ratios(result, "K 50,"), lambda v: v >= 5, min
        ),
        "RoIAlign at K 1000: never slower than torchvision": _verdict(
            _ratios(result, "K 1000,"), lambda v: v >= 1, min
        ),
        "decode + NMS of 10 k candidates: <= 60 us": _verdict(
            _decode_us(result), lambda v: v <= 60, max
        ),
        "preprocessing + overlay, 1080p, 50 masks: <= 1 ms": _verdict(
            _outside_ms(result), lambda v: v <= 1, max
        ),
        "compute-sanitizer, memcheck and racecheck: no finding": _verdict(
            _findings(result), lambda v: v == 0, max
        ),
    }


def faults(result: Result) -> list[str]:
    """Everything for which the script ends with 1."""
    found = [f"test: {text}" for text in result["tests"]["failures"]]
    if not result["tests"]["passed"] and not found:
        found.append("tests: none ran")
    for tool, entry in result["sanitizer"].items():
        if entry.get("findings"):
            found.append(f"{tool}: {entry['findings']} findings")
        if "failed" in entry:
            found.append(f"{tool}: {entry['failed']}")
    return found + [f"{where}: {text}" for where, text in result["errors"].items()]


def _us(value: float | None, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:.1f}" if unit == 1 else f"{value / unit:.2f}"


def _job_line(row: dict[str, Any]) -> str:
    ours = row["times"]["kernel"]
    others = [f"{name} {value:.1f}x" for name, value in row["speedup"].items()]
    others += [f"{name} failed" for name in row["failed"]]
    return (
        f"{row['kernel']:<18}{row['name']:<40}{_us(ours['cold_p50_us']):>9}"
        f"{_us(ours['warm_p50_us']):>9}{row['copy_fraction']:>6.2f}  {', '.join(others)}"
    ).rstrip()


def _frame_line(row: dict[str, Any]) -> str:
    start = f"{row['model']:<10} {row['name']:<47}"
    if "failed" in row:
        return f"{start} failed: {row['failed'][:80]}"
    times = row["times"]
    cold, warm = _us(times["cold_p50_us"], 1e3), _us(times["warm_p50_us"], 1e3)
    graph = row.get("speedup_as_graph", {})
    speed = [f"{value:.1f}x {name}" for name, value in row.get("speedup", {}).items()]
    speed += [f"as a graph {value:.1f}x" for value in graph.values()]
    return f"{start}{cold:>9}{warm:>9} ms  {', '.join([*speed, row['note']])}"


def _worth_a_line(row: dict[str, Any]) -> bool:
    """The table is short: sizes that a target or a reader asks about; the JSON has them all."""
    sizes = r"K (50|1000|4000),|candidates|1920x1080.*(batch (1|16)|masks)$"
    return re.search(sizes, row["name"]) is not None and "NV12" not in row["name"]


def table(result: Result) -> str:
    """The figures as lines of text, for the end of a run."""
    tests, rehearsal = result["tests"], result["rehearsal"]
    lines = ["REHEARSAL ON A CPU: no figure below means anything"] if rehearsal else []
    rows = [row for row in result["timings"] if rehearsal or _worth_a_line(row)]
    if rows:
        head = f"{'kernel':<18}{'job':<40}{'cold us':>9}{'warm us':>9}{'copy':>6}"
        lines.append(f"{head}  times as fast as")
    lines += [_job_line(row) for row in rows]
    lines += [_frame_line(row) for row in result["frames"]]
    if result["skipped"]:
        lines.append(f"{len(result['skipped'])} skipped for time, first: {result['skipped'][0]}")
    bandwidth = result.get("copy_bytes_per_s")
    lines.append(f"copy bandwidth: {bandwidth / 1e9:.0f} GB/s" if bandwidth else "no bandwidth")
    for tool, entry in result["sanitizer"].items():
        number = entry.get("findings")
        state = entry.get("skipped") or entry.get("failed") or entry.get("cases") or "it died of it"
        lines.append(f"{tool}: {'not run' if number is None else f'{number} findings'} ({state})")
    passed, failed = tests["passed"], len(tests["failures"])
    lines.append(f"{result['environment']['gpu']}: {passed} tests passed, {failed} failed")
    for name, target in result["targets"].items():
        value = "" if target["value"] is None else f" ({target['value']:.2f})"
        lines.append(f"{target['state']:<13}{name}{value}")
    return "\n".join([*lines, *(f"FAULT {text[:300]}" for text in faults(result)[:10])])
