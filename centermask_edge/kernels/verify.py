"""Every case of a kernel on a device, and how far from its reference it was at most."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from centermask_edge.errors import KernelError
from centermask_edge.kernels.cases.compare import Mismatch
from centermask_edge.kernels.layouts import DTYPES
from centermask_edge.kernels.library import FLOAT32, INT8, Library

KERNELS = ("roi_align", "spatial_attention", "decode_nms", "preprocess", "mask_overlay")
EXACT = frozenset({"decode_nms", "preprocess", "mask_overlay"})  # compared bit by bit


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the cases of one kernel and element type.

    Attributes:
        kernel: its name.
        kind: element type.
        cases: how many ran.
        worst: largest error of those that passed; of the value where that is above 1.
        unit: ``codes`` for int8, else empty.
        exact: every output is compared bit by bit.
        failures: of those that did not: the case, where it differs, and by how much.
    """

    kernel: str
    kind: str
    cases: int
    worst: float
    unit: str
    exact: bool
    failures: tuple[str, ...]


def verify(library: Library, kernel: str, every: int = 1) -> list[Verdict]:
    """One verdict per element type.

    Args:
        library: whose device.
        kernel: one of ``KERNELS``.
        every: take each n-th case only.
    """
    module = importlib.import_module(f"centermask_edge.kernels.cases.{kernel}")
    groups: dict[str, list[Any]] = {}
    for case in module.cases()[::every]:
        groups.setdefault(_kind(case), []).append(case)
    return [_verdict(library, module, kernel, kind, cases) for kind, cases in groups.items()]


def _kind(case: Any) -> str:
    dtype: Any = getattr(case, "dtype", None) or DTYPES[getattr(case, "kind", FLOAT32)]
    return str(np.dtype(dtype).name)


def _verdict(library: Library, module: Any, kernel: str, kind: str, cases: list[Any]) -> Verdict:
    worst, failures = 0.0, []
    for case in cases:
        try:
            worst = max(worst, module.check(library, case))
        except (Mismatch, KernelError) as fault:
            failures.append(f"{kernel} {case}: {fault}")
    unit = "codes" if kind == np.dtype(DTYPES[INT8]).name else ""
    exact = kernel in EXACT
    return Verdict(kernel, kind, len(cases), worst, unit, exact, tuple(failures))
