"""The report's figures as HTML: outcome, tiles, tables and bars."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from centermask_edge.quantize.report.words import macs, megabytes, percent, points
from centermask_edge.quantize.runtime_graph import EIGHT_BITS
from centermask_edge.quantize.verdict import Accuracy, Numbers, Verdict

_COLUMNS = ("AP", "AP50", "AP75", "small", "medium", "large")
_SHOWN_LAYERS = 12


def outcome(verdict: Verdict) -> str:
    """Held or not, in plain words, and what to know about it."""
    state: dict[bool | None, tuple[str, str]] = {
        True: ("held", "Budget held"),
        False: ("broken", "Budget not held"),
    }
    kind, text = state.get(verdict.held, ("", "No budget to hold"))
    if verdict.annotations.images < verdict.annotations.of_images:
        text += ", on a quick look"
    lines = [f"<span class='badge {kind}'>{text}</span>"]
    lines.append(f"<p class='headline'>{escape(verdict.sentence())}</p>")
    found = verdict.annotations
    what = f"{found.images} pictures with {found.objects} objects. {verdict.certainty()}"
    lines.append(f"<p class='soft'>{escape(what.strip())}</p>")
    lines += [f"<p class='note'>{escape(note)}</p>" for note in verdict.notes]
    return "".join(lines)


def tiles(verdict: Verdict) -> str:
    """Four figures in short."""
    found = [_ap_tile(verdict)]
    if verdict.speed is not None and (gain := verdict.speed.gain("int8")) is not None:
        rows = {row.precision: row for row in verdict.speed.rows}
        more = f"{rows['fp32'].median_ms:.1f} ms to {rows['int8'].median_ms:.1f} ms, whole network"
        found.append(_tile("Speed over FP32", f"{gain:.2f}x", more))
    if verdict.coverage is not None:
        share = verdict.coverage.share if verdict.ran is None else verdict.ran.share
        who = "that the file asks for" if verdict.ran is None else f"run by {verdict.ran.engine}"
        found.append(_tile("In 8 bits", percent(share), f"of the multiply-adds, {who}"))
    sizes = {m.numbers: m.bytes for m in verdict.models}
    if verdict.judged is not None:
        more = f"FP32: {megabytes(sizes[Numbers.FP32])}"
        found.append(_tile("File", megabytes(sizes[verdict.judged]), more))
    return "".join(found)


def _ap_tile(verdict: Verdict) -> str:
    aps = {row.numbers: row.mask.ap for row in verdict.accuracy}
    if verdict.judged is None:
        first = verdict.accuracy[0]
        return _tile("Mask AP", points(first.mask.ap), first.numbers.value.upper())
    before = points(aps[Numbers.FP32])
    return _tile("Mask AP", points(aps[verdict.judged]), f"FP32: {before}")


def _tile(name: str, value: str, more: str) -> str:
    return (
        f"<div class='card tile'><div class='name'>{escape(name)}</div>"
        f"<div class='value'>{escape(value)}</div><div class='more'>{escape(more)}</div></div>"
    )


def accuracy(verdict: Verdict) -> str:
    """Mask and box AP by size, and by class where there are several."""
    rows = [*_ap_rows(verdict, "mask"), *_ap_rows(verdict, "box")]
    table = _table(("", *_COLUMNS), rows)
    engines = ", ".join(f"{a.numbers.value.upper()} by {a.engine}" for a in verdict.accuracy)
    what = "COCO protocol, in percent; sizes are COCO's. Lost: what FP32 has more"
    if verdict.judged is not None:
        what += f" than {verdict.judged.value.upper()}"
    return (
        f"<section><h2>Accuracy</h2>{table}<p class='under'><small>"
        f"{escape(what)}. {escape(engines)}.</small></p>{_classes(verdict)}</section>"
    )


def _ap_rows(verdict: Verdict, kind: str) -> Iterable[str]:
    yield f"<tr class='kind'><th scope='rowgroup' colspan='7'>{kind.capitalize()} AP</th></tr>"
    found = {a.numbers: _values(a, kind) for a in verdict.accuracy}
    for numbers, values in found.items():
        yield _row(numbers.value.upper(), [points(v) for v in values])
    if verdict.judged is not None:
        pairs = zip(found[Numbers.FP32], found[verdict.judged], strict=True)
        lost = [None if a is None or b is None else a - b for a, b in pairs]
        limit = verdict.budget if kind == "mask" else None
        cells = [_loss_cell(v, limit if i == 0 else None) for i, v in enumerate(lost)]
        yield f"<tr class='lost'><th scope='row'>lost</th>{''.join(cells)}</tr>"


def _values(row: Accuracy, kind: str) -> tuple[float | None, ...]:
    return (row.mask if kind == "mask" else row.box).values()


def _loss_cell(value: float | None, limit: float | None) -> str:
    mark = ""
    if value is not None and limit is not None:
        mark = " class='bad'" if value > limit else " class='good'"
    return f"<td{mark}>{points(value, signed=True)}</td>"


def _classes(verdict: Verdict) -> str:
    if verdict.judged is None or len(verdict.accuracy[0].classes) < 2:
        return ""
    by = {a.numbers: {c.name: c for c in a.classes} for a in verdict.accuracy}
    rows = []
    for name, after in by[verdict.judged].items():
        before = by[Numbers.FP32][name].mask
        lost = None if before is None or after.mask is None else before - after.mask
        cells = [str(after.objects), points(before), points(after.mask), points(lost, signed=True)]
        rows.append((-(lost or 0.0), _row(name, cells)))
    rows.sort(key=lambda row: row[0])
    judged = verdict.judged.value.upper()
    table = _table(("class", "objects", "mask AP, FP32", judged, "lost"), [r for _, r in rows])
    is_open = " open" if len(rows) <= _SHOWN_LAYERS else ""
    return (
        f"<details{is_open}><summary>By class, the greatest loss first</summary>{table}</details>"
    )


def coverage(verdict: Verdict) -> str:
    """What runs in 8 bits and how fast."""
    parts = [_shares(verdict), _speeds(verdict)]
    if not any(parts):
        return ""
    return (
        "<section><h2>Coverage and speed</h2>"
        f"<div class='side-by-side'>{''.join(parts)}</div>{_layers(verdict)}</section>"
    )


def _shares(verdict: Verdict) -> str:
    asked, ran = verdict.coverage, verdict.ran
    if asked is None:
        return ""
    bars = [_bar("asked by the file", asked.share, percent(asked.share))]
    if ran is not None:
        bars.append(_bar(f"run by {ran.engine}", ran.share, percent(ran.share)))
    height, width = asked.input_size
    text = f"Share of {macs(asked.macs)} multiply-adds at {width} x {height}, all masks included."
    return (
        f"<div class='card'><h3>In 8 bits</h3><div class='bars'>{''.join(bars)}</div>"
        f"<p class='under'><small>{escape(text)}</small></p></div>"
    )


def _speeds(verdict: Verdict) -> str:
    speed = verdict.speed
    if speed is None:
        return ""
    slowest = max(row.median_ms for row in speed.rows)
    bars = [
        _bar(
            row.precision.upper(),
            row.median_ms / slowest,
            f"{row.median_ms:.1f} ms (p95 {row.p95_ms:.1f})",
            "plain" if row.precision == "fp32" else "",
        )
        for row in speed.rows
    ]
    threads = "the engine's choice of threads"
    if speed.threads is not None:
        threads = f"{speed.threads} thread{'s' if speed.threads > 1 else ''}"
    height, width = speed.input_size
    text = (
        f"Median of {speed.runs} runs in turns, whole network at {width} x {height}, "
        f"{speed.rows[0].engine}, {threads}, {verdict.processor}."
    )
    return (
        f"<div class='card'><h3>Time of one picture</h3><div class='bars'>{''.join(bars)}</div>"
        f"<p class='under'><small>{escape(text)}</small></p></div>"
    )


def _bar(name: str, share: float, figure: str, kind: str = "") -> str:
    return (
        f"<span>{escape(name)}</span><span class='bar'><i class='{kind}' "
        f"style='width: {100 * share:.1f}%'></i></span>"
        f"<span class='figure'>{escape(figure)}</span>"
    )


def _layers(verdict: Verdict) -> str:
    if verdict.coverage is None:
        return ""
    ran = {} if verdict.ran is None else {r.name: r for r in verdict.ran.layers}
    rows, plain = [], 0
    for layer in verdict.coverage.layers:
        run = ran.get(layer.name)
        eight = (
            layer.int8 if verdict.ran is None else run is not None and run.precision in EIGHT_BITS
        )
        plain += not eight
        cells = [layer.op, macs(layer.macs), "INT8" if layer.int8 else "float"]
        cells += [run.precision, run.primitive] if run else ["-", "-"]
        rows.append(_row(layer.name, cells, "", "" if eight else "bad"))
    count = len(rows)
    some = "all in 8 bits" if not plain else f"{plain} not in 8 bits"
    table = _table(("layer", "operator", "multiply-adds", "file", "engine", "primitive"), rows)
    return f"<details><summary>{count} layers, {some}</summary>{table}</details>"


def facts(verdict: Verdict) -> str:
    """Where the figures come from."""
    found = verdict.annotations
    pairs = [("made", verdict.created), ("processor", verdict.processor)]
    pairs.append(("versions", ", ".join(f"{k} {v}" for k, v in verdict.versions.items())))
    pairs.append(("set", f"{found.name}, {found.images} of {found.of_images} pictures"))
    pairs.append(("set, SHA-256", found.sha256))
    for model in verdict.models:
        name = model.numbers.value.upper()
        pairs += [(name, f"{model.name}, {megabytes(model.bytes)}")]
        pairs += [(f"{name}, SHA-256", model.sha256)]
    lines = "".join(f"<dt>{escape(k)}</dt><dd>{_code(k, v)}</dd>" for k, v in pairs)
    return f"<section><h2>Where this comes from</h2><dl class='card facts'>{lines}</dl></section>"


def _code(key: str, value: str) -> str:
    return f"<code>{escape(value)}</code>" if "SHA" in key else escape(value)


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    titles = "".join(f"<th scope='col'>{escape(title)}</th>" for title in head)
    return (
        f"<div class='card scroll'><table><thead><tr>{titles}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, cells: Iterable[str], kind: str = "", mark: str = "") -> str:
    values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr class='{kind}'><th scope='row' class='{mark}'>{escape(name)}</th>{values}</tr>"
