"""Sections on CUDA kernels and TensorRT engines."""

from __future__ import annotations

import json
from typing import Any

import tables
from tables import caption, not_measured, results, table


def kernels() -> str:
    """Cases of every kernel and its largest error, on the device they ran on."""
    data = results("kernels")
    if data is None:
        return not_measured(
            "kernels", "centermask-edge kernels check --host --json docs/results/kernels.json"
        )
    rows = [
        [
            row["kernel"],
            row["kind"],
            row["cases"],
            len(row["failures"]),
            "equal to the bit" if row["exact"] else f"{row['worst']:.1e} {row['unit']}".strip(),
        ]
        for row in data["rows"]
    ]
    head = ["kernel", "type", "cases", "failed", "largest error"]
    return f"{table(head, rows)}\n\n{caption(data)}".strip()


def gpu() -> str:
    """Each kernel on each GPU that ``make gpu`` ran on."""
    found = [
        json.loads(p.read_text(encoding="utf-8")) for p in sorted(tables.GPU_RESULTS.glob("*.json"))
    ]
    if not found:
        return (
            "Not measured yet: no GPU has run these kernels. `make gpu` on a machine with one "
            "writes a file to `bench/results/`, and `make docs` this table."
        )
    return "\n\n".join(_gpu_table(result) for result in found)


def _gpu_table(result: dict[str, Any]) -> str:
    rows = []
    for row in result["timings"]:
        ours = row["times"]["kernel"]
        warm = "-" if ours["warm_p50_us"] is None else f"{ours['warm_p50_us']:.1f}"
        speed = ", ".join(f"{name} {value:.1f}x" for name, value in row["speedup"].items())
        share = f"{row['copy_fraction']:.2f}"
        name = f"{row['kernel']}: {row['name']}"
        rows.append([name, f"{ours['cold_p50_us']:.1f}", warm, row["bytes"], share, speed or "-"])
    head = ["kernel", "cold us", "warm us", "bytes", "of copy bandwidth", "faster than"]
    facts = {**result["environment"], "date": result["date"]}
    return f"{table(head, rows)}\n\n{caption(facts)}"


def engines() -> str:
    """The shipped model as TensorRT-RTX engines, built without a GPU."""
    data = results("engines")
    if data is None:
        return not_measured("engines", "python bench/engines.py --json docs/results/engines.json")
    rows = [
        [
            row["precision"],
            f"{row['seconds']:.1f}",
            f"{row['engine_mb']:.1f}",
            ", ".join(f"{100 * share:.1f} % {kind}" for kind, share in row["conv_shares"].items()),
            row["layers"],
            row["reformats"],
        ]
        for row in data["rows"]
    ]
    head = ["precision", "build s", "engine MB", "convolutions' multiply-adds", "layers"]
    return f"{table([*head, 'of them reformats'], rows)}\n\n{caption(data)}"


SECTIONS = {
    "kernels": kernels,
    "gpu": gpu,
    "engines": engines,
}
