"""The overlay in numpy, with the kernel's float32 arithmetic operation for operation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
F = np.float32


def full_mask(mask: Floats, box: Floats, height: int, width: int, margin: int = 0) -> Bools:
    """Pixels of a frame that the mask sets, bool (height + 2 margin, width + 2 margin).

    ``margin`` pixels beyond the frame are sampled on every side, too: the outline looks there.
    """
    x0, y0, x1, y1 = box
    columns = np.arange(-margin, width + margin)
    rows = np.arange(-margin, height + margin)
    if not (x1 > x0 and y1 > y0):
        return np.zeros((len(rows), len(columns)), np.bool_)
    with np.errstate(invalid="ignore", over="ignore"):
        down, weight_y = _taps(rows, y0, y1, len(mask))
        across, weight_x = _taps(columns, x0, x1, len(mask))
        value = np.zeros((len(rows), len(columns)), F)
        for k in range(2):
            along = np.zeros((len(rows), len(columns)), F)
            for j in range(2):
                along = along + weight_y[j][:, None] * mask[down[j][:, None], across[k][None]]
            value = value + along * weight_x[k][None]
        return np.asarray(value >= F(0.5))


def _taps(
    pixels: NDArray[np.int64], low: np.float32, high: np.float32, side: int
) -> tuple[list[NDArray[np.int64]], list[Floats]]:
    """The two cells beside each pixel's centre and their weights; zero weight off the map."""
    centre = pixels.astype(F) + F(0.5)
    grid = (centre - low) / (high - low) * F(2) - F(1)
    cell = ((grid + F(1)) * F(side) - F(1)) / F(2)
    inside = (pixels >= np.floor(low)) & (pixels < np.ceil(high)) & (cell > -1) & (cell < side)
    safe = np.where(inside, cell, F(0))
    base = np.floor(safe).astype(np.int64)
    cells, weights = [], []
    for step in range(2):
        index = base + step
        weight = F(1) - np.abs(safe - index.astype(F))
        on_map = inside & (index >= 0) & (index < side)
        cells.append(np.clip(index, 0, side - 1))
        weights.append(np.where(on_map, weight, F(0)))
    return cells, weights


def mask_overlay(
    frame: Bytes,
    masks: Floats,
    boxes: Floats,
    colors: Bytes,
    opacity: float,
    outline: int,
    count: int,
) -> tuple[Bytes, NDArray[np.int32]]:
    """As :func:`centermask_edge.kernels.mask_overlay.mask_overlay`."""
    height, width = frame.shape[:2]
    drawn, areas = frame.copy(), np.zeros(len(boxes), np.int32)
    for i in reversed(range(min(count, len(boxes)))):
        t = outline
        wide = full_mask(masks[i], boxes[i], height, width, t)
        mask = wide[t : t + height, t : t + width]
        areas[i] = mask.sum()
        edge = np.zeros_like(mask)
        if t:
            beside = (wide[t:-t, : -2 * t], wide[t:-t, 2 * t :], wide[: -2 * t, t:-t])
            edge = mask & ~np.logical_and.reduce((*beside, wide[2 * t :, t:-t]))
        for where, share in ((mask & ~edge, F(opacity)), (edge, F(1))):
            old = drawn[where].astype(F) * (F(1) - share)
            drawn[where] = np.rint(old + colors[i].astype(F) * share).astype(np.uint8)
    return drawn, areas
