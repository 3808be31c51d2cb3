"""People made unrecognisable in pictures, by their masks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from centermask_edge import boxes as box_maths
from centermask_edge.errors import require
from centermask_edge.live.outputs.overlay import Draw, Image
from centermask_edge.live.outputs.privacy_config import PrivacyRules, Style
from centermask_edge.live.result import Result

# Cells along the longer side of an object: a standing person's face is about one of them.
_CELLS = 10
_LEAST_CELL = 8  # pixels
_LEAST_MARGIN = 3  # pixels
_SAME = 0.3  # overlap from which an object without identity is that of the frame before
_HELD_MARGIN = 0.2  # somebody who is no longer found may have moved on
_GREY = 128

Box = tuple[int, int, int, int]


def hide(
    image: Image, box: Box, mask: npt.NDArray[np.bool_] | None, margin: int, style: Style
) -> None:
    """Hides what a mask covers, and ``margin`` pixels around it, in place.

    Args:
        image: uint8 (H, W, 3) BGR.
        box: x0, y0, x1, y1 in pixels, within the picture.
        mask: bool (y1 - y0, x1 - x0); None for the whole box.
        margin: in pixels; ends at the picture's edge.
        style: what is put there.
    """
    cv2: Any = require("cv2", extra="cpu", why="hide people")
    x0, y0, x1, y1 = box
    left, top = max(x0 - margin, 0), max(y0 - margin, 0)
    right, bottom = min(x1 + margin, image.shape[1]), min(y1 + margin, image.shape[0])
    region = image[top:bottom, left:right]
    if region.size == 0:
        return
    cover = np.ones(region.shape[:2], np.uint8)
    if mask is not None:
        cover[:] = 0
        cover[y0 - top : y1 - top, x0 - left : x1 - left] = mask
        # A square wears off no corner: more than needed rather than less.
        cover = cv2.dilate(cover, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    cv2.copyTo(_veiled(cv2, region, style), cover, region)


def _veiled(cv2: Any, region: Image, style: Style) -> Image:
    """The region with nothing left in it but the means of a few cells."""
    if style is Style.FILL:
        return np.full_like(region, _GREY)
    height, width = region.shape[:2]
    cell = max(max(height, width) / _CELLS, _LEAST_CELL)
    cells = (max(int(width / cell), 1), max(int(height / cell), 1))
    means = cv2.resize(region, cells, interpolation=cv2.INTER_AREA)
    smooth = cv2.INTER_LINEAR if style is Style.BLUR else cv2.INTER_NEAREST
    veiled: Image = cv2.resize(means, (width, height), interpolation=smooth)
    return veiled


@dataclass(frozen=True, slots=True)
class _Person:
    track: int
    box: tuple[float, float, float, float]
    seen_s: float


class Privacy:
    """A picture function for sinks: all that was found is hidden; for any number of cameras.

    What the model does not find is not hidden, but for ``hold_s`` after it was found last.

    Args:
        rules: how to hide.
        draw: what else is drawn into the picture, where given; it gets it with people hidden.
    """

    def __init__(self, rules: PrivacyRules | None = None, draw: Draw | None = None) -> None:
        self._rules, self._draw = rules or PrivacyRules(), draw
        self._people: dict[str, list[_Person]] = {}
        self._lock = threading.Lock()

    def __call__(self, result: Result) -> Image:
        """The picture without people, uint8 (H, W, 3) BGR."""
        with self._lock:
            gone = self._remember(result)
        image = np.array(result.frame.image, order="C")
        for person in gone:
            self._hide_box(image, person.box, _HELD_MARGIN)
        for i, (mask, x, y) in enumerate(result.instances.crops()):
            # Where none was computed for this frame, it is empty, or that of an earlier moment.
            if not (result.mode.masks and mask.any()):
                self._hide_box(image, result.instances.boxes[i].tolist(), self._rules.margin)
                continue
            height, width = mask.shape
            margin = self._margin(max(height, width), self._rules.margin)
            hide(image, (x, y, x + width, y + height), mask, margin, self._rules.style)
        if self._draw is None:
            return image
        return self._draw(replace(result, frame=replace(result.frame, image=image)))

    def _remember(self, result: Result) -> list[_Person]:
        """Who was there a moment ago and is not found in this frame."""
        camera, now_s, found = result.frame.camera, result.frame.arrival_s, result.instances
        there = set(result.track_ids.tolist())
        known = self._people.get(camera, [])
        gone = []
        for person in known:
            before = np.array([person.box], np.float32)
            alike = box_maths.iou(before, found.boxes).max(initial=0) >= _SAME
            back = person.track in there if person.track else alike
            if not back and now_s - person.seen_s <= self._rules.hold_s:
                gone.append(person)
        people = [
            _Person(track, tuple(box), now_s)
            for track, box in zip(result.track_ids.tolist(), found.boxes.tolist(), strict=True)
        ]
        # A slow output may ask for an older picture: what is known since then stays known.
        if now_s >= max((person.seen_s for person in known), default=now_s):
            self._people[camera] = people + gone
        return gone

    def _hide_box(self, image: Image, box: Sequence[float], share: float) -> None:
        height, width = image.shape[:2]
        x0, y0 = max(int(box[0]), 0), max(int(box[1]), 0)
        x1, y1 = min(int(np.ceil(box[2])), width), min(int(np.ceil(box[3])), height)
        margin = self._margin(max(x1 - x0, y1 - y0), share)
        hide(image, (x0, y0, x1, y1), None, margin, self._rules.style)

    def _margin(self, side: int, share: float) -> int:
        return max(round(share * side), _LEAST_MARGIN)
