"""Sections on data sets and evaluation: faults that are looked for, and what errors cost."""

from __future__ import annotations

from tables import caption, not_measured, results, table

from centermask_edge.data.checks import Effect, Fault
from centermask_edge.evaluate.breakdown import ErrorKind


def faults() -> str:
    """Every fault and what it does to training, the gravest first."""
    order = list(Effect)
    ranked = sorted(Fault, key=lambda fault: order.index(fault.effect))
    return table(("fault", "what it does"), ((f.value, f.effect.value) for f in ranked))


def errors() -> str:
    """What each kind of error costs the shipped model."""
    data = results("evaluation")
    if data is None:
        command = "centermask-edge evaluate val.json --json docs/results/evaluation.json"
        return not_measured("evaluation", command)
    mask, box = (data["errors"][kind]["costs"] for kind in ("mask", "box"))
    rows = [
        [
            f"{kind.value}: {kind.meaning}",
            f"{mask[kind.value]['points']:.1f}",
            mask[kind.value]["count"],
            f"{box[kind.value]['points']:.1f}",
            box[kind.value]["count"],
        ]
        for kind in ErrorKind
    ]
    head = ("error", "costs, masks", "how many", "costs, boxes", "how many")
    return f"{table(head, rows)}\n\n{caption(data)}"


SECTIONS = {"data-faults": faults, "evaluation-errors": errors}
