"""Sections on INT8: speed, accuracy, the twin of the shipped model."""

from __future__ import annotations

import json
from typing import Any

import tables
from tables import caption, not_measured, results, table


def int8_speed() -> str:
    """FP32, bfloat16 and INT8 by several quantizers, part by part, with the share of the peak."""
    data = results("int8_speed")
    if data is None:
        return not_measured(
            "int8_speed", "python bench/int8_cpu.py --json docs/results/int8_speed.json"
        )
    rows = [
        [
            f"{row['model']}, {row['part']}",
            row["variant"],
            f"{row['median_ms']:.1f}",
            f"{row['p95_ms']:.1f}",
            f"{row['gain']:.2f}x",
            "-" if row["of_peak"] is None else f"{100 * row['of_peak']:.0f} %",
            row["gmacs"],
        ]
        for row in data["rows"]
    ]
    head = ["part", "variant", "p50 ms", "p95 ms", "faster", "of INT8 peak"]
    return f"{table([*head, 'G multiply-adds'], rows)}\n\n{caption(data)}"


def int8_accuracy() -> str:
    """AP of every plan, observer and peer, one table a model."""
    found = sorted((tables.ROOT / "calibration" / "results").glob("*.json"))
    made = [_accuracy_table(json.loads(path.read_text(encoding="utf-8"))) for path in found]
    return "\n\n".join(made) or (
        "Not measured yet: `calibration/results/` is filled by `python bench/int8_accuracy.py`."
    )


def _accuracy_table(data: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['quantizer']}: {row['observer']}",
            *(
                [f"{row[key]:.2f}" for key in ("mask_ap", "mask_ap_lost", "box_ap")]
                if "mask_ap" in row
                else [row["fails"], "-", "-"]
            ),
        ]
        for row in data["rows"]
    ]
    return f"{table(['quantizer: observer', 'mask AP', 'lost', 'box AP'], rows)}\n\n{caption(data)}"


def int8_twin() -> str:
    """The shipped model and its INT8 twin, from the committed verdict."""
    path = tables.ROOT / "calibration" / "verdicts" / "person-int8.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    speed = {row["precision"]: row for row in data["speed"]["rows"]}
    rows = []
    for row in data["accuracy"]:
        timed = speed.get(row["numbers"])
        rows.append(
            [
                row["numbers"].upper(),
                row["engine"],
                f"{row['mask']['ap']:.2f}",
                f"{row['box']['ap']:.2f}",
                "-" if timed is None else f"{timed['median_ms']:.1f}",
            ]
        )
    head = ["precision", "engine", "mask AP", "box AP", "whole network, ms"]
    size = data["speed"]["input_size"]
    facts = {
        "annotations": data["annotations"]["name"],
        "images": data["annotations"]["images"],
        "network input": f"{size[1]}x{size[0]}",
        "processor": data["processor"],
    }
    return f"{table(head, rows)}\n\n{caption(facts)}"


def int8_engines() -> str:
    """The INT8 twin through several engines."""
    found = sorted(tables.RESULTS.glob("ap-int8-*.json"))
    if not found:
        return not_measured("ap-int8-NAME", "centermask-edge evaluate --engine NAME --json FILE")
    results_of = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    rows = [
        [row["model"], row["engine"], f"{row['mask']['ap']:.2f}", f"{row['box']['ap']:.2f}"]
        for row in results_of
    ]
    return table(["file", "engine", "mask AP", "box AP"], rows)


SECTIONS = {
    "int8-speed": int8_speed,
    "int8-accuracy": int8_accuracy,
    "int8-engines": int8_engines,
    "int8-twin": int8_twin,
}
