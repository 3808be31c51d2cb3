"""Pictures in which everything is known: figures walk through a room, frame by frame the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from centermask_edge.live.synthetic import time_code
from centermask_edge.live.synthetic.figures import Figure, Picture, cut_out, drawn
from centermask_edge.masks import Crop

# Shares of the picture's height: how tall figures are, and how far one walks in a second.
_TALL = (0.30, 0.60)
_SPEED = (0.05, 0.25)


class Look(str, Enum):
    """What figures and the room look like."""

    PEOPLE = "people"
    SHAPES = "shapes"


@dataclass(frozen=True, slots=True)
class SceneSettings:
    """All that a scene follows from.

    Attributes:
        look: people cut out of the bundled clip, in its room; or drawn figures.
        width: pixels of the picture.
        height: pixels of the picture.
        fps: frames a second.
        objects: figures.
        seed: of what is left to chance.
    """

    look: Look = Look.PEOPLE
    width: int = 1920
    height: int = 1080
    fps: float = 30.0
    objects: int = 3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrueObject:
    """A figure in one frame, as far as it can be seen.

    Attributes:
        track: the same in all frames, from 1 on.
        crop: bool mask of the pixels that show it, and column and row of the first.
    """

    track: int
    crop: Crop

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels; right and bottom are the first ones outside."""
        mask, x, y = self.crop
        return x, y, x + mask.shape[1], y + mask.shape[0]


@dataclass(frozen=True, slots=True)
class _Walker:
    """A figure and its way: to and fro between the sides, at one depth."""

    track: int
    figure: Figure
    mirrored: Figure
    top: int
    start: float
    speed: float
    room: int

    def at(self, time_s: float) -> tuple[Figure, int, int]:
        """The figure as it looks then, and column and row of its first pixel."""
        way = (self.start + self.speed * time_s) % (2 * self.room) if self.room else 0.0
        if way <= self.room:
            return self.figure, int(way), self.top
        return self.mirrored, int(2 * self.room - way), self.top


class Scene:
    """Pictures and the truth about them, for any frame in any order.

    Args:
        settings: what it follows from. The same settings give the same pixels and masks.

    Raises:
        MissingPackageError: people are wanted and PyAV, which reads the clip, is not installed.
    """

    def __init__(self, settings: SceneSettings) -> None:
        self.settings = settings
        random = np.random.default_rng(settings.seed)
        size = settings.height, settings.width
        if settings.look is Look.PEOPLE:
            room, figures = cut_out()
            self._room = _enlarged(room, *size)
        else:
            figures = tuple(drawn(random, settings.height) for _ in range(settings.objects))
            self._room = _textured(random, *size)
        walkers = [self._walker(random, figures, n) for n in range(settings.objects)]
        # Whose feet are lower in the picture is nearer, and hides the others.
        self._walkers = sorted(walkers, key=lambda w: w.top + w.figure.mask.shape[0])

    def picture(self, index: int) -> Picture:
        """uint8 (H, W, 3) BGR, with the frame's number in it; a new array."""
        image = self._room.copy()
        for _, figure, x, y in self._placed(index):
            rows, columns = figure.mask.shape
            window = image[y : y + rows, x : x + columns]
            # A fifth of the time of a copy under a mask.
            window &= figure.around
            window |= figure.image
        time_code.burn(image, index)
        return image

    def truth(self, index: int) -> list[TrueObject]:
        """The figures of which something can be seen, by track."""
        placed = list(self._placed(index))
        found = []
        for n, (track, figure, x, y) in enumerate(placed):
            mask = figure.mask.copy()
            for _, other, left, top in placed[n + 1 :]:
                _hide(mask, x, y, other.mask, left, top)
            code = np.ones(time_code.code_size(self.settings.height, self.settings.width), np.bool_)
            _hide(mask, x, y, code, 0, 0)
            crop = _tight(mask, x, y)
            if crop is not None:
                found.append(TrueObject(track, crop))
        return sorted(found, key=lambda true: true.track)

    def _placed(self, index: int) -> Iterator[tuple[int, Figure, int, int]]:
        """Track, figure, column and row of each, the farthest first."""
        time_s = index / self.settings.fps
        for walker in self._walkers:
            yield walker.track, *walker.at(time_s)

    def _walker(
        self, random: np.random.Generator, figures: tuple[Figure, ...], number: int
    ) -> _Walker:
        height, width = self.settings.height, self.settings.width
        tall = round(height * random.uniform(*_TALL))
        figure = figures[number % len(figures)].resized(tall)
        tall, wide = figure.mask.shape
        least = min(time_code.code_size(height, width)[0], height - tall)
        # Taller means nearer, and so lower in the picture.
        share = (tall / height - _TALL[0]) / (_TALL[1] - _TALL[0])
        top = least + (height - tall - least) * min(1.0, max(0.0, 0.4 + 0.5 * share))
        room = max(0, width - wide)
        speed = height * random.uniform(*_SPEED)
        return _Walker(
            number + 1,
            figure,
            figure.resized(tall, mirrored=True),
            int(top),
            random.uniform(0, 2 * room) if room else 0.0,
            speed,
            room,
        )


def _hide(
    mask: NDArray[np.bool_], x: int, y: int, over: NDArray[np.bool_], ox: int, oy: int
) -> None:
    """Takes away what of a mask at (x, y) lies under another at (ox, oy)."""
    left, top = max(x, ox), max(y, oy)
    right = min(x + mask.shape[1], ox + over.shape[1])
    bottom = min(y + mask.shape[0], oy + over.shape[0])
    if left < right and top < bottom:
        hidden = over[top - oy : bottom - oy, left - ox : right - ox]
        mask[top - y : bottom - y, left - x : right - x] &= ~hidden


def _tight(mask: NDArray[np.bool_], x: int, y: int) -> Crop | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    top, left = int(rows[0]), int(columns[0])
    window = mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    return np.ascontiguousarray(window), x + left, y + top


def _enlarged(image: Picture, height: int, width: int) -> Picture:
    """The picture at another size, bilinear between pixel centres."""
    rows = np.clip((np.arange(height) + 0.5) * image.shape[0] / height - 0.5, 0, None)
    columns = np.clip((np.arange(width) + 0.5) * image.shape[1] / width - 0.5, 0, None)
    wide = _between(image.astype(np.float32), columns, axis=1)
    return np.rint(_between(wide, rows, axis=0)).astype(np.uint8)


def _between(
    values: NDArray[np.float32], at: NDArray[np.float64], axis: int
) -> NDArray[np.float32]:
    last = values.shape[axis] - 1
    before = np.minimum(at.astype(np.intp), last)
    after = np.minimum(before + 1, last)
    shape = [1] * values.ndim
    shape[axis] = -1
    share = (at - before).clip(0, 1).astype(np.float32).reshape(shape)
    low, high = values.take(before, axis=axis), values.take(after, axis=axis)
    mixed: NDArray[np.float32] = low + (high - low) * share
    return mixed


def _textured(random: np.random.Generator, height: int, width: int) -> Picture:
    """A gradient with some noise, coarse and fine."""
    rows = np.linspace(90, 190, height, dtype=np.float32)[:, None, None]
    columns = np.linspace(-30, 30, width, dtype=np.float32)[None, :, None]
    coarse = random.normal(0, 14, (height // 16 + 1, width // 16 + 1, 3))
    coarse = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    fine = random.normal(0, 3, (height, width, 1))
    return np.clip(rows + columns + coarse + fine, 0, 255).astype(np.uint8)
