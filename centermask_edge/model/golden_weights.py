"""Weights that depend on nothing but a seed and the official name and shape of each tensor.

They stand in for trained weights wherever two implementations are compared: anyone can make the
same ones without a download. A tensor is a stream of PCG64 whose seed is a hash of its name,
turned into uniforms; only scalar arithmetic that IEEE 754 makes exact is used, so the bytes are
the same on every machine. The scales keep activations of order one for inputs of 0 to 255.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Shape = Sequence[int]

_SQRT2 = math.sqrt(2.0)

# Pattern in an official name, gain, whether input channels balance; the first that fits decides.
_GAINS: tuple[tuple[str, float, bool], ...] = (
    (r"fcos_head\.cls_logits\.weight$", 1.55, True),
    (r"fcos_head\.bbox_pred\.weight$", 4.0, True),
    (r"fcos_head\.ctrness\.weight$", 1.5, True),
    (r"fcos_head\.", _SQRT2, False),
    (r"mask_head\.spatialAtt\.conv\.weight$", 1.0, False),
    (r"mask_head\.predictor\.weight$", 6.0, True),
    (r"\.mask_head\.", _SQRT2, False),
    (r"maskiou_head\.maskiou\.weight$", 0.5, True),
    (r"\.maskiou_head\.", _SQRT2, False),
    (r"backbone\.fpn_", 0.6, False),
    (r"backbone\.top_block\.", 1.3, False),
)
_BODY_GAINS: tuple[tuple[str, float], ...] = (
    (r"conv_offset", 0.05),
    (r"ese\.fc\.weight$", 2.0),
    (r"dw_conv3x3", 1.0),
    (r"OSA\d+_1_concat/conv", 2.0),
    (r"_concat/conv", 0.8),  # blocks with a residual
    (r"\.res\d+\.\d+\.conv3\.weight$", 0.35),
    (r"\.res\d+\.\d+\.shortcut\.weight$", 0.8),
)
_BIASES: tuple[tuple[str, float, float], ...] = (
    ("fcos_head.cls_logits.bias", -6.2, -5.2),
    ("fcos_head.bbox_pred.bias", 5.0, 6.5),
    ("fcos_head.ctrness.bias", 0.0, 1.0),
    ("maskiou_head.maskiou.bias", 0.4, 0.8),
)


def _uniform(seed: int, key: str, shape: Shape, low: float, high: float) -> Doubles:
    """Uniforms in [low, high), in C order of the shape."""
    digest = hashlib.sha256(f"{seed}|{key}".encode()).digest()
    count = int(np.prod(shape)) if len(shape) else 1
    raw = np.random.PCG64(int.from_bytes(digest[:16], "little")).random_raw(count)
    unit = (np.asarray(raw, dtype=np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    spread: Doubles = (low + (high - low) * unit).reshape(tuple(shape))
    return spread


def _centred(seed: int, key: str, shape: Shape, std: float) -> Doubles:
    limit = std * math.sqrt(3.0)
    return _uniform(seed, key, shape, -limit, limit)


def _balanced(seed: int, key: str, shape: Shape, std: float) -> Doubles:
    """Input channel i + C/2 carries minus the weights of channel i: an offset common to all
    channels gives exactly zero.
    """
    channels = shape[1]
    half = _centred(seed, key, (shape[0], channels // 2, *shape[2:]), std)
    odd = np.zeros((shape[0], channels % 2, *shape[2:]))
    return np.concatenate([half, -half, odd], axis=1)


def _weight(seed: int, key: str, shape: Shape) -> Doubles:
    root = math.sqrt(int(np.prod(shape[1:])))
    if key.endswith("mask_head.deconv.weight"):  # (in, out, 2, 2)
        return _centred(seed, key, shape, math.sqrt(2.0 / shape[0]))
    for pattern, gain, balanced in _GAINS:
        if re.search(pattern, key):
            make = _balanced if balanced else _centred
            return make(seed, key, shape, gain / root)
    if len(shape) == 4 and shape[1] == 3 and shape[0] > 3:  # reads pixels: undoes their scale
        return _centred(seed, key, shape, _SQRT2 / 64.0 / root)
    for pattern, gain in _BODY_GAINS:
        if re.search(pattern, key):
            return _centred(seed, key, shape, gain / root)
    return _centred(seed, key, shape, 1.3 / root)


def _bias(seed: int, key: str, shape: Shape) -> Doubles:
    for end, low, high in _BIASES:
        if key.endswith(end):
            return _uniform(seed, key, shape, low, high)
    return _centred(seed, key, shape, 1.0 if key.endswith("ese.fc.bias") else 0.1)


def golden_tensor(seed: int, key: str, shape: Shape) -> Floats:
    """The float32 tensor of that official name and shape.

    Raises:
        KeyError: no rule for a tensor of that name.

    >>> [round(float(v), 4) for v in golden_tensor(0, "backbone.fpn_lateral3.bias", (2,))]
    [0.1308, -0.0935]
    """
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_mean":
        value = _centred(seed, key, shape, 0.1)
    elif leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        value = _uniform(seed, key, shape, 0.5, 1.5)
    elif leaf == "scale":
        value = _uniform(seed, key, shape, 0.8, 1.2)
    elif leaf == "weight":
        value = _weight(seed, key, shape)
    elif leaf == "bias":
        value = _bias(seed, key, shape)
    else:
        raise KeyError(f"no rule for {key} {tuple(shape)}")
    return np.ascontiguousarray(value, dtype=np.float32)


def golden_weights(shapes: Mapping[str, Shape], seed: int = 0) -> dict[str, Floats]:
    """All tensors of a network given by official names and shapes."""
    return {key: golden_tensor(seed, key, shape) for key, shape in shapes.items()}


def digest(state: Mapping[str, Floats]) -> str:
    """sha256 over sorted names, shapes and little-endian bytes: equal weights, equal digest."""
    total = hashlib.sha256()
    for key in sorted(state):
        array = np.ascontiguousarray(state[key])
        total.update(key.encode())
        total.update(repr(tuple(int(s) for s in array.shape)).encode())
        total.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return total.hexdigest()
