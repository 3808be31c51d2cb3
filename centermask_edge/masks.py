"""Masks inside their boxes: pasting a probability map, and COCO's run-length encoding.

Nothing here makes a full-frame mask unless it is asked for: at 50 instances on 1280 x 720 the
full-frame way costs 46 MB and fifty times the paste. Legend: H W frame rows and columns in
pixels, M mask side (28).
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


# Multiply-adds of one matrix product up to which OpenBLAS stays in the calling thread. Waking
# others costs more than they can give here: 50 masks took 4 ms in one thread and 142 in two
# beside a busy engine.
_ONE_THREAD = 4 * 65_536


class Rle(TypedDict):
    """A mask as COCO writes it: frame size and compressed column-major run lengths."""

    size: list[int]
    counts: str


def _weights(low: np.float32, high: np.float32, first: int, last: int, side: int) -> Floats:
    """Bilinear weights (last - first, side) of pixel centres over ``side`` cells, zero padded.

    The centre x + 0.5 lies at ``(x + 0.5 - low) / (high - low) * side - 0.5`` in cells.
    """
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    with np.errstate(over="ignore"):  # a box too thin for any centre: infinitely far, weight 0
        grid = (centres - low) / (high - low) * np.float32(2) - np.float32(1)
    cells = ((grid + np.float32(1)) * np.float32(side) - np.float32(1)) / np.float32(2)
    distance = np.abs(cells[:, None] - np.arange(side, dtype=np.float32)[None])
    weights: Floats = np.maximum(np.float32(1) - distance, np.float32(0))
    return weights


def paste(mask: Floats, box: Floats, height: int, width: int) -> tuple[Bools, int, int]:
    """The mask at frame resolution, only inside its box.

    A pixel is set where the bilinear sample at its centre is at least 0.5, with zeros beyond the
    map; so none outside the box can be set and the crop loses nothing.

    Args:
        mask: float32 (M, M) probabilities in 0..1.
        box: float32 (4,) xyxy in frame pixels, already clipped to the frame.
        height: frame rows.
        width: frame columns.

    Returns:
        bool (h, w) crop, and the frame column x0 and row y0 of its first pixel. The crop is
        empty for a box without width or height.
    """
    x0, y0, x1, y1 = box
    if not (x1 > x0 and y1 > y0):
        return np.zeros((0, 0), np.bool_), 0, 0
    left, top = max(int(np.floor(x0)), 0), max(int(np.floor(y0)), 0)
    right, bottom = min(int(np.ceil(x1)), width), min(int(np.ceil(y1)), height)
    if right <= left or bottom <= top:
        return np.zeros((0, 0), np.bool_), 0, 0
    rows = _weights(y0, y1, top, bottom, mask.shape[0])
    columns = _weights(x0, x1, left, right, mask.shape[1])
    crop = np.empty((bottom - top, right - left), np.bool_)
    step = max(_ONE_THREAD // (mask.shape[1] * crop.shape[1]), 1)
    across = np.ascontiguousarray(columns.T)
    for first in range(0, crop.shape[0], step):
        block = slice(first, first + step)
        np.greater_equal((rows[block] @ mask) @ across, np.float32(0.5), out=crop[block])
    return crop, left, top


def paste_full(mask: Floats, box: Floats, height: int, width: int) -> Bools:
    """The same mask in a frame of its own: bool (height, width)."""
    frame = np.zeros((height, width), np.bool_)
    crop, x0, y0 = paste(mask, box, height, width)
    frame[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
    return frame


def _runs(crop: Bools, x0: int, y0: int, height: int, width: int) -> npt.NDArray[np.int64]:
    """Lengths of the alternating zero and one runs of the frame, column by column."""
    # A zero before and after every column, so that one flat comparison finds all the edges.
    stride = crop.shape[0] + 2
    columns = np.zeros((crop.shape[1], stride), np.bool_)
    columns[:, 1:-1] = crop.T
    flat = columns.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), stride)
    edges = (column + x0) * height + row + y0
    if crop.shape[0] == height:
        # One column ends where the next begins only if the crop has the frame's full height.
        starts, ends = edges[0::2], edges[1::2]
        joined = ends[:-1] == starts[1:]
        keep = np.ones(edges.shape, np.bool_)
        keep[1:-1:2][joined] = False
        keep[2::2][joined] = False
        edges = edges[keep]
    total = height * width
    if edges.size == 0 or edges[-1] != total:
        edges = np.append(edges, total)
    return np.diff(edges, prepend=0)


def _pack(values: npt.NDArray[np.int64]) -> str:
    """COCO's text of the run lengths: from the fourth on, the difference to two before; each
    number in groups of five bits, low first, with a sign bit and a continuation bit.
    """
    deltas = values.copy()
    deltas[3:] -= values[1:-2]
    groups: list[npt.NDArray[np.int64]] = []
    live: list[Bools] = []
    going = np.ones(deltas.shape, np.bool_)
    while going.any():
        low = deltas & 31
        deltas = deltas >> 5
        more = going & np.where(low & 16, deltas != -1, deltas != 0)
        groups.append(low + np.where(more, 32, 0) + 48)
        live.append(going)
        going = more
    table = np.stack(groups, axis=1).astype(np.uint8)
    return table[np.stack(live, axis=1)].tobytes().decode("ascii")


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
    if crop.size == 0:
        crop, x0, y0 = np.zeros((1, 1), np.bool_), 0, 0
    return {"size": [height, width], "counts": _pack(_runs(crop, x0, y0, height, width))}


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
