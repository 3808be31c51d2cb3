"""What is wrong with a set: every object and picture looked at, nothing raised.

Legend: w h width and height in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from centermask_edge.data.coco import Annotations
from centermask_edge.data.segmentation import Mask, measure

Box = tuple[float, float, float, float]

_LEAST_SIDE = 1.0  # pixels; the reader leaves thinner boxes out
_OUTSIDE = 1.0  # pixels that a box may reach over the picture's edge: rounding
_LOOSE = 0.02  # part of the box's longer side that a mask may reach over it, besides two pixels
_LOOSE_PIXELS = 2.0


class Effect(str, Enum):
    """What a fault does to training."""

    STOPS = "training refuses the set"
    LOST = "left out of training"
    BOXES = "its picture trains boxes only"
    LOOK = "trained as it is: worth a look"


class Fault(str, Enum):
    """A kind of fault, in the words of the report."""

    BAD_LINE = "line or picture that cannot be read"
    BAD_ENTRY = "image or annotation with a field missing or wrong"
    MISSING_PICTURE = "picture not found"
    UNREADABLE_PICTURE = "picture that cannot be decoded"
    OTHER_SIZE = "picture of another size than stated"
    TWIN_PICTURE = "picture there twice"
    SHARED_PICTURE = "picture that is also in another part of the set"
    NO_PICTURE = "object of a picture that is not listed"
    NO_CLASS = "object of a class that is not listed"
    EMPTY_BOX = "box without area"
    OUTSIDE_BOX = "box that leaves the picture"
    SHORT_POLYGON = "polygon with fewer than 3 points"
    EMPTY_MASK = "mask without area"
    LOOSE_BOX = "box that does not enclose its mask"
    SOME_MASKS = "object without a mask in a picture with masks"
    RLE_MASK = "single object whose mask is an RLE"
    TWIN_OBJECT = "object there twice"
    EMPTY_CLASS = "class without an object"

    @property
    def effect(self) -> Effect:
        """What it does to training."""
        return _EFFECTS.get(self, Effect.LOOK)


_EFFECTS = {
    Fault.BAD_LINE: Effect.STOPS,
    Fault.BAD_ENTRY: Effect.STOPS,
    Fault.MISSING_PICTURE: Effect.STOPS,
    Fault.UNREADABLE_PICTURE: Effect.STOPS,
    Fault.OTHER_SIZE: Effect.STOPS,
    Fault.SHARED_PICTURE: Effect.LOST,
    Fault.NO_PICTURE: Effect.LOST,
    Fault.NO_CLASS: Effect.LOST,
    Fault.EMPTY_BOX: Effect.LOST,
    Fault.SHORT_POLYGON: Effect.BOXES,
    Fault.EMPTY_MASK: Effect.LOOK,
    Fault.SOME_MASKS: Effect.BOXES,
    Fault.RLE_MASK: Effect.BOXES,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: its kind, where it is, and what was found there."""

    fault: Fault
    where: str
    found: str = ""

    @property
    def line(self) -> str:
        """Where and what, in one line."""
        return f"{self.where}: {self.found}" if self.found else self.where


@dataclass(frozen=True, slots=True)
class Object:
    """One annotated object as it stands in the file.

    Attributes:
        image: id of its picture.
        category: id of its class.
        box: x, y, w, h in pixels.
        mask: what is known of its mask; None where it has none.
        crowd: whether it stands for a group.
    """

    image: Any
    category: Any
    box: Box
    mask: Mask | None
    crowd: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """The objects that could be understood, and everything that is wrong with the annotations."""

    objects: tuple[Object, ...]
    findings: tuple[Finding, ...]


def check_objects(annotations: Annotations) -> Checked:
    """Every annotation of a set, looked at without its pictures."""
    findings: list[Finding] = []
    images = _images(annotations, findings)
    categories = {c.get("id") for c in annotations.content["categories"] if isinstance(c, dict)}
    objects: list[Object] = []
    seen: set[tuple[object, ...]] = set()
    for place, entry in enumerate(annotations.content["annotations"], start=1):
        where = _where(entry, place, images)
        try:
            found = _object(entry)
            # A KeyError and its like are told as a wrong entry, too: ids may be lists.
            known = found.image in images, found.category in categories
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            findings.append(Finding(Fault.BAD_ENTRY, where, _reason(error)))
            continue
        if not all(known):
            fault = Fault.NO_CLASS if known[0] else Fault.NO_PICTURE
            findings.append(Finding(fault, where))
            continue
        same = (found.image, found.category, *(round(v, 2) for v in found.box), found.mask)
        if same in seen:
            findings.append(Finding(Fault.TWIN_OBJECT, where, _text(found.box)))
        seen.add(same)
        findings += (Finding(f, where, text) for f, text in _faults(found, images[found.image]))
        objects.append(found)
    findings += _half_masked(objects, images)
    return Checked(tuple(objects), tuple(findings))


