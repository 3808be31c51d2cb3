"""Preprocessing in numpy: the training resize in its integer arithmetic, then normalisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.preprocess import BT601, NV12, RGB, Plan

Bytes = NDArray[np.uint8]
_PRECISION = 22


def axis_weights(source: int, resized: int) -> NDArray[np.int64]:
    """Weight of every input for every output of one axis, int64 (resized, source), 22-bit.

    A triangle filter, widened by the scale where it shrinks (antialiasing).
    """
    scale = source / resized
    support = max(scale, 1.0)
    weights = np.zeros((resized, source), np.int64)
    for x in range(resized):
        centre = (x + 0.5) * scale
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), source)
        far = np.abs((np.arange(first, last) - centre + 0.5) * (1.0 / support))
        share = np.maximum(1 - far, 0)
        total = 0.0
        for value in share:  # in this order; numpy's own sum pairs the terms
            total += value
        share = share * (1.0 / total) if total else share
        weights[x, first:last] = (0.5 + share * (1 << _PRECISION)).astype(np.int64)
    return weights


def resize(image: Bytes, size: tuple[int, int]) -> Bytes:
    """uint8 (H, W, 3) at another (height, width): two passes, each rounded to 8 bits."""
    half = 1 << (_PRECISION - 1)
    columns = axis_weights(image.shape[1], size[1])
    rows = axis_weights(image.shape[0], size[0])
    across = (np.einsum("xj,yjc->yxc", columns, image.astype(np.int64)) + half) >> _PRECISION
    down = (np.einsum("yi,ixc->yxc", rows, np.clip(across, 0, 255)) + half) >> _PRECISION
    found: Bytes = np.clip(down, 0, 255).astype(np.uint8)
    return found


def nv12_to_bgr(frame: Bytes, matrix: int, full_range: bool) -> Bytes:
    """uint8 (H, W, 3) BGR of an NV12 frame (H * 3 / 2, W), nearest chroma, 16-bit weights."""
    height = frame.shape[0] * 2 // 3
    kr, kb = (0.299, 0.114) if matrix == BT601 else (0.2126, 0.0722)
    luma, chroma = (1.0, 1.0) if full_range else (255 / 219, 255 / 224)
    kg = 1 - kr - kb
    real = (
        luma,
        2 * (1 - kr) * chroma,
        2 * (1 - kb) * kb / kg * chroma,
        2 * (1 - kr) * kr / kg * chroma,
        2 * (1 - kb) * chroma,
    )
    weight_y, v_in_r, u_in_g, v_in_g, u_in_b = (int(w * 65536 + 0.5) for w in real)
    y = np.maximum(frame[:height].astype(np.int64) - (0 if full_range else 16), 0)
    y = y * weight_y + (1 << 15)
    pairs = frame[height:].reshape(height // 2, -1, 2).astype(np.int64) - 128
    u, v = (pairs[..., k].repeat(2, 0).repeat(2, 1) for k in range(2))
    bgr = np.stack((y + u_in_b * u, y - u_in_g * u - v_in_g * v, y + v_in_r * v), axis=2) >> 16
    found: Bytes = np.clip(bgr, 0, 255).astype(np.uint8)
    return found


def preprocess(frames: Bytes, plan: Plan) -> NDArray[np.float32]:
    """As :func:`centermask_edge.kernels.preprocess.preprocess`, always float32."""
    out = np.zeros((len(frames), 3, *plan.padded), np.float32)
    height, width = plan.resized
    for image, frame in enumerate(frames):
        bgr = frame
        if plan.source_format == NV12:
            bgr = nv12_to_bgr(frame, plan.matrix, plan.full_range)
        elif plan.source_format == RGB:
            bgr = frame[..., ::-1]
        resized = resize(bgr, plan.resized)
        for channel in range(3):
            plane = resized[..., 2 - channel if plan.rgb_output else channel].astype(np.float32)
            plane = plane - np.float32(plan.mean[channel])
            if plan.std[channel] != 1:
                plane = plane / np.float32(plan.std[channel])
            out[image, channel, :height, :width] = plane
    return out
