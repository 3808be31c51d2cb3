"""Cases of the pyramid RoIAlign kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.cases.compare import expect_close, expect_codes
from centermask_edge.kernels.layouts import DTYPES, quantize
from centermask_edge.kernels.library import FLOAT16, FLOAT32, INT8, Library
from centermask_edge.kernels.reference.roi_align import pyramid_roi_align as reference
from centermask_edge.kernels.roi_align import pyramid_roi_align

Floats = NDArray[np.float32]

# Boxes by what is hard about them; each makes float32 (R, 4) for a picture of (height, width).
KINDS = ("ordinary", "outside", "empty", "huge", "border", "boundary", "thin", "not finite")


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison."""

    kind: int = FLOAT32
    pack: int = 1
    boxes: str = "ordinary"
    channels: int = 8
    images: int = 1
    side: int = 14
    rois: int = 6
    size: tuple[int, int] = (192, 256)
    index: type[np.signedinteger] | None = None  # dtype of roi_image; None: by rois_per_image
    count: bool = False
    bad: bool = False  # NaN in the features

    def __str__(self) -> str:
        parts = [
            str(np.dtype(DTYPES[self.kind])),
            f"pack{self.pack}",
            self.boxes.replace(" ", "_"),
            f"{self.images}x{self.channels}",
            f"side{self.side}",
            f"{self.rois}rois",
            "x".join(map(str, self.size)),
            "" if self.index is None else np.dtype(self.index).name,
            "count" if self.count else "",
            "bad" if self.bad else "",
        ]
        return "-".join(p for p in parts if p)