def _images(annotations: Annotations, findings: list[Finding]) -> dict[Any, dict[str, Any]]:
    """Images by id; those with a wrong field are findings instead."""
    images: dict[Any, dict[str, Any]] = {}
    for place, image in enumerate(annotations.content["images"], start=1):
        try:
            name, size = str(image["file_name"]), (float(image["width"]), float(image["height"]))
            if min(size) < 1 or int(image["id"]) in images:
                raise ValueError("its size is below 1, or its id is another image's, too")
            images[int(image["id"])] = {"file_name": name, "width": size[0], "height": size[1]}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            findings.append(Finding(Fault.BAD_ENTRY, f"image {place}", _reason(error)))
    return images


def _reason(error: Exception) -> str:
    return f"without the field {error}" if isinstance(error, KeyError) else str(error)


def _where(entry: Any, place: int, images: dict[Any, dict[str, Any]]) -> str:
    if not isinstance(entry, dict):
        return f"annotation {place}"
    named = str(entry.get("where") or f"annotation {entry.get('id', place)}")
    try:
        image = images.get(entry.get("image_id"))
    except TypeError:
        image = None
    return named if image is None or "where" in entry else f"{named} of {image['file_name']}"


def _object(entry: dict[str, Any]) -> Object:
    x, y, w, h = (float(v) for v in entry["bbox"])
    if not all(abs(v) < 1e9 for v in (x, y, w, h)):
        raise ValueError(f"a bbox is {entry['bbox']}")
    mask = measure(entry.get("segmentation"))
    crowd = bool(entry.get("iscrowd"))
    return Object(entry["image_id"], entry["category_id"], (x, y, w, h), mask, crowd)


def _faults(item: Object, image: dict[str, Any]) -> Iterator[tuple[Fault, str]]:
    x, y, w, h = item.box
    width, height = image["width"], image["height"]
    seen = min(x + w, width) - max(x, 0.0), min(y + h, height) - max(y, 0.0)
    if min(seen) < _LEAST_SIDE:
        yield Fault.EMPTY_BOX, f"{_text(item.box)} in {width:g} x {height:g}"
    elif min(x, y, width - x - w, height - y - h) < -_OUTSIDE:
        yield Fault.OUTSIDE_BOX, f"{_text(item.box)} in {width:g} x {height:g}"
    mask = item.mask
    if mask is None:
        return
    if mask.short_parts:
        yield Fault.SHORT_POLYGON, f"{mask.short_parts} of {mask.parts} parts"
    if mask.parts > mask.short_parts and mask.area <= 0:
        yield Fault.EMPTY_MASK, ""
    elif not item.crowd and mask.box is not None and _reaches_over(mask.box, item.box):
        yield Fault.LOOSE_BOX, f"box {_text(item.box)}, mask {_text(mask.box)}"
    if mask.rle and not item.crowd:
        yield Fault.RLE_MASK, ""


def _reaches_over(mask: Box, box: Box) -> bool:
    allowed = _LOOSE_PIXELS + _LOOSE * max(box[2], box[3])
    over = (
        box[0] - mask[0],
        box[1] - mask[1],
        mask[0] + mask[2] - box[0] - box[2],
        mask[1] + mask[3] - box[1] - box[3],
    )
    return max(over) > allowed


def _half_masked(objects: Sequence[Object], images: dict[Any, dict[str, Any]]) -> Iterator[Finding]:
    with_masks = {o.image for o in objects if o.mask is not None and not o.crowd}
    for item in objects:
        if item.mask is None and not item.crowd and item.image in with_masks:
            yield Finding(Fault.SOME_MASKS, images[item.image]["file_name"], _text(item.box))


def _text(box: Box) -> str:
    return f"x {box[0]:.5g}, y {box[1]:.5g}, {box[2]:.5g} x {box[3]:.5g}"
