"""Cases of the spatial attention kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from centermask_edge.kernels.cases.compare import expect_close, expect_codes
from centermask_edge.kernels.layouts import DTYPES, quantize
from centermask_edge.kernels.library import FLOAT16, FLOAT32, INT8, Library
from centermask_edge.kernels.reference.spatial_attention import spatial_attention as reference
from centermask_edge.kernels.spatial_attention import spatial_attention


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison; ``bad`` puts NaN and infinities into x."""

    rois: int
    channels: int
    height: int
    width: int
    kind: int = FLOAT32
    pack: int = 1
    weight_kind: int = FLOAT32
    bad: bool = False
    mean: float = 0.3

    def __str__(self) -> str:
        shape = "x".join(map(str, (self.rois, self.channels, self.height, self.width)))
        name = f"{shape}-{np.dtype(DTYPES[self.kind])}-pack{self.pack}"
        name += "-half_weight" if self.weight_kind == FLOAT16 else ""
        name += "-negative" if self.mean < 0 else ""
        return name + ("-bad" if self.bad else "")


def cases() -> list[Case]:
    """Every type and layout at the model's size, and sizes that fit nothing evenly."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    layouts = {FLOAT32: (1, 4, 32, 128), FLOAT16: (1, 4, 8, 32, 128), INT8: (1, 4, 16, 32, 128)}
    for kind, packs in layouts.items():
        for pack in packs:
            yield Case(3, 128, 14, 14, kind, pack)
        yield Case(2, 64, 7, 9, kind, 32)
        yield Case(2, 5, 3, 7, kind)  # 16 bytes fit nowhere
        yield Case(1, 36, 28, 28, kind, 4)
        yield Case(2, 16, 32, 32, kind)
        yield Case(1, 1, 1, 1, kind)
        yield Case(0, 128, 14, 14, kind)
    yield Case(2, 128, 14, 14, FLOAT32, weight_kind=FLOAT16)
    yield Case(2, 128, 14, 14, FLOAT16, 128, weight_kind=FLOAT16)
    for pack in (1, 64):
        yield Case(2, 64, 5, 6, pack=pack, mean=-6.0)  # every maximum below zero
    for kind in (FLOAT32, FLOAT16):
        yield Case(3, 8, 6, 6, kind, bad=True)
        yield Case(3, 64, 6, 6, kind, 64, bad=True)


def check(library: Library, case: Case) -> float:
    """The largest error of the kernel on the case's inputs; see ``compare``.

    Raises:
        Mismatch: they differ.
    """
    random = np.random.default_rng((case.channels, case.height, case.kind, case.pack))
    real = random.normal(case.mean, 1.0, (case.rois, case.channels, case.height, case.width))
    values = real.astype(np.float32)
    if case.bad:
        values[0, 3, 2, 2], values[1, 0, 0, 0], values[1, 5, 5, 5] = np.nan, np.inf, -np.inf
    weight = random.normal(0, 0.5, (1, 2, 3, 3)).astype(DTYPES[case.weight_kind])
    scales = (0.04, 0.03) if case.kind == INT8 else (1.0, 1.0)
    x = quantize(values, scales[0]) if case.kind == INT8 else values.astype(DTYPES[case.kind])
    got = spatial_attention(library, x, weight, pack=case.pack, scales=scales)
    seen = x.astype(np.float64) * (np.float64(np.float32(scales[0])) if case.kind == INT8 else 1)
    want = reference(seen, weight.astype(np.float64)) if case.rois else seen
    if case.kind == INT8:
        return expect_codes("y", got, want, scales[1])
    return expect_close("y", got, want, case.kind)