def cases() -> list[Case]:
    """Every type, layout and kind of box."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    for boxes in KINDS:
        yield Case(boxes=boxes)
        yield Case(FLOAT16, 8, boxes)
    layouts = {FLOAT32: (4, 32), FLOAT16: (1, 4, 32), INT8: (1, 4, 16, 32)}
    for kind, packs in layouts.items():
        for pack in packs:
            yield Case(kind, pack, channels=32, images=2, index=np.int64)
    yield Case(INT8, 1, "outside", channels=3)
    for channels in (1, 3, 9, 17):
        yield Case(channels=channels)
    yield Case(images=3, rois=9, count=True)
    yield Case(FLOAT16, 8, images=3, rois=9, count=True, index=np.int32)
    yield Case(images=3, rois=9, index=np.int32)
    yield Case(rois=0)
    for side in (1, 7, 28, 32):
        yield Case(side=side)
        yield Case(FLOAT16, 8, side=side)
    yield Case(size=(33, 1000))
    yield Case(size=(8, 8), boxes="outside")
    yield Case(bad=True)
    yield Case(FLOAT16, 8, bad=True)


def make_boxes(case: Case, random: np.random.Generator) -> Floats:
    """float32 (R, 4) boxes of the case's kind, in a picture of the case's size."""
    height, width = case.size
    span = np.array([width, height, width, height])
    index = np.arange(case.rois)
    share = np.array([0.02, 0.3, 0.75, 0.1, 0.45, 0.9])[index % 6, None]  # of the area: all levels
    aspect = np.exp(random.uniform(-0.1, 0.1, (case.rois, 1)) / share)
    half = 0.5 * np.sqrt(share) * np.concatenate((aspect, 1 / aspect), axis=1)
    centre = 0.5 + random.uniform(-0.5, 0.5, (case.rois, 2)) * (1 - np.minimum(2 * half, 1))
    boxes = np.concatenate((centre - half, centre + half), axis=1) * span
    if case.boxes == "ordinary":
        boxes = np.clip(boxes, 0, span)
    elif case.boxes == "outside":
        boxes += np.where(index % 2, 2, -1)[:, None] * random.uniform(0, 1, 1) * span
    elif case.boxes == "empty":
        boxes[:, 2:] = boxes[:, :2] - (index % 3)[:, None] * [1.0, 0.0]
    elif case.boxes == "huge":
        boxes *= 10.0 ** (index % 6 + 1)[:, None]
        boxes[::2, :2] -= boxes[::2, 2:]
    elif case.boxes == "border":
        # Edges on whole cells and one sample a bin: positions fall on -1, 0 and the extent.
        boxes = np.round(boxes / 8) * 8 + np.array([-4.0, -4.0, 4.0, 4.0])
        boxes[0] = [-60.0, -60.0, 52.0, 52.0]
    elif case.boxes == "boundary":
        # Areas of exactly a half and a quarter of the picture, and the next float above.
        boxes[:] = [0, 0, width, height / 2]
        boxes[1::3] = [0, 0, width / 2, height / 2]
        boxes[::2, 2] = np.nextafter(boxes[::2, 2].astype(np.float32), np.float32(np.inf))
    elif case.boxes == "thin":
        boxes[:, 1], boxes[:, 3] = boxes[:, 1].copy(), boxes[:, 1] + 3
        boxes[:, 0], boxes[:, 2] = -width * (index % 4 == 0), width * (1 + 3 * (index % 2))
    elif case.boxes == "not finite":
        boxes[0, 0], boxes[1, 3], boxes[2, 2] = np.nan, np.inf, -np.inf
        boxes[3] = [-np.inf, -np.inf, np.inf, np.inf]
        boxes[4] = np.float32(3e38) * np.array([-1, -1, 1, 1])
    found: Floats = boxes.astype(np.float32)
    return found


def make_features(case: Case, random: np.random.Generator) -> list[Floats]:
    """P3, P4 and P5 for pictures of the case's size, float32 (N, C, H, W)."""
    height, width = (-(-side // 32) * 32 for side in case.size)
    shapes = [(case.images, case.channels, height >> n, width >> n) for n in (3, 4, 5)]
    return [random.normal(0, 1, shape).astype(np.float32) for shape in shapes]


def check(library: Library, case: Case) -> float:
    """The largest error of the kernel on the case's inputs; see ``compare``.

    Raises:
        Mismatch: they differ.
    """
    random = np.random.default_rng((KINDS.index(case.boxes), case.channels, case.side, case.rois))
    rois, features = make_boxes(case, random), make_features(case, random)
    if case.bad:
        features[0][:, 1, 3, 4] = np.nan
        features[1][:, :, 2, 5] = np.nan
    sizes = np.tile(np.array(case.size, np.float32), (case.images, 1))
    sizes -= np.arange(case.images, dtype=np.float32)[:, None] * 9
    each = max(1, case.rois // case.images)
    owner = np.arange(case.rois) // each
    if case.index is not None and not case.count:
        owner = random.integers(-1, case.images + 1, case.rois)  # some of no picture
    count = np.arange(case.images) + 1 if case.count else None
    live = None if count is None else np.arange(case.rois) % each < count[owner]
    integer = case.index or np.int64
    scales, output_scale = _scales(case)
    stored = [
        quantize(f, s) if case.kind == INT8 else f.astype(DTYPES[case.kind])
        for f, s in zip(features, scales, strict=True)
    ]
    got = pyramid_roi_align(
        library,
        stored,
        rois,
        sizes,
        side=case.side,
        roi_image=None if case.index is None else owner.astype(integer),
        count=None if count is None else count.astype(integer),
        rois_per_image=each,
        pack=case.pack,
        feature_scales=scales,
        output_scale=output_scale,
    )
    seen = [
        f.astype(np.float64) * np.float64(np.float32(s))
        for f, s in zip(stored, scales, strict=True)
    ]
    want = reference(seen, rois, owner, sizes, case.side, live)
    if case.kind == INT8:
        return expect_codes("output", got, want, output_scale)
    return expect_close("output", got, want, case.kind)


def _scales(case: Case) -> tuple[tuple[float, float, float], float]:
    return ((0.03, 0.04, 0.05), 0.02) if case.kind == INT8 else ((1.0, 1.0, 1.0), 1.0)
