"""Masks inside their boxes: pasting a probability map, and COCO's run-length encoding.

Nothing here makes a full-frame mask unless it is asked for: at 50 instances on 1280 x 720 the
full-frame way costs 46 MB and several times the paste (bench/frames.py). Legend: H W frame rows and
columns in pixels, K instances, M mask side (28), h w rows and columns of a crop, T pixels of all
spans along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


Crop = tuple[Bools, int, int]  # mask inside its box; frame column and row of its first pixel
Size = tuple[int, int]

# Multiply-adds of one matrix product up to which OpenBLAS stays in the calling thread. Waking
# others costs more than they can give here: 50 masks took 4 ms in one thread and 142 in two
# beside a busy engine.
_ONE_THREAD = 4 * 65_536
# A pixel lies between two cells and a product takes all of them: crops too large for one product
# are made in upright pieces, each of its own cells only, which halves the time of very large ones.
_PIECES = 4
_LEAST = 64  # columns of a piece
# Masks whose weights are made together; those of more fall out of the cache, and their memory is
# taken from the system anew each time.
_TOGETHER = 25
_HALF = np.float32(0.5)


class Rle(TypedDict):
    """A mask as COCO writes it: frame size and compressed column-major run lengths."""

    size: list[int]
    counts: str


def _weights(
    low: Floats, high: Floats, first: Integers, count: Integers, side: int
) -> tuple[Floats, Integers]:
    """Bilinear weights (side, T) of the T pixel centres of all spans, and the cell before each.

    The centre x + 0.5 lies at ``(x + 0.5 - low) / (high - low) * side - 0.5`` in cells; the cells
    -1 and ``side`` are zero.
    """
    at = np.arange(count.sum())
    pixels = at + np.repeat(first - np.cumsum(count) + count, count)
    centres = pixels.astype(np.float32) + _HALF
    start, length = np.repeat(low, count), np.repeat(high - low, count)
    with np.errstate(over="ignore"):  # a box too thin for any centre: infinitely far, weight 0
        grid = (centres - start) / length * np.float32(2) - np.float32(1)
    cells = ((grid + np.float32(1)) * np.float32(side) - np.float32(1)) / np.float32(2)
    cells = np.clip(cells, np.float32(-1), np.float32(side))
    before = np.minimum(np.floor(cells), np.float32(side - 1))
    cell = before.astype(np.int64)
    weights = np.zeros((side + 2, at.size), np.float32)
    weights[cell + 2, at] = cells - before
    weights[cell + 1, at] = np.float32(1) - (cells - before)
    return weights[1:-1], cell


def _crop(mask: Floats, down: Floats, across: Floats, cells: Integers) -> Bools:
    """Where the samples are at least 0.5, bool (h, w).

    Args:
        mask: float32 (M, M).
        down: float32 (M, h) weights of the rows.
        across: float32 (M, w) weights of the columns.
        cells: int64 (w,) cell before each column.
    """
    side, height, width = mask.shape[0], down.shape[1], across.shape[1]
    if side * height * max(width, side) <= _ONE_THREAD:
        small: Bools = (down.T @ mask) @ across >= _HALF
        return small
    crop = np.empty((height, width), np.bool_)
    tall = _ONE_THREAD // (side * side)
    rows = np.concatenate([down[:, y : y + tall].T @ mask for y in range(0, height, tall)])
    piece = max(width // _PIECES, _LEAST)
    for x in range(0, width, piece):
        near = slice(max(cells[x], 0), cells[x : x + piece][-1] + 2)
        columns = np.ascontiguousarray(across[near, x : x + piece])
        tall = max(_ONE_THREAD // columns.size, 1)
        for y in range(0, height, tall):
            samples = rows[y : y + tall, near] @ columns
            np.greater_equal(samples, _HALF, out=crop[y : y + tall, x : x + piece])
    return crop


def _paste(masks: Floats, boxes: Floats, height: int, width: int) -> list[Crop]:
    """As :func:`paste_all`, for a few."""
    full = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    x0, y0, x1, y1 = np.where(full[:, None], boxes, np.float32(0)).T
    left, top = (np.maximum(np.floor(low), 0).astype(np.int64) for low in (x0, y0))
    right = np.minimum(np.ceil(x1), width).astype(np.int64)
    bottom = np.minimum(np.ceil(y1), height).astype(np.int64)
    inside = (right > left) & (bottom > top)
    left, top, wide, tall = (
        np.where(inside, v, 0) for v in (left, top, right - left, bottom - top)
    )
    side = masks.shape[-1]
    down, _ = _weights(y0, y1, top, tall, side)
    across, cells = _weights(x0, x1, left, wide, side)
    crops = []
    row = column = 0
    for i, (x, y, w, h) in enumerate(np.stack([left, top, wide, tall], 1).tolist()):
        columns = slice(column, column + w)
        crop = _crop(masks[i], down[:, row : row + h], across[:, columns], cells[columns])
        crops.append((crop, x, y))
        row, column = row + h, column + w
    return crops


def paste_all(masks: Floats, boxes: Floats, height: int, width: int) -> list[Crop]:
    """Every mask at frame resolution, only inside its box.

    A pixel is set where the bilinear sample at its centre is at least 0.5, with zeros beyond the
    map; so none outside the box can be set and the crop loses nothing.

    Args:
        masks: float32 (K, M, M) probabilities in 0..1.
        boxes: float32 (K, 4) xyxy in frame pixels, already clipped to the frame.
        height: frame rows.
        width: frame columns.

    Returns:
        For each, bool (h, w) and the frame column x0 and row y0 of its first pixel. A crop is
        empty, at 0, 0, for a box without width or height.
    """
    crops: list[Crop] = []
    for first in range(0, len(masks), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        crops += _paste(masks[some], boxes[some], height, width)
    return crops


def paste(mask: Floats, box: Floats, height: int, width: int) -> Crop:
    """One mask at frame resolution, only inside its box; see :func:`paste_all`."""
    return _paste(mask[None], np.asarray(box)[None], height, width)[0]


def paste_full(mask: Floats, box: Floats, height: int, width: int) -> Bools:
    """The same mask in a frame of its own: bool (height, width)."""
    frame = np.zeros((height, width), np.bool_)
    crop, x0, y0 = paste(mask, box, height, width)
    frame[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
    return frame


def crop_overlap(first: Crop, second: Crop) -> tuple[int, int]:
    """Pixels that two masks of one picture share, and pixels of their union.

    >>> square = np.ones((2, 2), bool)
    >>> crop_overlap((square, 0, 0), (square, 1, 0))
    (2, 6)
    """
    (a, ax, ay), (b, bx, by) = first, second
    left, top = max(ax, bx), max(ay, by)
    right = min(ax + a.shape[1], bx + b.shape[1])
    bottom = min(ay + a.shape[0], by + b.shape[0])
    shared = 0
    if right > left and bottom > top:
        inner = a[top - ay : bottom - ay, left - ax : right - ax]
        shared = int((inner & b[top - by : bottom - by, left - bx : right - bx]).sum())
    return shared, int(a.sum()) + int(b.sum()) - shared


def _turns(crop: Bools) -> Integers:
    """Where a column changes on its way down, with zeros above and below: flat places in
    (h + 1, w).
    """
    if crop.size == 0:
        return np.zeros(0, np.int64)
    turns = np.empty((crop.shape[0] + 1, crop.shape[1]), np.bool_)
    turns[0], turns[-1] = crop[0], crop[-1]
    np.not_equal(crop[1:], crop[:-1], out=turns[1:-1])
    return np.flatnonzero(turns)


def _runs(crops: Sequence[Crop], sizes: Sequence[Size]) -> tuple[Integers, Integers]:
    """Lengths of the alternating zero and one runs of every frame, column by column, one frame
    behind the other; and where each frame begins among them.
    """
    height, width = np.array(sizes, np.int64).T
    total = height * width
    # Room for a frame and for its end, a place of its own, so that all are sorted in one go.
    room = int(total.max()) + 1
    turns = [_turns(crop) for crop, _, _ in crops]
    frame = np.repeat(np.arange(len(crops)), [t.size for t in turns])
    facts = [(max(crop.shape[1], 1), x0, y0) for crop, x0, y0 in crops]
    wide, x0, y0 = np.array(facts, np.int64).T
    row, column = np.divmod(np.concatenate(turns), wide[frame])
    start = np.arange(len(crops)) * room
    edges = np.sort((start + x0 * height + y0)[frame] + column * height[frame] + row)
    # A column that ends where the next begins: no edge there. Only at the frame's full height.
    twice = edges[1:] == edges[:-1]
    single = np.ones(edges.shape, np.bool_)
    single[1:] &= ~twice
    single[:-1] &= ~twice
    edges = np.sort(np.concatenate([edges[single], start + total]))
    edges = edges[np.diff(edges, prepend=-1) > 0]
    frame, place = np.divmod(edges, room)
    first = np.flatnonzero(np.diff(frame, prepend=-1))
    runs = np.diff(place, prepend=0)
    runs[first] = place[first]
    return runs, first


def _pack(runs: Integers, first: Integers) -> list[str]:
    """COCO's text of the run lengths of each frame: from the fourth on, the difference to two
    before; each number in groups of five bits, low first, with a sign bit and a continuation bit.
    """
    rank = np.arange(runs.size) - np.repeat(first, np.diff(first, append=runs.size))
    deltas = runs.copy()
    deltas[2:] -= np.where(rank[2:] >= 3, runs[:-2], 0)
    groups: list[npt.NDArray[np.uint8]] = []
    live: list[Bools] = []
    going = np.ones(deltas.shape, np.bool_)
    while going.any():
        low = deltas & 31
        deltas = deltas >> 5
        more = going & np.where(low & 16, deltas != -1, deltas != 0)
        groups.append((low + np.where(more, 32, 0) + 48).astype(np.uint8))
        live.append(going)
        going = more
    used = np.stack(live, axis=1)
    text = np.stack(groups, axis=1)[used].tobytes().decode("ascii")
    length = np.add.reduceat(used.sum(axis=1), first)
    end = np.cumsum(length)
    return [text[a:b] for a, b in zip((end - length).tolist(), end.tolist(), strict=True)]


def _encode(crops: Sequence[Crop], sizes: Sequence[Size]) -> list[Rle]:
    if not crops:
        return []
    texts = _pack(*_runs(crops, sizes))
    return [{"size": [*size], "counts": text} for size, text in zip(sizes, texts, strict=True)]


def encode_rles(crops: Sequence[Crop], height: int, width: int) -> list[Rle]:
    """Box-local masks as compressed COCO RLE of the whole frame, as :func:`encode_rle` each."""
    return _encode(crops, [(height, width)] * len(crops))


def encode_crops(crops: Sequence[Crop]) -> list[Rle]:
    """Box-local masks as compressed COCO RLE, each of its crop only."""
    alone: list[Crop] = [(crop, 0, 0) for crop, _, _ in crops]
    return _encode(alone, [(crop.shape[0], crop.shape[1]) for crop, _, _ in crops])


def encode_rle(crop: Bools, x0: int, y0: int, height: int, width: int) -> Rle:
    """A box-local mask as compressed COCO RLE of the whole frame.

    Args:
        crop: bool (h, w), as :func:`paste` gives it.
        x0: frame column of the crop's first pixel.
        y0: frame row of the crop's first pixel.
        height: frame rows.
        width: frame columns.

    Returns:
        ``{"size": [height, width], "counts": str}``, equal to what COCO's own tools write.

    >>> encode_rle(np.ones((2, 2), np.bool_), 1, 0, 2, 4)
    {'size': [2, 4], 'counts': '242'}
    """
    return encode_rles([(crop, x0, y0)], height, width)[0]


def _unpack(text: str) -> list[int]:
    values: list[int] = []
    value = shift = 0
    for code in text.encode("ascii"):
        bits = code - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        values.append(value + (values[-2] if len(values) > 2 else 0))
        value = shift = 0
    return values


def decode_rle(rle: Rle) -> Bools:
    """The full-frame mask, bool (H, W).

    Raises:
        ValueError: the runs do not fill the frame exactly.
    """
    height, width = rle["size"]
    runs = np.array(_unpack(rle["counts"]), np.int64)
    if runs.sum() != height * width or (runs < 0).any():
        raise ValueError(f"the runs cover {runs.sum()} pixels of a {height} x {width} frame")
    flat = np.repeat(np.arange(runs.size) % 2 == 1, runs)
    return flat.reshape(width, height).T


def rle_area(rle: Rle) -> int:
    """Number of set pixels.

    >>> rle_area({"size": [2, 4], "counts": "242"})
    4
    """
    return sum(_unpack(rle["counts"])[1::2])
