"""The CUDA kernels as torch operators, for CUDA tensors and (through the host build) CPU ones.

``centermask::pyramid_roi_align``, ``centermask::spatial_attention`` and ``centermask::decode_nms``
queue their kernels on the current stream, allocate through torch and never wait for the device,
so they can be captured in a CUDA graph. They have no gradients: inference only.
"""

from __future__ import annotations

import ctypes
import warnings
from functools import cache

import torch
from torch import Tensor

from centermask_edge.errors import KernelError
from centermask_edge.kernels import decode_nms as decode
from centermask_edge.kernels import roi_align, spatial_attention
from centermask_edge.kernels.library import Library, load_cuda, load_host
from centermask_edge.model.kernel_arguments import (
    TYPES,
    check_attention,
    check_maps,
    check_rois,
    element_type,
)

STRIDES = (8, 16, 32, 64, 128)
_chosen: list[Library] = []  # by use_library; the last one counts


def use_library(library: Library) -> None:
    """Takes this build for CUDA tensors from now on, not the one for all architectures."""
    _chosen.append(library)
    _cuda.cache_clear()


def _load_cuda() -> Library:
    return _chosen[-1] if _chosen else load_cuda()


@cache
def _cuda() -> Library | None:
    """The kernels for GPUs; None, with one warning, where they cannot be built or loaded."""
    try:
        return _load_cuda()
    except KernelError as error:
        warnings.warn(f"running without the CUDA kernels: {error}", RuntimeWarning, stacklevel=3)
        return None


# A compiler of torch's must not trace the building.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _available() -> bool:
    return _cuda() is not None


def usable(x: Tensor) -> bool:
    """Whether the model should take the operators for this tensor instead of plain torch.

    They are for GPUs, have no gradients, know float32 and float16, and a trace for export must
    see torch's own operators.
    """
    if not x.is_cuda or torch.is_grad_enabled() or x.dtype not in TYPES:
        return False
    return not torch.onnx.is_in_onnx_export() and _available()


def _library(x: Tensor) -> Library:
    return _load_cuda() if x.is_cuda else load_host()


def _call(name: str, params: ctypes.Structure, x: Tensor) -> None:
    if not x.is_cuda:
        _library(x).call(name, params)
        return
    with torch.cuda.device(x.device):
        _library(x).call(name, params, torch.cuda.current_stream(x.device).cuda_stream)


def _packed(x: Tensor) -> bool:
    """Whether a tensor lies channels last and the kernels can read it so."""
    if x.is_contiguous() or x.shape[1] % 8:
        return False
    return x.is_contiguous(memory_format=torch.channels_last)


@torch.library.custom_op(
    "centermask::spatial_attention", mutates_args=(), schema="(Tensor x, Tensor weight) -> Tensor"
)
def _spatial_attention(x: Tensor, weight: Tensor) -> Tensor:
    check_attention(x, weight)
    packed = _packed(x)
    x = x if packed else x.contiguous()
    weight = weight.contiguous()
    y = torch.empty_like(x)
    rois, channels, height, width = x.shape
    params = spatial_attention.Params(
        x=x.data_ptr(),
        weight=weight.data_ptr(),
        y=y.data_ptr(),
        rois=rois,
        channels=channels,
        height=height,
        width=width,
        type=element_type("spatial_attention", x),
        pack=channels if packed else 1,
        weight_type=element_type("spatial_attention", weight),
    )
    _call("spatial_attention", params, x)
    return y


@_spatial_attention.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(x if _packed(x) else x.contiguous())


