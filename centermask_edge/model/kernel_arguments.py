"""What the kernels' torch operators refuse. The kernels see addresses and sizes alone, so a tensor
of another shape or type than its neighbours say would be read beyond its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from centermask_edge.errors import KernelError
from centermask_edge.kernels.decode_nms import MAX_LEVELS
from centermask_edge.kernels.library import FLOAT16, FLOAT32

TYPES = {torch.float32: FLOAT32, torch.float16: FLOAT16}


def element_type(what: str, *tensors: Tensor) -> int:
    """The kernels' number of the one element type that all tensors have.

    Raises:
        KernelError: it is not float32 or float16, or there are two.
    """
    first = tensors[0].dtype
    if first not in TYPES:
        raise KernelError(f"{what} takes float32 or float16 tensors; this one is {first}")
    if any(t.dtype != first for t in tensors):
        raise KernelError(f"{what} takes maps of one type; these are {_names(tensors, 'dtype')}")
    return TYPES[first]


def check_device(what: str, *tensors: Tensor) -> None:
    """All on one CPU or GPU.

    Raises:
        KernelError: they are not.
    """
    devices = {t.device for t in tensors}
    if len(devices) > 1:
        raise KernelError(
            f"{what} takes tensors of one device; these are on {_names(tensors, 'device')}"
        )
    if tensors[0].device.type not in ("cpu", "cuda"):
        raise KernelError(f"{what} runs on cpu and cuda; these are on {tensors[0].device}")


def check_shape(what: str, name: str, tensor: Tensor, wanted: Sequence[int | str]) -> None:
    """As many dimensions as ``wanted``, and its numbers; its letters stand for any size.

    Raises:
        KernelError: the shape is another.

    >>> check_shape("decode_nms", "logits", torch.zeros(1, 2, 3, 4), (1, 2, "H", "W"))
    """
    same = tensor.dim() == len(wanted) and all(
        isinstance(want, str) or found == want
        for found, want in zip(tensor.shape, wanted, strict=True)
    )
    if not same:
        text = ", ".join(map(str, wanted)) + ("," if len(wanted) == 1 else "")
        found = tuple(tensor.shape)
        raise KernelError(f"{what} takes {name} of shape ({text}); this one has {found}")


def check_attention(x: Tensor, weight: Tensor) -> None:
    """For ``spatial_attention``.

    Raises:
        KernelError: the two do not fit.
    """
    what = "spatial_attention"
    check_device(what, x, weight)
    check_shape(what, "x", x, ("R", "C", "H", "W"))
    check_shape(what, "weight", weight, (1, 2, 3, 3))


def check_rois(
    levels: Sequence[Tensor], rois: Tensor, roi_image: Tensor, image_size: Tensor, side: int
) -> None:
    """For ``pyramid_roi_align``.

    Raises:
        KernelError: they do not fit each other.
    """
    what = "pyramid_roi_align"
    check_device(what, *levels, rois, roi_image, image_size)
    check_shape(what, "p3", levels[0], ("N", "C", "H", "W"))
    images, channels = levels[0].shape[:2]
    for name, level in zip(("p4", "p5"), levels[1:], strict=True):
        check_shape(what, name, level, (images, channels, "H", "W"))
    check_shape(what, "rois", rois, ("R", 4))
    check_shape(what, "roi_image", roi_image, (len(rois),))
    check_shape(what, "image_size", image_size, (images, 2))
    if roi_image.is_floating_point():
        raise KernelError(f"{what} takes whole numbers as roi_image; these are {roi_image.dtype}")
    if side < 1:
        raise KernelError(f"{what} takes a side of at least 1; this one is {side}")


def check_maps(
    logits: Sequence[Tensor], reg: Sequence[Tensor], centerness: Sequence[Tensor], kept: int
) -> None:
    """For ``decode_nms``.

    Raises:
        KernelError: they do not fit each other.
    """
    what, counts = "decode_nms", (len(logits), len(reg), len(centerness))
    if len(set(counts)) > 1 or not 1 <= len(logits) <= MAX_LEVELS:
        raise KernelError(
            f"{what} takes 1 to {MAX_LEVELS} levels, as many logits as reg and centerness; "
            f"these are {', '.join(map(str, counts))}"
        )
    check_device(what, *logits, *reg, *centerness)
    check_shape(what, "logits", logits[0], ("N", "C", "H", "W"))
    images, classes = logits[0].shape[:2]
    for scores, distances, centre in zip(logits, reg, centerness, strict=True):
        check_shape(what, "logits", scores, (images, classes, "H", "W"))
        check_shape(what, "reg", distances, (images, 4, *scores.shape[2:]))
        check_shape(what, "centerness", centre, (images, 1, *scores.shape[2:]))
    if kept < 1:
        raise KernelError(f"{what} takes max_detections of at least 1; this one is {kept}")


def _names(tensors: Sequence[Tensor], attribute: str) -> str:
    return ", ".join(sorted({str(getattr(t, attribute)) for t in tensors}))
