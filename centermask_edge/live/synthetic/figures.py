"""What moves in a synthetic picture: figures with exact outlines, drawn or cut out of the clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import require

Picture = NDArray[np.uint8]
Bools = NDArray[np.bool_]

# In the bundled clip the camera stands still: what differs from the empty room is a person.
_EMPTY = 65
# Frame, and columns and rows from left, top to right, bottom in which nothing else differs.
_CUTS = (
    (22, 345, 25, 520, 392),
    (46, 385, 40, 580, 402),
    (48, 450, 45, 612, 400),
    (95, 355, 0, 530, 400),
)
_DIFFERENT = 38  # levels in the channel that differs most
_CLIP = ("_clips", "people.mp4")


@dataclass(frozen=True, slots=True)
class Figure:
    """Something with an outline.

    Attributes:
        image: uint8 (H, W, 3) BGR, 0 outside.
        mask: bool (H, W), True where it is; touches all four sides.
        around: uint8 (H, W, 3), 255 outside and 0 inside.
    """

    image: Picture
    mask: Bools
    around: Picture

    def resized(self, height: int, *, mirrored: bool = False) -> Figure:
        """As high as that many rows, its shape kept; each pixel is the nearest one."""
        rows, columns = self.mask.shape
        width = max(1, round(columns * height / rows))
        at_rows = (np.arange(height) * rows) // height
        at_columns = (np.arange(width) * columns) // width
        if mirrored:
            at_columns = at_columns[::-1]
        grid = np.ix_(at_rows, at_columns)
        return trimmed(self.image[grid], self.mask[grid])


def trimmed(image: Picture, mask: Bools) -> Figure:
    """The figure without empty rows and columns around it; the mask must not be empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = np.ascontiguousarray(mask[window])
    around = np.where(inside, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    return Figure(image[window] & ~around, inside, around)


def drawn(random: np.random.Generator, height: int) -> Figure:
    """A person as a child draws one: head, trunk, arms, legs, in colours of chance."""
    rows, columns = np.mgrid[0:height, 0 : max(4, height // 2)]
    y = (rows + 0.5) / height
    x = (columns + 0.5) / height - 0.25
    head = (x / 0.065) ** 2 + ((y - 0.09) / 0.09) ** 2 <= 1
    trunk = (np.abs(x) <= 0.11) & (y >= 0.17) & (y <= 0.55)
    arms = (np.abs(np.abs(x) - 0.15) <= 0.03) & (y >= 0.18) & (y <= 0.52)
    arms |= (np.abs(x) <= 0.18) & (y >= 0.17) & (y <= 0.23)
    legs = (np.abs(np.abs(x) - 0.06) <= 0.045) & (y >= 0.53)
    image = np.zeros((*x.shape, 3), np.uint8)
    skin, shirt, trousers = random.integers(40, 220, (3, 3))
    for part, colour in ((legs, trousers), (arms, shirt), (trunk, shirt), (head, skin)):
        image[part] = colour
    return trimmed(image, head | trunk | arms | legs)


@lru_cache(maxsize=1)
def cut_out() -> tuple[Picture, tuple[Figure, ...]]:
    """The empty room of the bundled clip, uint8 (432, 768, 3), and people cut out of other frames.

    Raises:
        MissingPackageError: PyAV is not installed.
    """
    av = require("av", extra="cpu", why="show people of the bundled clip; synthetic:shapes is not")
    wanted = {_EMPTY, *(cut[0] for cut in _CUTS)}
    frames = {}
    with (
        as_file(files("centermask_edge").joinpath(*_CLIP)) as path,
        av.open(str(path)) as container,
    ):
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                frames[index] = frame.to_ndarray(format="bgr24")
            if index == max(wanted):
                break
    room = frames[_EMPTY]
    return room, tuple(_cut(frames[index], room, *box) for index, *box in _CUTS)


def _cut(frame: Picture, room: Picture, left: int, top: int, right: int, bottom: int) -> Figure:
    window = slice(top, bottom), slice(left, right)
    difference = np.abs(frame[window].astype(np.int16) - room[window]).max(axis=2)
    return trimmed(frame[window], _largest(_majority(difference > _DIFFERENT, 2)))


def _majority(mask: Bools, reach: int) -> Bools:
    """True where most pixels of the square around are: no specks, no pinholes."""
    side = 2 * reach + 1
    padded = np.pad(mask.astype(np.int32), reach, mode="edge")
    sums = np.pad(padded, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    counts = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    found: Bools = counts * 2 > side * side
    return found


def _largest(mask: Bools) -> Bools:
    """The largest connected part of a mask."""
    left = mask.copy()
    best = np.zeros_like(mask)
    while left.sum() > best.sum():
        part = _flooded(left, np.unravel_index(int(left.argmax()), left.shape))
        if part.sum() > best.sum():
            best = part
        left &= ~part
    return best


def _flooded(mask: Bools, start: tuple[np.intp, ...]) -> Bools:
    part = np.zeros_like(mask)
    part[start] = True
    size = 0
    while (now := int(part.sum())) > size:
        size = now
        part[1:] |= part[:-1]
        part[:-1] |= part[1:]
        part[:, 1:] |= part[:, :-1]
        part[:, :-1] |= part[:, 1:]
        part &= mask
    return part
