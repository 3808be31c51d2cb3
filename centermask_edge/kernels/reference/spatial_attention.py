"""Spatial attention in numpy (CenterMask, equations 3 and 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def spatial_attention(x: Floats, weight: Floats) -> Floats:
    """``x * sigmoid(conv3x3([mean over C, max over C]))``, float64 (R, C, H, W).

    Args:
        x: float64 (R, C, H, W).
        weight: float64 (1, 2, 3, 3), for the mean and the maximum, zero padding, no bias.
    """
    height, width = x.shape[2:]
    with np.errstate(invalid="ignore", over="ignore"):
        pooled = np.stack((x.mean(1), x.max(1)), axis=1)
        framed = np.pad(pooled, ((0, 0), (0, 0), (1, 1), (1, 1)))
        response = np.zeros((len(x), height, width))
        for kind in range(2):
            for dy in range(3):
                for dx in range(3):
                    near = framed[:, kind, dy : dy + height, dx : dx + width]
                    inside = _inside(height, width, dy - 1, dx - 1)
                    response += np.where(inside, weight[0, kind, dy, dx] * near, 0)
        gated: Floats = x / (1 + np.exp(-response))[:, None]
    return gated


def _inside(height: int, width: int, down: int, across: int) -> NDArray[np.bool_]:
    rows, columns = np.arange(height) + down, np.arange(width) + across
    return ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