@torch.library.custom_op(
    "centermask::pyramid_roi_align",
    mutates_args=(),
    schema="(Tensor p3, Tensor p4, Tensor p5, Tensor rois, Tensor roi_image, Tensor image_size, "
    "int side) -> Tensor",
)
def _pyramid_roi_align(
    p3: Tensor,
    p4: Tensor,
    p5: Tensor,
    rois: Tensor,
    roi_image: Tensor,
    image_size: Tensor,
    side: int,
) -> Tensor:
    check_rois((p3, p4, p5), rois, roi_image, image_size, side)
    kind = element_type("pyramid_roi_align", p3, p4, p5)
    packed = all(_packed(p) for p in (p3, p4, p5))
    levels = [p if packed else p.contiguous() for p in (p3, p4, p5)]
    boxes, owner = rois.float().contiguous(), roi_image.long().contiguous()
    sizes = image_size.float().contiguous()
    images, channels = p3.shape[:2]
    layout = torch.channels_last if packed else torch.contiguous_format
    out = torch.empty(
        (len(rois), channels, side, side), dtype=p3.dtype, device=p3.device, memory_format=layout
    )
    params = roi_align.Params(
        rois=boxes.data_ptr(),
        roi_image=owner.data_ptr(),
        image_size=sizes.data_ptr(),
        output=out.data_ptr(),
        images=images,
        channels=channels,
        rois_count=len(rois),
        side=side,
        type=kind,
        pack=channels if packed else 1,
        index_bytes=8,
    )
    for level, feature in enumerate(levels):
        params.features[level] = feature.data_ptr()
        params.height[level], params.width[level] = feature.shape[2:]
    _call("roi_align", params, p3)
    return out


@_pyramid_roi_align.register_fake
def _(
    p3: Tensor,
    p4: Tensor,
    p5: Tensor,
    rois: Tensor,
    roi_image: Tensor,
    image_size: Tensor,
    side: int,
) -> Tensor:
    packed = all(_packed(p) for p in (p3, p4, p5))
    layout = torch.channels_last if packed else torch.contiguous_format
    out = p3.new_empty((rois.shape[0], p3.shape[1], side, side))
    return out.contiguous(memory_format=layout)


@torch.library.custom_op(
    "centermask::decode_nms",
    mutates_args=(),
    schema="(Tensor[] logits, Tensor[] reg, Tensor[] centerness, float score_threshold, "
    "float nms_threshold, int pre_nms_topk, int max_detections) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)
def _decode_nms(
    logits: list[Tensor],
    reg: list[Tensor],
    centerness: list[Tensor],
    score_threshold: float,
    nms_threshold: float,
    pre_nms_topk: int,
    max_detections: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_maps(logits, reg, centerness, max_detections)
    first = logits[0]
    params = decode.Params(type=element_type("decode_nms", first), index_bytes=8)
    decode.sizes(params, [tuple(m.shape) for m in logits], STRIDES[: len(logits)])
    decode.thresholds(
        params, decode.Options(score_threshold, nms_threshold, pre_nms_topk, max_detections)
    )
    held = []  # contiguous copies live until the kernels are queued
    for name, maps in (("logits", logits), ("reg", reg), ("centerness", centerness)):
        held.append([m.to(first.dtype).contiguous() for m in maps])
        getattr(params, name)[: len(maps)] = [m.data_ptr() for m in held[-1]]
    out = _decode_outputs(first, max_detections)
    for name, tensor in zip(("boxes", "scores", "classes_out", "count"), out, strict=True):
        setattr(params, name, tensor.data_ptr())
    needed = _library(first).bytes_of("decode_nms_workspace", params)
    workspace = torch.empty(max(needed, 16), dtype=torch.uint8, device=first.device)
    params.workspace, params.workspace_bytes = workspace.data_ptr(), needed
    _call("decode_nms", params, first)
    return out


def _decode_outputs(like: Tensor, kept: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images = like.shape[0]
    return (
        like.new_empty((images, kept, 4), dtype=torch.float32),
        like.new_empty((images, kept), dtype=torch.float32),
        like.new_empty((images, kept), dtype=torch.int64),
        like.new_empty((images,), dtype=torch.int64),
    )


@_decode_nms.register_fake
def _(
    logits: list[Tensor],
    reg: list[Tensor],
    centerness: list[Tensor],
    score_threshold: float,
    nms_threshold: float,
    pre_nms_topk: int,
    max_detections: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _decode_outputs(logits[0], max_detections)
