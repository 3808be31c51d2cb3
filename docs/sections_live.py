"""Sections on live runs."""

from __future__ import annotations

from tables import caption, not_measured, results, table


def synthetic() -> str:
    """Live results beside the truth of a synthetic camera."""
    data = results("synthetic")
    if data is None:
        return not_measured(
            "synthetic", "python bench/synthetic.py --json docs/results/synthetic.json"
        )
    shifts = list(data["rows"][0]["mask_iou_at_shift"])
    titles = [f"{int(s):+d}" if s != "0" else "own frame" for s in shifts]
    head = ["source", "results", "recall %", "precision %", *(f"IoU {t}" for t in titles)]
    rows = [
        [r["source"], r["results"], f"{r['recall']:.1f}", f"{r['precision']:.1f}"]
        + [f"{r['mask_iou_at_shift'][s]:.1f}" for s in shifts]
        for r in data["rows"]
    ]
    replay = data["replay"]
    same = "the same bytes" if replay["same_bytes"] else "OTHER BYTES"
    return (
        f"{table(head, rows)}\n\nRecall, precision and mean mask IoU at score {data['score']} and "
        f"IoU 0.5; the IoU also with the truth of frames before and after. {replay['results']} "
        f"recorded frames, replayed: {same}. Age of the camera's results: p95 "
        f"{data['age_p95_ms']:.0f} ms. {data['processor']}, {data['date']}."
    )


def soak() -> str:
    """Four cameras at once: ages, fairness, growth."""
    data = results("soak")
    if data is None:
        return not_measured("soak", "python bench/soak.py --json docs/results/soak.json")
    head = ["camera", "results", "age p50 ms", "p95 ms", "p99 ms"]
    keys = ("age_p50_ms", "age_p95_ms", "age_p99_ms")
    rows = [[r["camera"], r["results"], *(f"{r[k]:.0f}" for k in keys)] for r in data["cameras"]]
    grown = [
        [g["resource"], g["first"], g["last"], f"{g['low']} to {g['high']}", _yes(g["leaks"])]
        for g in data["growth"]
    ]
    growth = table(["of the process", "first", "last", "slope an hour, 95 %", "leaks"], grown)
    return (
        f"{table(head, rows)}\n\n{data['results_per_s']} results a second in all, unfair by "
        f"{data['unfairness_percent']} %, from {len(rows)} cameras of {data['picture']} at "
        f"{data['camera_fps']:g} frames a second, {data['minutes']:.1f} minutes. "
        f"{data['processor']}, {data['date']}.\n\n{growth}"
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def frames() -> str:
    """One frame from decoding to drawn masks, by model and number of instances."""
    data = results("frames")
    if data is None:
        return not_measured("frames", "python bench/frames.py --json docs/results/frames.json")
    stages = ("decode", "preprocess", "dense", "mask_branch", "masks", "draw")
    head = ["model, instances", *(s.replace("_", " ") for s in stages), "whole", "p95", "best"]
    rows = [
        [f"{r['model']}, {r['instances']}"]
        + [f"{r[f'{s}_ms']:.1f}" for s in stages]
        + [f"{r[key]:.1f}" for key in ("total_ms", "total_p95_ms", "total_best_ms")]
        for r in data["frames"]
    ]
    alone = [
        [r["job"], *(f"{r[key]:.2f}" for key in ("median_ms", "p95_ms", "best_ms"))]
        for r in data["one_core"]
    ]
    jobs = table(["50 instances on one core", "p50 ms", "p95 ms", "best ms"], alone)
    return f"{table(head, rows)}\n\nMilliseconds, medians. {caption(data)}\n\n{jobs}"


SECTIONS = {
    "synthetic": synthetic,
    "soak": soak,
    "frames": frames,
}
