"""Sections on training: kills survived, pictures learnt by heart, what each part is worth."""

from __future__ import annotations

from typing import Any

from tables import RESULTS, ROOT, caption, not_measured, results, table


def resume() -> str:
    """One line: a training killed again and again beside one that was left alone."""
    data = results("resume")
    if data is None:
        return not_measured(
            "resume", "python bench/train_resume.py --json docs/results/resume.json"
        )
    differing = data["differences"]
    verdict = "no bit differs" if not differing else f"{len(differing)} places differ"
    return (
        f"Killed {data['kills']} times within {data['steps']} steps and resumed, against the same "
        f"training left alone, on a CPU: of {data['tensors_compared']} tensors of the final state, "
        f"the weights and the log, {verdict}."
    )


def sanity() -> str:
    """AP on the learnt pictures over the steps."""
    data = results("sanity")
    if data is None:
        command = "centermask-edge train SET --sanity --json docs/results/sanity.json"
        return not_measured("sanity", command)
    rows = [
        [p["step"], f"{p['loss']:.3f}", f"{p['box_ap']:.1f}", f"{p['mask_ap']:.1f}"]
        for p in data["curve"]
    ]
    verdict = "reached" if data["reached"] else "not reached"
    facts = (
        f"{data['model']}, {data['pictures']} pictures; true masks at 28 x 28 reach mask AP "
        f"{data['ceiling']:.1f}; {data['wanted']:g} % of both: {verdict}."
    )
    return f"{table(['step', 'loss', 'box AP', 'mask AP'], rows)}\n\n{facts}"


def compare() -> str:
    """AP and cost of every row of the comparison, one table a part, and the loss curves."""
    return _comparison("train_compare")


def eighty() -> str:
    """The same for the run on all 80 classes."""
    return _comparison("train_coco80")


def residual() -> str:
    """The same for the residual connections, which only deeper bodies have."""
    return _comparison("train_residual")


def _comparison(name: str) -> str:
    data = results(name)
    if data is None:
        command = f"python bench/train_compare.py --json docs/results/{name}.json ..."
        return not_measured(name, command)
    parts = [_part(data, part) for part in ("training", "network")]
    picture = RESULTS / f"{name}.svg"
    if picture.exists():
        where = picture.relative_to(ROOT / "docs").as_posix()
        parts.append(f"![Training loss over steps, one curve a row]({where})")
    return "\n\n".join([*(p for p in parts if p), caption(data)])


def _part(data: dict[str, Any], part: str) -> str:
    rows = [
        [
            row["row"],
            f"{row['mask_ap']:.2f}",
            f"{row['mask_ap50']:.2f}",
            f"{row['box_ap']:.2f}",
            f"{row['parameters_m']:.2f}",
            row["steps"],
            f"{row['loss'][-1][1]:.3f}",
        ]
        for row in data["rows"]
        if row["part"] == part or row["row"] == "baseline"
    ]
    if len(rows) < 2 and part == "network":
        return ""
    head = [part, "mask AP", "mask AP50", "box AP", "M parameters", "steps", "last loss"]
    return table(head, rows)


SECTIONS = {
    "train-resume": resume,
    "train-sanity": sanity,
    "train-compare": compare,
    "train-coco80": eighty,
    "train-residual": residual,
}
