"""Objects of one picture pasted onto another; what they hide is hidden from the truth as well.

Source: Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance
Segmentation", CVPR 2021, section 3. Masks stay polygons: an object that is partly hidden keeps its
own polygons and the list of those that lie on top of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from centermask_edge.data.augment import Picture, cropped
from centermask_edge.data.shapes import bounds, filled

_LEAST_VISIBLE = 0.1  # share of an object; what shows less of itself is no object any more


def paste(picture: Picture, donor: Picture, chosen: Sequence[int]) -> Picture:
    """The picture with some objects of another on top, at the places they have there.

    Both must have polygons. An object of which less than a tenth is left becomes a region to
    ignore; others get the box around what is left.

    Args:
        picture: to paste onto.
        donor: whose objects are taken; what lies outside the picture is cut off.
        chosen: which of the donor's objects.
    """
    assert picture.polygons is not None
    height, width = picture.size
    rows = np.zeros(len(donor.boxes), dtype=bool)
    rows[list(chosen)] = True
    new = cropped(donor.keep(rows), 0, 0, width, height)
    assert new.polygons is not None
    if not len(new.boxes):
        return picture
    over = filled([part for parts in new.polygons for part in parts], width, height)
    below, hidden = _below(picture, new, over)
    image = picture.image.copy()
    rows_in, columns_in = new.size
    top = over[:rows_in, :columns_in]
    image[:rows_in, :columns_in][top] = new.image[top]
    assert below.polygons is not None
    return Picture(
        image,
        np.concatenate((below.boxes, new.boxes)),
        np.concatenate((below.classes, new.classes)),
        np.concatenate((picture.ignore, hidden)),
        (*below.polygons, *new.polygons),
        (*below.covers, *(() for _ in new.boxes)),
    )


def _below(
    picture: Picture, new: Picture, over: NDArray[np.bool_]
) -> tuple[Picture, NDArray[np.float64]]:
    """The picture's objects as far as they are still seen, and boxes of remains too small."""
    assert picture.polygons is not None and new.polygons is not None
    height, width = picture.size
    boxes, kept, hidden = picture.boxes.copy(), np.ones(len(picture.boxes), bool), []
    covers = list(picture.covers or ((),) * len(boxes))
    cover = tuple(part for parts in new.polygons for part in parts)
    for row, parts in enumerate(picture.polygons):
        before = filled(parts, width, height) & ~filled(covers[row], width, height)
        after = before & ~over
        left, area = int(after.sum()), int(before.sum())
        if left == area:
            continue
        rest = bounds(after)
        if rest is None or left < _LEAST_VISIBLE * area:
            kept[row] = False
            hidden += [] if rest is None else [rest]
            continue
        boxes[row] = np.where(rest == bounds(before), boxes[row], rest)
        covers[row] = (*covers[row], *cover)
    below = replace(picture, boxes=boxes, covers=tuple(covers)).keep(kept)
    return below, np.array(hidden, np.float64).reshape(-1, 4)
