"""The HTML report: one template filled with fragments, every string in them escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from centermask_edge.engines.files import write_whole
from centermask_edge.page import style
from centermask_edge.quantize.compare import Change, Kind
from centermask_edge.quantize.judge import Judgement
from centermask_edge.quantize.report.figures import accuracy, coverage, facts, outcome, tiles
from centermask_edge.quantize.report.pictures import Draw, Slide, make_slides
from centermask_edge.quantize.report.words import sentence
from centermask_edge.quantize.verdict import Verdict

PICTURE_BYTES = 7_500_000

_LINES = 8  # of changes below a picture; more are folded away
_FIELD = re.compile(r"\{\{(\w+)\}\}")


def write_report(path: Path, judgement: Judgement, draw: Draw) -> int:
    """Write the report, whole or not at all; returns its size in bytes.

    Args:
        path: of the HTML file.
        judgement: from ``judge``.
        draw: draws instances: ``live.outputs.draw.draw``.

    Raises:
        DatasetError: a picture is no longer there.
        MissingPackageError: what draws or writes pictures is not installed.
        ModelFileError: it cannot be written.
    """
    slides = make_slides(judgement.worst, draw, PICTURE_BYTES)
    content = page(judgement.verdict, slides, judgement.threshold).encode()
    write_whole(path, content)
    return len(content)


def page(verdict: Verdict, slides: Sequence[Slide], threshold: float) -> str:
    """The text of the report.

    Args:
        verdict: the figures.
        slides: pictures, the worst first.
        threshold: box score from which they show an instance.
    """
    judged = verdict.judged.value.upper() if verdict.judged else ""
    heading = f"Quantization of {verdict.preset}, {verdict.annotations.name}"
    state = {True: "held", False: "not held", None: "measured"}[verdict.held]
    return _filled(
        {
            "style": style(),
            "title": escape(f"{verdict.preset}: {judged or 'figures'} {state}"),
            "heading": escape(heading),
            "outcome": outcome(verdict),
            "tiles": tiles(verdict),
            "accuracy": accuracy(verdict),
            "coverage": coverage(verdict),
            "gallery": _gallery(slides, judged, threshold),
            "facts": facts(verdict),
        }
    )


def _filled(parts: Mapping[str, str]) -> str:
    template = (files("centermask_edge.quantize.report") / "page.html").read_text(encoding="utf-8")
    # One pass, so that braces in what is put in stay what they are.
    return _FIELD.sub(lambda match: parts[match[1]], template)


def _gallery(slides: Sequence[Slide], judged: str, threshold: float) -> str:
    if not slides:
        return ""
    count = f"{len(slides)} pictures" if len(slides) > 1 else "1 picture"
    name = escape(judged)
    return (
        f"<section><h2>Where {name} differs most</h2>"
        f"<p class='soft'>{count}, the worst first. Instances from a score of {threshold:.2f} are "
        f"drawn; one object keeps its colour. Drag across a picture, or use the arrow keys: FP32 "
        f"is left of the line, {name} right of it. Point at a line of the list to see where it is."
        "</p>"
        "<div class='tools'><span class='soft'>All pictures:</span><span class='choice'>"
        "<button type='button' data-all='100'>FP32</button>"
        "<button type='button' data-all='50'>half</button>"
        f"<button type='button' data-all='0'>{name}</button></span></div>"
        + "".join(_picture(i, s, name, threshold) for i, s in enumerate(slides, start=1))
        + "</section>"
    )


def _picture(number: int, slide: Slide, judged: str, threshold: float) -> str:
    name = escape(slide.name)
    ratio = slide.width / slide.height
    return (
        f"<article class='card picture' id='picture-{number}'>"
        f"<div class='stage' style='--at: 50%; aspect-ratio: {slide.width} / {slide.height}; "
        f"max-width: calc(82vh * {ratio:.4f})'>"
        f"{_image(slide.after, f'{name} with the instances of {judged}')}"
        f"<span class='label'>{judged}</span>"
        f"<div class='top'>{_image(slide.before, f'{name} with the instances of FP32')}"
        "<span class='label'>FP32</span></div>"
        "<span class='spot'></span>"
        f"<div class='divider' role='slider' tabindex='0' aria-label='FP32 to {judged}, {name}' "
        "aria-valuemin='0' aria-valuemax='100' aria-valuenow='50'></div></div>"
        f"<div class='what'><h3><a href='#picture-{number}'>{name}</a>"
        f"<small>{number}</small></h3>{_changes(slide, judged, threshold)}</div></article>"
    )


def _image(data: str, text: str) -> str:
    return f"<img src='{data}' alt='{text}' loading='lazy' decoding='async' draggable='false'>"


def _changes(slide: Slide, judged: str, threshold: float) -> str:
    lines = [
        f"<li><button type='button' data-box='{' '.join(f'{v:g}' for v in box)}' "
        f"aria-pressed='false'><span class='tag {_color(change)}'>{change.kind.value}"
        f"</span>{escape(change.name)}"
        f"<small>{escape(sentence(change, judged, threshold))}</small></button></li>"
        for change, box in zip(slide.changes, slide.boxes, strict=True)
    ]
    found = f"<ul>{''.join(lines[:_LINES])}</ul>" if lines else "<p>No change worth a line.</p>"
    if len(lines) > _LINES:
        more = f"<summary>{len(lines) - _LINES} more</summary><ul>{''.join(lines[_LINES:])}</ul>"
        found += f"<details>{more}</details>"
    if not slide.same:
        return found
    one = slide.same == 1
    rest = f"{slide.same} other{'' if one else 's'} {'is' if one else 'are'} about the same"
    return f"{found}<p><small>{rest}.</small></p>"


def _color(change: Change) -> str:
    """Whether a change is for the worse or the better, by the annotations; a lost one is worse."""
    if change.kind is Kind.CHANGED:
        return ""
    if change.annotated is None:
        return "worse" if change.kind is Kind.LOST else ""
    return "worse" if change.annotated is (change.kind is Kind.LOST) else "better"
