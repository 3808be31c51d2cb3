"""The worst pictures of an evaluation, drawn twice: what is there and what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from centermask_edge.data.augment import read_bgr
from centermask_edge.data.drawing import Color, Shape, drawn
from centermask_edge.evaluate.worst import Judged, Verdict, WorstPicture
from centermask_edge.page import image, key, section

_SIDE = 560
_LINES = 8
_GOOD_MASK = 0.8  # IoU from which a right one is not worth a line
_COLORS: dict[Verdict, Color] = {
    Verdict.RIGHT: (46, 204, 113),
    Verdict.CONFUSED: (255, 165, 0),
    Verdict.FALSE: (239, 68, 68),
    Verdict.MISSED: (255, 215, 0),
}
_TRUTH: Color = (30, 144, 255)


def worst_gallery(worst: Sequence[WorstPicture]) -> str:
    """The section of the worst pictures; nothing where there are none."""
    if not worst:
        return ""
    colors = key(
        [
            (_css(_TRUTH), "object, found"),
            (_css(_COLORS[Verdict.MISSED]), "object, missed"),
            (_css(_COLORS[Verdict.RIGHT]), "right"),
            (_css(_COLORS[Verdict.CONFUSED]), "wrong class"),
            (_css(_COLORS[Verdict.FALSE]), "false"),
        ]
    )
    figures = "".join(_figure(w) for w in worst)
    note = (
        "Left what is there, right what was found. A picture is the worse the more is missed, "
        "false with a high score, or badly outlined."
    )
    intro = f"<p class='soft'>{note}</p>{colors}<p></p>"
    return section("Worst pictures", intro, f"<div class='pictures wide'>{figures}</div>")


def _css(color: Color) -> str:
    return "rgb({}, {}, {})".format(*color)


def _figure(worst: WorstPicture) -> str:
    picture = worst.picture.sample
    pixels = read_bgr(picture)
    name = picture.path.name
    there = image(drawn(pixels, _truth(worst), _SIDE), f"{name}: what is there")
    found = image(drawn(pixels, _found(worst), _SIDE), f"{name}: what was found")
    return (
        f"<figure class='card'><div class='pair'><div><small>there</small>{there}</div>"
        f"<div><small>found</small>{found}</div></div>"
        f"<figcaption>{escape(name)}{_list(worst.judged)}</figcaption></figure>"
    )


def _list(judged: Iterable[Judged]) -> str:
    bad = Counter(
        j.text for j in judged if j.verdict is not Verdict.RIGHT or (j.iou or 0) < _GOOD_MASK
    )
    lines = [f"{n} x {text}" if n > 1 else text for text, n in bad.items()]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines[:_LINES])
    rest = f"<li>and {len(lines) - _LINES} more</li>" if len(lines) > _LINES else ""
    return f"<ul>{items}{rest}</ul>"


def _truth(worst: WorstPicture) -> list[Shape]:
    missed = {j.target for j in worst.judged if j.verdict is Verdict.MISSED}
    return [
        Shape(
            o["segmentation"],
            tuple(o["bbox"]),
            _COLORS[Verdict.MISSED] if g in missed else _TRUTH,
            filled=not o["iscrowd"],
        )
        for g, o in enumerate(worst.picture.objects)
    ]


def _found(worst: WorstPicture) -> list[Shape]:
    shapes = []
    for judged in sorted(worst.judged, key=lambda j: j.score or 0.0):
        if judged.found is None:
            continue
        row = worst.picture.found[judged.found]
        label = f"{judged.name} {judged.score:.2f}"
        color = _COLORS[judged.verdict]
        shapes.append(Shape(row["segmentation"], tuple(row["bbox"]), color, label))
    return shapes
