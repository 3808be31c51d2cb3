"""Pyramid RoIAlign in numpy: equation 2 and ONNX RoiAlign-16 by their definitions.

Sums are float64. Positions are float32 and rounded in the kernels' order, because a sample at the
edge of [-1, extent] counts or does not by its last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_FARTHEST = np.float32(2.0**24)  # cells


def assign_level(box: Floats, image_size: Floats) -> int:
    """0, 1 or 2 for P3, P4 or P5: above half of the picture P5, above a quarter P4 (eq. 2)."""
    with np.errstate(over="ignore", invalid="ignore"):
        area = (box[2] - box[0]) * (box[3] - box[1])
        picture = image_size[0] * image_size[1]
        if area > picture * np.float32(0.5):
            return 2
        return 1 if area > picture * np.float32(0.25) else 0


def bin_weights(low: np.float32, high: np.float32, extent: int, side: int) -> Doubles | None:
    """What each bin takes from each cell of one axis, float64 (side, extent).

    None where the box has no length on this axis or cannot be placed.

    Args:
        low: start of the box in cells, the half pixel already taken off.
        high: its end.
        extent: cells of the level.
        side: bins.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        length = high - low
        if not (abs(low) <= _FARTHEST and length <= _FARTHEST):
            return None
        samples = np.ceil(length / np.float32(side))
        if samples <= 0:
            return None
        size = length / np.float32(side)
        weights = np.zeros((side, extent))
        for index in range(side):
            origin = low + np.float32(index) * size
            sample = _candidates(float(origin), float(size / samples), extent, int(samples))
            inside = (sample.astype(np.float32) + np.float32(0.5)) * size / samples
            where = origin + inside
            where = where[(where >= -1) & (where <= extent)]
            where = np.clip(where, np.float32(0), np.float32(extent - 1))
            cell = np.floor(where).astype(np.int64)
            fraction = (where - cell.astype(np.float32)).astype(np.float64)
            np.add.at(weights[index], cell, (1 - fraction) / samples)
            np.add.at(weights[index], np.minimum(cell + 1, extent - 1), fraction / samples)
    return weights


def _candidates(origin: float, step: float, extent: int, samples: int) -> NDArray[np.int64]:
    """Samples of a bin that may lie on the level; all of them unless the box is huge."""
    if samples <= 4096:
        return np.arange(samples)
    slack = 4096
    first = max(0, int((-1 - origin) / step) - slack)
    return np.arange(first, min(samples, int((extent - origin) / step) + slack))


def pyramid_roi_align(
    features: Sequence[Doubles],
    rois: Floats,
    roi_image: NDArray[np.int64],
    image_size: Floats,
    side: int,
    live: NDArray[np.bool_] | None = None,
) -> Doubles:
    """Features of every RoI from the level of its size, float64 (R, C, side, side).

    Args:
        features: P3, P4, P5, each float64 (N, C, H, W).
        rois: float32 (R, 4) xyxy in input pixels.
        roi_image: int64 (R,) picture of each.
        image_size: float32 (N, 2) resized, unpadded height and width.
        side: output side.
        live: bool (R,), False for RoIs that give zeros; all True where None.
    """
    out = np.zeros((len(rois), features[0].shape[1], side, side))
    for r, box in enumerate(rois):
        if (live is not None and not live[r]) or not 0 <= roi_image[r] < len(image_size):
            continue
        level = assign_level(box, image_size[roi_image[r]])
        feature = features[level][roi_image[r]]
        with np.errstate(over="ignore", invalid="ignore"):
            edges = box * np.float32(1 / (8 << level)) - np.float32(0.5)
        rows = bin_weights(edges[1], edges[3], feature.shape[1], side)
        columns = bin_weights(edges[0], edges[2], feature.shape[2], side)
        if rows is None or columns is None:
            continue
        out[r] = _average(rows, columns, feature)
    return out


def _average(rows: Doubles, columns: Doubles, feature: Doubles) -> Doubles:
    """``rows @ feature @ columns.T`` where a weight of zero takes nothing, not even a NaN."""
    total = np.zeros((len(feature), len(rows), len(columns)))
    for i, j in np.ndindex(total.shape[1:]):
        y, x = np.flatnonzero(rows[i]), np.flatnonzero(columns[j])
        part = feature[:, y[:, None], x[None]]
        weight = rows[i][y][:, None] * columns[j][x][None]
        total[:, i, j] = (part * weight).sum((1, 2))
    return total
