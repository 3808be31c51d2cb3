"""Surveys of a set as one HTML page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from centermask_edge.data.augment import read_bgr
from centermask_edge.data.checks import Effect
from centermask_edge.data.coco import Annotations, Sample, samples_of
from centermask_edge.data.drawing import PALETTE, Shape, drawn
from centermask_edge.data.survey import Survey
from centermask_edge.errors import DatasetError
from centermask_edge.page import (
    card,
    counts,
    details,
    folded_table,
    header,
    image,
    one_line,
    page,
    section,
    side_by_side,
    table,
    tiles,
)

_PICTURES = 12
_SIDE = 560
_CLASSES = 20
_EXAMPLES = 40
_BADGES = {
    Effect.STOPS: ("training would refuse it", "bad"),
    Effect.LOST: ("something would be left out", "bad"),
    Effect.BOXES: ("some pictures train boxes only", ""),
    Effect.LOOK: ("worth a look", ""),
}


def survey_page(surveys: Sequence[Survey]) -> str:
    """The page.

    Args:
        surveys: of the parts of one set, at least one.
    """
    first = surveys[0]
    over = f"Data set {'/'.join(first.path.absolute().parts[-2:])}"
    pictures, objects = sum(s.pictures for s in surveys), sum(s.objects for s in surveys)
    classes = len(first.classes)
    kinds = f"{classes} classes" if classes > 1 else "1 class"
    headline = f"{pictures} pictures, {objects} objects of {kinds}"
    effects = [f.fault.effect for s in surveys for f in s.findings]
    worst = min(effects, key=list(Effect).index, default=None)
    badge, kind = ("nothing wrong found", "good") if worst is None else _BADGES[worst]
    body = [header(over, headline, badge, kind), _tiles(surveys)]
    for survey in surveys:
        body += _part(survey, survey.split.capitalize() if len(surveys) > 1 else "")
    return page(f"{over}: {badge}", body)


def _tiles(surveys: Sequence[Survey]) -> str:
    objects = sum(s.objects for s in surveys)
    masks = sum(s.masks for s in surveys)
    empty = sum(s.crowding[0][1] for s in surveys)
    found = sum(len(s.findings) for s in surveys)
    decoded = sum(s.decoded for s in surveys)
    parts = ", ".join(f"{s.split} {s.pictures}" for s in surveys)
    share = f"{100 * masks / objects:.0f} % of objects" if objects else "no objects"
    return tiles(
        (
            ("Pictures", str(sum(s.pictures for s in surveys)), f"{parts}; {decoded} decoded"),
            ("Without objects", str(empty), "pictures; they teach the background"),
            ("With a mask", str(masks), share),
            ("Findings", str(found), "each is listed below" if found else "nothing is wrong"),
        )
    )


def _part(survey: Survey, title: str) -> Iterator[str]:
    before = f"{title}: " if title else ""
    yield section(f"{before}findings".capitalize(), _findings(survey))
    rows = [
        (r.name, r.objects, r.pictures, r.masks, r.crowds)
        for r in sorted(survey.classes, key=lambda r: -r.objects)
    ]
    head = ("class", "objects", "pictures", "with a mask", "crowds")
    yield section(f"{before}classes".capitalize(), folded_table(head, rows, _CLASSES))
    short, long = survey.input_size
    yield section(
        f"{before}sizes and shapes".capitalize(),
        side_by_side(
            card(
                "Size",
                counts(survey.sizes),
                note="Area by COCO's limits: small below 32 x 32 pixels, large from 96 x 96.",
            ),
            card(
                "Level of the pyramid",
                counts(survey.levels),
                note=f"Which level finds it at a short side of {short} and a long side of at most "
                f"{long} pixels (FCOS). A level without objects learns nothing.",
            ),
            card("Width to height", counts(survey.aspects)),
            card("Objects in a picture", counts(survey.crowding), note="Pictures of each kind."),
            card("Sizes of pictures", counts(survey.picture_sizes)),
        ),
    )
    yield section(f"{before}pictures".capitalize(), _gallery(survey))


def _findings(survey: Survey) -> str:
    found = survey.by_fault()
    if not found:
        return "<p class='soft'>Every object and every decoded picture is as it should be.</p>"
    rows = [
        (fault.value, len(lines), fault.effect.value, one_line(lines[0].line))
        for fault, lines in found.items()
    ]
    content = table(("what", "how many", "what it does", "the first"), rows, words=(0, 2, 3))
    for fault, lines in found.items():
        if len(lines) < 2:
            continue
        items = "".join(f"<li>{escape(one_line(f.line))}</li>" for f in lines[:_EXAMPLES])
        more = f"<p class='soft'>and {len(lines) - _EXAMPLES} more</p>"
        rest = more if len(lines) > _EXAMPLES else ""
        content += details(f"{fault.value}: {len(lines)}", f"<ul>{items}</ul>{rest}")
    return content


def _gallery(survey: Survey) -> str:
    names = [row.name for row in survey.classes]
    try:
        samples = samples_of(_there(survey.annotations), names)
    except (DatasetError, KeyError, TypeError) as error:
        return f"<p class='soft'>{escape(str(error))}</p>"
    objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for entry in survey.annotations.content["annotations"]:
        objects[entry["image_id"]].append(entry)
    ids = {c["id"]: i for i, c in enumerate(survey.annotations.content["categories"])}
    figures = [
        _figure(s, [o for o in objects[s.image_id] if o["category_id"] in ids], ids, names)
        for s in _chosen(samples, len(names))
    ]
    return f"<div class='pictures'>{''.join(figures)}</div>"


def _there(annotations: Annotations) -> Annotations:
    """The set without the pictures that are not there."""
    content, folder = annotations.content, annotations.folder
    images = [i for i in content["images"] if (folder / i["file_name"]).exists()]
    return replace(annotations, content={**content, "images": images})


def _figure(
    sample: Sample, objects: Sequence[dict[str, Any]], ids: dict[Any, int], names: Sequence[str]
) -> str:
    shapes = [
        Shape(
            o.get("segmentation") or None,
            tuple(o["bbox"]),
            # Of one class, neighbours must be told apart; of several, the classes.
            PALETTE[(ids[o["category_id"]] if len(names) > 1 else place) % len(PALETTE)],
            names[ids[o["category_id"]]],
            filled=not o.get("iscrowd"),
        )
        for place, o in enumerate(objects)
    ]
    try:
        data = drawn(read_bgr(sample), shapes, _SIDE)
    except (DatasetError, KeyError, TypeError, ValueError) as error:
        return f"<figure class='card'><figcaption>{escape(str(error))}</figcaption></figure>"
    what = f"{len(objects)} object{'' if len(objects) == 1 else 's'}"
    return (
        f"<figure class='card'>{image(data, sample.path.name)}"
        f"<figcaption>{escape(sample.path.name)} <small>{what}</small></figcaption></figure>"
    )


def _chosen(samples: Sequence[Sample], classes: int) -> list[Sample]:
    """A few pictures: one of each class while there is room, then evenly over the set."""
    chosen: dict[int, Sample] = {}
    for label in range(classes):
        found = next((i for i, s in enumerate(samples) if label in s.classes), None)
        if found is not None and len(chosen) < _PICTURES:
            chosen[found] = samples[found]
    step = max(len(samples) // _PICTURES, 1)
    for i in range(0, len(samples), step):
        if len(chosen) < _PICTURES:
            chosen.setdefault(i, samples[i])
    return [chosen[i] for i in sorted(chosen)]
