"""How a kernel's output is compared with its reference, and what is said where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.layouts import DTYPES
from centermask_edge.kernels.library import FLOAT16, FLOAT32

Array = NDArray[Any]

# Of a value around 1: float32 sums in another order, and one rounding to half precision.
TOLERANCE = {FLOAT32: 1e-5, FLOAT16: 2e-3}
_NEAR_HALF = 1e-3  # of a code: so near to a rounding boundary, either neighbour is right


class Mismatch(Exception):
    """A kernel's output differs from the reference; the text says where and by how much."""


def expect_close(what: str, got: Array, want: Array, kind: int) -> float:
    """Every element within the tolerance of its type, NaN exactly where NaN is wanted.

    Args:
        what: name of the tensor.
        got: float32 or float16, from the kernel.
        want: float64 of the same shape, from the reference.
        kind: element type number.

    Returns:
        The largest error, of the value where that is above 1.

    Raises:
        Mismatch: they differ.
    """
    if got.dtype != DTYPES[kind] or got.shape != want.shape:
        raise Mismatch(f"{what}: {got.dtype} {got.shape}, wanted {DTYPES[kind]} {want.shape}")
    limit = np.float64(np.finfo(got.dtype).max)
    value = got.astype(np.float64)
    finite = np.isfinite(want) & (np.abs(want) <= limit)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(value - want) / np.maximum(np.abs(want), 1)
        wrong = np.where(finite, ~(error <= TOLERANCE[kind]), np.isfinite(value))
    _report(what, wrong, got, want)
    return float(error[finite].max(initial=0))


def expect_codes(what: str, got: Array, want: Array, scale: float) -> float:
    """int8 codes of the wanted values; either neighbour where rounding could go both ways.

    Returns:
        The largest difference to the nearest code, in codes.

    Raises:
        Mismatch: they differ.
    """
    exact = want / np.float64(np.float32(scale))
    low = np.clip(np.rint(exact - _NEAR_HALF), -128, 127)
    high = np.clip(np.rint(exact + _NEAR_HALF), -128, 127)
    nearest = np.clip(np.rint(exact), -128, 127)
    _report(what, (got < low) | (got > high), got, nearest)
    return float(np.abs(got - nearest).max(initial=0))


def expect_equal(what: str, got: Array, want: Array) -> None:
    """The same dtype, shape and bits (NaN equals NaN).

    Raises:
        Mismatch: they differ.
    """
    if got.dtype != want.dtype or got.shape != want.shape:
        raise Mismatch(f"{what}: {got.dtype} {got.shape}, wanted {want.dtype} {want.shape}")
    both_nan = (got != got) & (want != want)
    _report(what, (got != want) & ~both_nan, got, want)


def _report(what: str, wrong: Array, got: Array, want: Array) -> None:
    if not wrong.any():
        return
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    raise Mismatch(
        f"{what}: {int(wrong.sum())} of {wrong.size} differ, first at {place}: "
        f"got {got[place]}, wanted {want[place]}"
    )
