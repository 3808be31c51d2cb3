"""The section on cameras that go wrong."""

from __future__ import annotations

from typing import Any

from tables import not_measured, results, table


def faults() -> str:
    """Each mishap, reconnecting, and what neighbours notice."""
    data = results("faults")
    if data is None:
        return not_measured("faults", "python bench/faults.py --json docs/results/faults.json")
    missed = "".join(f"\n\n**Missed:** {line}." for line in data["missed"])
    return f"{_mishaps(data)}\n\n{_reconnecting(data)}\n\n{_neighbours(data)}{missed}"


def _mishaps(data: dict[str, Any]) -> str:
    head = ["mishap", "lasts s", "noticed s", "back s", "frames lost", "states", "faults"]
    head += ["memory before, most, after MB", "others' gap ms"]
    rows = [
        [
            row["mishap"],
            f"{row['lasts_s']:g}",
            "-" if row["noticed_s"] is None else f"{row['noticed_s']:.2f}",
            f"{row['back_s']:.2f}",
            row["frames_lost"],
            ", ".join(row["states"]) or "live",
            ", ".join(row["faults"]) or "-",
            f"{row['memory_before_mb']:.0f}, {row['memory_most_mb']:.0f}, "
            f"{row['memory_after_mb']:.0f}",
            row["other_gap_ms"],
        ]
        for row in data["mishaps"]
    ]
    waits = {row["mishap"]: row["auth_retry_s"] for row in data["mishaps"]}
    usual = waits["freeze"]
    return (
        f"{table(head, rows)}\n\n{data['picture']} at {data['fps']:g} frames/s, settings as they "
        f"are but for `unauthorised`: `auth_retry_s` {waits['unauthorised']:g} in place of "
        f"{usual:g}, as a camera that refuses a password is left alone on purpose, so that no "
        f"account is locked. {data['processor']}; load average before the run "
        f"{data['load_before']}; {data['date']}."
    )


def _reconnecting(data: dict[str, Any]) -> str:
    row = data["reconnecting"]
    held = [
        [name, *row[key]]
        for name, key in (
            ("threads", "threads"),
            ("descriptors", "descriptors"),
            ("memory MB", "memory_mb"),
        )
    ]
    return (
        f"{row['reconnects']} resets in a row, {row['seconds_each']} s each, with "
        "`retry_s` 0.02 and `retry_recent_s` 0.05:\n\n"
        f"{table(['of the process', 'before', 'after'], held)}"
    )


def _neighbours(data: dict[str, Any]) -> str:
    head = ["first camera", "phase", "age p50 ms", "p95 ms", "results/s of the other three"]
    keys = ("first_camera", "phase", "age_p50_ms", "age_p95_ms", "results_per_s")
    rows = [[row[key] for key in keys] for row in data["neighbours"]]
    return (
        f"Four cameras of {data['neighbour_fps']} frames/s through the shipped model; the first "
        "one is off, later frozen. Ages of the other three's results:\n\n"
        f"{table(head, rows)}"
    )


SECTIONS = {"faults": faults}
