"""Two runs of one network compared tensor by tensor, with limits that follow from the arithmetic.

The error of a tensor is the root mean square of the difference over that of the wanted values: one
wrong layer changes it by far more than rounding does, and a single large value does not hide it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.engines.base import Detections
from centermask_edge.engines.tensorrt.manifest import Precision
from centermask_edge.model.checks import match

Array = NDArray[Any]

# What one layer's rounding leaves, as a share of its usual value, times a margin. fp16 has 11 bits,
# and so have fp32 convolutions, which run as TF32 on tensor cores. Margin 16: the shipped model
# (depthwise convolutions without normalisation after them) in fp16 on ONNX Runtime needs 8. In
# 8 bits a usual value is a third of the 127 steps, and the root mean square of what rounding to a
# step leaves is 1 / sqrt(12) of it; there engine and reference round alike, hence margin 4.
_ROUNDING = {
    Precision.FP32: 16 * 2.0**-11,
    Precision.FP16: 16 * 2.0**-11,
    Precision.INT8: 4 * 3 / 127 / math.sqrt(12),
}


def limit_for(precision: Precision, depth: int) -> float:
    """The largest error of a tensor that rounding explains.

    Independent errors of the layers add like a random walk, hence the root.

    Args:
        precision: of the layers.
        depth: convolutions and products one after another.

    >>> round(limit_for(Precision.FP16, 49), 4)
    0.0547
    """
    return _ROUNDING[precision] * math.sqrt(max(depth, 1))


@dataclass(frozen=True, slots=True)
class Compared:
    """One tensor.

    Attributes:
        name: of the tensor.
        error: see the module; infinite where shapes differ or something is not finite.
        limit: of the error.
        at: where the largest difference is.
        found: the value there.
        wanted: what it should be.
    """

    name: str
    error: float
    limit: float
    at: tuple[int, ...] = ()
    found: float = 0.0
    wanted: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether rounding explains the difference; NaN never does."""
        return self.error <= self.limit

    def worse(self, other: Compared | None) -> Compared:
        """Of two pictures the one with the larger error."""
        return self if other is None or not self.error <= other.error else other


def compare_tensor(
    name: str, found: Array, wanted: Array, limit: float, scale: float | None = None
) -> Compared:
    """How far two tensors differ.

    Args:
        name: for the table.
        found: of the engine.
        wanted: of the reference.
        limit: of the error.
        scale: what the error is a share of; the root mean square of ``wanted`` where None.
    """
    if found.shape != wanted.shape:
        return Compared(name, math.inf, limit, (), float(found.size), float(wanted.size))
    if wanted.size == 0:
        return Compared(name, 0.0, limit)
    ours, theirs = found.astype(np.float64), wanted.astype(np.float64)
    difference = np.abs(ours - theirs)
    difference[~np.isfinite(difference)] = np.inf
    at = np.unravel_index(int(difference.argmax()), difference.shape)
    size = _rms(theirs) if scale is None else scale
    error = _rms(difference) / max(size, float(np.finfo(np.float32).tiny))
    place = tuple(int(i) for i in at)
    return Compared(name, float(error), limit, place, float(ours[at]), float(theirs[at]))


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which rows of two sets of detections of one picture are the same object.

    Attributes:
        found: rows of the engine.
        wanted: rows of the reference, in the same order.
        lone: clear detections that only one of the two has.
    """

    found: NDArray[np.int64]
    wanted: NDArray[np.int64]
    lone: int


def pair(found: Detections, wanted: Detections, i: int, score: float, margin: float) -> Pairs:
    """The detections of picture ``i`` that both have.

    Args:
        found: of the engine.
        wanted: of the reference.
        i: index in the batch.
        score: a detection is clear from this score on.
        margin: how much less the other may give it.
    """
    n, m = int(found.count[i]), int(wanted.count[i])
    order = match(
        found.boxes[i, :n], found.classes[i, :n], wanted.boxes[i, :m], wanted.classes[i, :m]
    )
    rows = np.flatnonzero(order >= 0)
    near = np.abs(found.scores[i][order[rows]] - wanted.scores[i][rows]) <= margin
    clear = wanted.scores[i, :m][rows] >= score
    rows = rows[clear & near]
    known = set(order[rows].tolist())
    lone = int((wanted.scores[i, :m] >= score).sum()) - len(rows)
    extra = np.flatnonzero(found.scores[i, :n] >= score + margin)
    lone += sum(int(k) not in known for k in extra)
    return Pairs(order[rows], rows.astype(np.int64), lone)


def compare_detections(
    found: Detections, wanted: Detections, limit: float, score: float
) -> list[Compared]:
    """The outputs of one picture, object by object; ``count`` counts what only one has.

    Boxes are measured by their own size, scores and masks by 1, which they cannot pass.
    """
    pairs = pair(found, wanted, 0, score, limit)
    a, b = pairs.found, pairs.wanted
    boxes, wanted_boxes = found.boxes[0][a], wanted.boxes[0][b]
    sides = np.maximum(wanted_boxes[:, 2:] - wanted_boxes[:, :2], 1)
    by_size = np.concatenate((sides, sides), 1)
    rows = [compare_tensor("boxes", boxes / by_size, wanted_boxes / by_size, limit, 1.0)]
    for name in ("scores", "mask_scores", "masks"):
        ours, theirs = getattr(found, name)[0][a], getattr(wanted, name)[0][b]
        rows.append(compare_tensor(name, ours, theirs, limit, 1.0))
    rows.append(compare_tensor("classes", found.classes[0][a], wanted.classes[0][b], 0.0, 1.0))
    rows.append(Compared("count", float(pairs.lone), 0.0, (0,), *_counts(found, wanted, score)))
    return rows


def _counts(found: Detections, wanted: Detections, score: float) -> tuple[float, float]:
    ours, theirs = ((d.scores[0, : int(d.count[0])] >= score).sum() for d in (found, wanted))
    return float(ours), float(theirs)
