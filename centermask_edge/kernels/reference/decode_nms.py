"""Decoding in numpy, with the kernel's float32 arithmetic operation for operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.boxes import nms
from centermask_edge.kernels.decode_nms import Detections, Options

Floats = NDArray[np.float32]
Array = NDArray[Any]


def pinned_sigmoid(x: Floats) -> Floats:
    """``1 / (1 + exp(-x))`` in float32 additions, multiplications and one division only.

    The same bits as kernels/src/sigmoid.h, on every machine; within three ulp of the true value.
    """
    one = np.float32(1)
    negated = -np.clip(np.nan_to_num(x, nan=0.0), -87, 87).astype(np.float32)
    shift = np.float32(12582912)
    n = (negated * np.float32(1.44269504) + shift) - shift
    r = (negated - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    p = np.full_like(r, one / np.float32(5040))
    for divisor in (720, 120, 24, 6, 2, 1, 1):
        p = p * r + one / np.float32(divisor)
    exponent = ((n.astype(np.int32) + 127) << 23).view(np.float32)
    found = one / (one + p * exponent)
    found = np.where(x < -87, np.float32(0), np.where(x > 87, one, found))
    return np.where(np.isnan(x), np.float32(np.nan), found).astype(np.float32)


def decode_nms(
    logits: Sequence[Array],
    reg: Sequence[Array],
    centerness: Sequence[Array],
    strides: Sequence[int],
    options: Options,
    index: type[np.signedinteger[Any]] = np.int64,
) -> Detections:
    """As :func:`centermask_edge.kernels.decode_nms.decode_nms`, picture by picture."""
    images, kept = logits[0].shape[0], options.max_detections
    found = Detections(
        np.zeros((images, kept, 4), np.float32),
        np.zeros((images, kept), np.float32),
        np.zeros((images, kept), index),
        np.zeros(images, index),
        np.full((images, kept), -1, np.int32),
    )
    for image in range(images):
        _decode_picture(found, image, logits, reg, centerness, strides, options)
    return found


def _decode_picture(
    found: Detections,
    image: int,
    logits: Sequence[Array],
    reg: Sequence[Array],
    centerness: Sequence[Array],
    strides: Sequence[int],
    options: Options,
) -> None:
    boxes, quality, classes, flat, start = [], [], [], [], 0
    for level, stride in enumerate(strides):
        p = pinned_sigmoid(logits[level][image].astype(np.float32))
        c = pinned_sigmoid(centerness[level][image].astype(np.float32))
        q = (p * c).ravel()  # class by class, as the logits lie
        live = np.flatnonzero((p.ravel() > np.float32(options.score_threshold)) & (q > 0))
        best = live[np.argsort(-q[live], kind="stable")][: options.pre_nms_topk]
        label, cell = np.divmod(best, c.size)
        boxes.append(_boxes(reg[level][image].astype(np.float32), cell, stride))
        quality.append(q[best])
        classes.append(label)
        flat.append(best + start)
        start += q.size
    box, score, label = np.concatenate(boxes), np.concatenate(quality), np.concatenate(classes)
    with np.errstate(invalid="ignore", over="ignore"):
        keep = nms(box, score, label, options.nms_threshold, options.max_detections)
    found.count[image] = len(keep)
    found.boxes[image, : len(keep)] = box[keep]
    found.scores[image, : len(keep)] = np.sqrt(score[keep])
    found.classes[image, : len(keep)] = label[keep]
    found.indices[image, : len(keep)] = np.concatenate(flat)[keep]


def _boxes(reg: Floats, cell: NDArray[np.int64], stride: int) -> Floats:
    row, column = np.divmod(cell, reg.shape[2])
    x = (column * stride + stride // 2).astype(np.float32)
    y = (row * stride + stride // 2).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        left, top, right, bottom = reg.reshape(4, -1)[:, cell] * np.float32(stride)
        found: Floats = np.stack((x - left, y - top, x + right, y + bottom), axis=1)
    return found
