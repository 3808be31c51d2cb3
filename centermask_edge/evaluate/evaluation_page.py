"""An evaluation as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from centermask_edge.charts import Curve, chart
from centermask_edge.evaluate.breakdown import Breakdown
from centermask_edge.evaluate.coco import Curves, Evaluation, Precision
from centermask_edge.evaluate.confusion import NOTHING, Confusion
from centermask_edge.evaluate.findings import Findings
from centermask_edge.evaluate.worst_gallery import worst_gallery
from centermask_edge.page import (
    bars,
    card,
    details,
    facts,
    folded_table,
    header,
    page,
    section,
    side_by_side,
    table,
    tiles,
)

_CLASSES = 20
_MATRIX = 16
_UPRIGHT = 6  # classes up to which the matrix' names lie
_HEAD = ("", "AP", "AP50", "AP75", "small", "medium", "large")
_CURVES = ((0, "IoU 0.50"), (5, "IoU 0.75"), (None, "mean, 0.50 to 0.95"))


def evaluation_page(findings: Findings, about: Sequence[tuple[str, str]]) -> str:
    """The page.

    Args:
        findings: what was found.
        about: names and values that say what was evaluated, the model and the set first.
    """
    report = findings.evaluation.report
    over = f"Evaluation of {about[0][1]} on {about[1][1]}"
    headline = f"Mask AP {points(report.mask.ap)}, box AP {points(report.box.ap)}"
    under = f"{report.images} pictures with {report.instances} objects. {_share(findings)}"
    body = (
        header(over, headline, under=under),
        _tiles(findings),
        _accuracy(findings.evaluation),
        _classes(findings.evaluation),
        _errors(findings),
        _curves(findings.evaluation),
        _confusion(findings.confusion),
        worst_gallery(findings.worst),
        section("Where this comes from", facts(about)),
    )
    return page(over, body)


def points(value: float) -> str:
    """AP to one decimal, a dash where the set has no such object."""
    return f"{value:.1f}" if value >= 0 else "-"


def precision_cells(row: Precision) -> list[str]:
    """The six figures of a row."""
    values = (row.ap, row.ap50, row.ap75, row.small, row.medium, row.large)
    return [points(v) for v in values]


def _share(findings: Findings) -> str:
    worst = max(findings.mask.costs, key=lambda c: c.points)
    if worst.points <= 0:
        return "No kind of error costs anything."
    return f"What costs most: {worst.kind.value} ({worst.points:.1f} points of mask AP at IoU 0.5)."


def _tiles(findings: Findings) -> str:
    counts = findings.confusion.counts
    right = int(counts.diagonal()[:-1].sum())
    there, shown = int(counts[:-1].sum()), int(counts[:, :-1].sum())
    mask = findings.evaluation.report.mask
    score = f"score from {findings.least_score:g}"
    return tiles(
        (
            ("Mask AP50", points(mask.ap50), f"AP75: {points(mask.ap75)}"),
            ("Found", f"{right} of {there}", f"objects, as what they are; {score}"),
            ("Right", f"{right} of {shown}", f"detections; {score}"),
            ("Missed", str(int(counts[:-1, -1].sum())), f"objects; {score}"),
        )
    )


def _accuracy(evaluation: Evaluation) -> str:
    report = evaluation.report
    rows = [["mask", *precision_cells(report.mask)], ["box", *precision_cells(report.box)]]
    note = (
        "COCO protocol, in percent: AP is the mean over IoU 0.50 to 0.95; small is below 32 x 32 "
        "pixels, large from 96 x 96. A dash: the set has no such object."
    )
    return section("Accuracy", table(_HEAD, rows), note=note)


def _classes(evaluation: Evaluation) -> str:
    found = [row for row in evaluation.report.classes if row.objects]
    if len(found) < 2:
        return ""
    head = ("class", "objects", "mask AP", *_HEAD[2:], "box AP")
    rows = [
        [r.name, r.objects, *precision_cells(r.mask), points(r.box.ap)]
        for r in sorted(found, key=lambda r: r.mask.ap)
    ]
    return section("By class, the worst first", folded_table(head, rows, _CLASSES))


def _errors(findings: Findings) -> str:
    kinds = [
        (mask.kind.value, mask.kind.meaning, mask.count, box.count)
        for mask, box in zip(findings.mask.costs, findings.box.costs, strict=True)
    ]
    head = ("error", "what it is", "masks", "boxes")
    note = (
        "After TIDE: the points of AP at IoU 0.5 that would be won if an oracle mended this kind "
        "alone. Costs do not add up. All detections of any score count."
    )
    return section(
        "What the errors cost",
        side_by_side(_costs("Masks", findings.mask), _costs("Boxes", findings.box)),
        details("What each kind is, and how many", table(head, kinds, words=(1,)), is_open=True),
        note=note,
    )


def _costs(title: str, found: Breakdown) -> str:
    extra = [
        ("all false detections", found.false_positives),
        ("all objects not found", found.false_negatives),
    ]
    rows = [(c.kind.value, c.points) for c in found.costs]
    most = max((v for _, v in (*rows, *extra)), default=0.0) or 1.0
    return card(
        f"{title}: AP50 {found.ap50:.1f}",
        bars(((n, v / most, f"{v:.1f}") for n, v in rows), "bad"),
        "<h3 style='margin-top:16px'>Together</h3>",
        bars((n, v / most, f"{v:.1f}") for n, v in extra),
    )


def _curves(evaluation: Evaluation) -> str:
    cards = [
        card(title, chart(_lines(curves), "recall", "precision"))
        for title, curves in (("Masks", evaluation.mask), ("Boxes", evaluation.box))
    ]
    note = "Mean over the classes that the set has; precision is the best at that recall or beyond."
    return section("Precision and recall", side_by_side(*cards), note=note)


def _lines(curves: Curves) -> list[Curve]:
    known = (curves.precision > -1).all(axis=(0, 1))
    values = curves.precision[..., known]
    if not known.any():
        return []
    found = []
    for place, name in _CURVES:
        line = (values if place is None else values[place : place + 1]).mean(axis=(0, 2))
        found.append(Curve(name, [(i / 100, float(v)) for i, v in enumerate(line)]))
    return found


def _confusion(found: Confusion) -> str:
    part = found.part(_MATRIX)
    content = f"<div class='card scroll'>{_matrix(part)}</div>"
    pairs = found.worst(12)
    if pairs:
        rows = ((f"{true} taken for {other}", count) for true, other, count in pairs)
        content += details("The commonest confusions", table(("", "how often"), rows))
    some = "" if part is found else f" The {_MATRIX} classes that are confused most."
    note = (
        f"Rows are what is there, columns what was found: mask IoU from 0.5, score from "
        f"{found.least_score:g}. Last column: not found; last row: found where nothing is, or "
        f"twice.{some}"
    )
    return section("What is taken for what", content, note=note)


def _matrix(found: Confusion) -> str:
    names = [*found.names, NOTHING]
    head = "".join(f"<th scope='col'>{escape(n)}</th>" for n in [*names[:-1], "not found"])
    many = " many" if len(found.names) > _UPRIGHT else ""
    rows = []
    for i, name in enumerate(names):
        total = int(found.counts[i].sum()) or 1
        cells = "".join(
            _cell(int(count), int(count) / total, i == j, i == j == len(names) - 1)
            for j, count in enumerate(found.counts[i])
        )
        rows.append(f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>")
    return (
        f"<table class='matrix{many}'><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(count: int, share: float, right: bool, empty: bool) -> str:
    if empty or not count:
        return "<td></td>"
    kind = "hit" if right else "miss"
    return f"<td class='{kind}' style='--share: {0.12 + 0.6 * share:.2f}'>{count}</td>"
