"""Cases of the decoding kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.cases.compare import expect_equal
from centermask_edge.kernels.decode_nms import Options, decode_nms
from centermask_edge.kernels.layouts import DTYPES
from centermask_edge.kernels.library import FLOAT16, FLOAT32, Library
from centermask_edge.kernels.reference.decode_nms import decode_nms as reference

Array = NDArray[Any]
STRIDES = (8, 16, 32, 64, 128)

SMALL = ((12, 16), (6, 8), (3, 4), (2, 2), (1, 1))
ODD = ((13, 17), (7, 9), (4, 5), (2, 3), (1, 2))
LARGE = ((38, 50), (19, 25), (10, 13), (5, 7), (3, 4))
DEFAULTS = Options()


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison.

    Attributes:
        name: what is hard about it; some names change the inputs, see :func:`make_inputs`.
        shapes: height and width of each level.
        mean: of the class logits.
    """

    name: str
    shapes: tuple[tuple[int, int], ...] = SMALL
    images: int = 1
    classes: int = 3
    kind: int = FLOAT32
    mean: float = -2.0
    options: Options = DEFAULTS
    index: type[np.signedinteger[Any]] = np.int64

    def __str__(self) -> str:
        return f"{self.name}-{self.images}x{self.classes}-{np.dtype(DTYPES[self.kind])}"


def cases() -> list[Case]:
    """Shapes, types, and everything that makes an order ambiguous."""
    return list(_cases())


def _cases() -> Iterator[Case]:
    few = Options(pre_nms_topk=20, max_detections=10)
    for kind in (FLOAT32, FLOAT16):
        yield Case("plain", kind=kind)
        yield Case("odd", ODD, 3, 5, kind)
        yield Case("persons", LARGE, 2, 1, kind)
        yield Case("coco", SMALL, 2, 80, kind, -3.0)
        yield Case("ties", kind=kind, options=few, mean=0.0)
        yield Case("all equal", kind=kind, options=few)
    yield Case("int32", images=2, index=np.int32)
    yield Case("nothing", mean=-20.0, images=2)
    yield Case("one level", SMALL[:1])
    yield Case("three levels", ODD[:3], images=2)
    yield Case("everything", LARGE, classes=4, mean=3.0)
    yield Case("above topk", LARGE, classes=8, mean=1.0, options=replace(few, pre_nms_topk=1000))
    yield Case("above topk", LARGE, images=2, classes=3, mean=1.0, options=few)
    yield Case("topk of one", mean=1.0, options=Options(pre_nms_topk=1))
    yield Case("topk limit", LARGE, classes=2, mean=2.0, options=Options(pre_nms_topk=2048))
    yield Case("one detection", mean=1.0, options=Options(max_detections=1))
    yield Case("all detections", mean=1.0, options=Options(max_detections=1000))
    yield Case("more than a chunk", LARGE, classes=2, mean=2.0, options=Options(nms_threshold=0.05))
    yield Case("no suppression", mean=1.0, options=Options(nms_threshold=1.0, max_detections=300))
    yield Case("any overlap", mean=1.0, options=Options(nms_threshold=0.0))
    yield Case("threshold zero", options=Options(score_threshold=0.0))
    yield Case("at the threshold", mean=0.0, options=Options(0.5, 1.0, 1000, 1000))
    yield Case("high threshold", mean=1.0, options=Options(score_threshold=0.9))
    yield Case("same boxes", mean=1.0)
    yield Case("touching", mean=1.0, options=Options(nms_threshold=0.5))
    yield Case("not finite", ODD, images=2, mean=0.0)
    yield Case("far apart", mean=0.0)


def make_inputs(case: Case) -> tuple[list[Array], list[Array], list[Array]]:
    """logits, reg and centerness of every level, of the case's type."""
    random = np.random.default_rng((case.images, case.classes, len(case.name), case.kind))
    logits, reg, centerness = [], [], []
    for height, width in case.shapes:
        shape = (case.images, case.classes, height, width)
        logits.append(random.normal(case.mean, 2, shape))
        reg.append(np.exp(random.normal(1, 0.7, (case.images, 4, height, width))))
        centerness.append(random.normal(0, 2, (case.images, 1, height, width)))
    for level in range(len(case.shapes)):
        _bend(case.name, logits[level], reg[level], centerness[level], level)
    kind = DTYPES[case.kind]
    return tuple([a.astype(kind) for a in maps] for maps in (logits, reg, centerness))  # type: ignore[return-value]


def _bend(name: str, logits: Array, reg: Array, centerness: Array, level: int) -> None:
    """What the name of a case promises, in place."""
    if name == "at the threshold":
        logits[:] = np.round(logits)  # many are 0, whose probability is one half exactly
    elif name == "ties":
        logits[:], centerness[:] = np.round(logits / 2), np.round(centerness / 2)
    elif name == "all equal":
        logits[:], centerness[:] = 1.0, 0.5
    elif name == "same boxes":  # every cell of a level gives one and the same box
        rows, columns = np.indices(reg.shape[2:]) + 0.5
        reg[:, 0], reg[:, 1] = columns, rows
        reg[:, 2], reg[:, 3] = reg.shape[3] - columns, reg.shape[2] - rows
    elif name == "touching":  # IoU of exactly one half with the next cell but one
        reg[:] = 3.0
    elif name == "far apart":
        reg[:] = 1e-3
    elif name == "not finite":
        logits[0, 0, 0, 0], logits[0, 1, 0, 1], centerness[0, 0, 0, 0] = np.nan, np.inf, np.inf
        logits[1, :, -1, -1], centerness[1, 0, 0, -1] = -np.inf, np.nan
        reg[0, 2, 0, 1], reg[1, 0, 0, 0], reg[1, 3, -1, 0] = np.nan, np.inf, -np.inf
        centerness[1, 0, 0, 0] = -200.0 - level  # the product underflows to zero


def check(library: Library, case: Case) -> float:
    """0, if kernel and reference are equal bit by bit.

    Raises:
        Mismatch: they differ.
    """
    inputs = make_inputs(case)
    strides = STRIDES[: len(case.shapes)]
    got = decode_nms(library, *inputs, strides, case.options, case.index)
    want = reference(*inputs, strides, case.options, case.index)
    for field in ("count", "indices", "classes", "scores", "boxes"):
        expect_equal(field, getattr(got, field), getattr(want, field))
    assert {f.name for f in fields(got)} == {"count", "indices", "classes", "scores", "boxes"}
    return 0.0
