"""Sections on live runs."""

from __future__ import annotations

from tables import not_measured, results, table


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


SECTIONS = {
    "synthetic": synthetic,
}
