"""Cases of the preprocessing kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from centermask_edge.kernels.cases.compare import expect_equal
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.preprocess import BGR, BT601, BT709, NV12, RGB, Plan, preprocess
from centermask_edge.kernels.reference.preprocess import preprocess as reference

RGB_STATISTICS = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison; sizes are (height, width)."""

    source: tuple[int, int]
    resized: tuple[int, int]
    source_format: int = BGR
    dtype: type[np.floating[Any]] = np.float32
    images: int = 1
    padding: int = 0
    matrix: int = BT601
    full_range: bool = False
    rgb_output: bool = False

    @property
    def plan(self) -> Plan:
        """The kernel's view of the case."""
        height, width = (-(-side // 32) * 32 for side in self.resized)
        statistics = {"mean": RGB_STATISTICS[0], "std": RGB_STATISTICS[1]}
        return Plan(
            self.resized,
            (height, width),
            rgb_output=self.rgb_output,
            dtype=self.dtype,
            source_format=self.source_format,
            matrix=self.matrix,
            full_range=self.full_range,
            **(statistics if self.rgb_output else {}),
        )

    def __str__(self) -> str:
        sizes = "-".join("x".join(map(str, s)) for s in (self.source, self.resized))
        kind = ("bgr", "rgb", "nv12")[self.source_format]
        name = f"{sizes}-{kind}-{np.dtype(self.dtype)}-{self.images}"
        name += f"-pitch{self.padding}" if self.padding else ""
        name += "-709" if self.matrix == BT709 else ""
        return name + ("-full" if self.full_range else "") + ("-to_rgb" if self.rgb_output else "")


def cases() -> list[Case]:
    """Shrinking, growing, neither; every format and type; sizes that fill no tile."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    for dtype in (np.float32, np.float16):
        for source_format in (BGR, RGB, NV12):
            yield Case((54, 96), (37, 66), source_format, dtype)
            yield Case((40, 30), (70, 90), source_format, dtype, images=2, padding=7)
        yield Case((54, 96), (27, 48), dtype=dtype, rgb_output=True)
    yield Case((64, 64), (64, 64))
    yield Case((33, 65), (33, 40))
    yield Case((33, 65), (70, 65), padding=3)
    yield Case((1, 1), (5, 7))
    yield Case((90, 70), (1, 1))
    yield Case((2, 300), (3, 100))
    yield Case((480, 12), (4, 12))  # a tile of few rows: its sources fill the shared memory
    yield Case((200, 100), (190, 150))
    for matrix in (BT601, BT709):
        for full_range in (False, True):
            yield Case((48, 64), (30, 40), NV12, matrix=matrix, full_range=full_range)


def check(library: Library, case: Case) -> float:
    """0, if kernel and reference are equal bit by bit.

    Raises:
        Mismatch: they differ.
    """
    random = np.random.default_rng((*case.source, case.images))
    height, width = case.source
    nv12 = case.source_format == NV12
    shape = (case.images, height * 3 // 2, width) if nv12 else (case.images, height, width, 3)
    frames = random.integers(0, 256, shape, dtype=np.uint8)
    got = preprocess(library, frames, case.plan, case.padding)
    want = reference(frames, case.plan).astype(case.dtype)
    expect_equal("output", got, want)
    return 0.0
