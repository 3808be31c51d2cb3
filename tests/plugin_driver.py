"""A kernel library whose calls go through the TensorRT plugins, by the harness in C++.

So the cases that hold the kernels against numpy hold the plugins against it, unchanged: on the
host build in CPU memory, on the CUDA build in device memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from centermask_edge.kernels import decode_nms, roi_align, spatial_attention
from centermask_edge.kernels.build import ROOMS, Recipe, build
from centermask_edge.kernels.library import FLOAT16, FLOAT32, INT8, Library
from centermask_edge.kernels.toolchain import require_host_compiler
from centermask_edge.resources import project_file

INT32, INT64 = 3, 8
LINEAR, HWC8, CHW4, CHW32 = 0, 2, 3, 5
STEPS = (
    "done load find create clone interface types shapes formats configure workspace restore "
    "attach shape_change enqueue"
).split()
_FIELD_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int32): 5, np.dtype(np.int64): 10}

Attributes = dict[str, Any]  # numpy arrays, or what np.atleast_1d makes one


class Tensor(ctypes.Structure):
    """``harness_tensor``; without an address where nothing is executed."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("sizes", ctypes.c_int64 * 8),
        ("rank", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


class _Field(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
    )


class _Job(ctypes.Structure):
    _fields_ = (
        ("library", ctypes.c_char_p),
        ("plugin", ctypes.c_char_p),
        ("node", ctypes.c_char_p),
        ("fields", ctypes.POINTER(_Field)),
        ("inputs", ctypes.POINTER(Tensor)),
        ("outputs", ctypes.POINTER(Tensor)),
        ("field_count", ctypes.c_int32),
        ("input_count", ctypes.c_int32),
        ("output_count", ctypes.c_int32),
        ("versioned_logger", ctypes.c_int32),
        ("constant_sizes", ctypes.c_int32),
        ("stream", ctypes.c_void_p),
    )


def tensor(
    shape: Sequence[int], kind: int = FLOAT32, layout: int = LINEAR, data: int = 0, scale: float = 1
) -> Tensor:
    """A description; ``scale`` 1 is what TensorRT says of every tensor."""
    sizes = (ctypes.c_int64 * 8)(*shape)
    return Tensor(data, sizes, len(shape), kind, layout, scale)


def harness_recipe() -> Recipe:
    """How the harness is built."""
    warnings = ("-Wall", "-Wextra", "-Werror")
    flags = ("-std=c++17", "-shared", *warnings, "-O1", "-fPIC", "-fvisibility=hidden")
    return Recipe(
        "harness",
        require_host_compiler(),
        flags,
        project_file("kernels"),
        main="tests/plugin_harness.cpp",
        rooms=(*ROOMS, "plugin", "tests"),
        tail=("-ldl",),
    )


@cache
def _harness() -> ctypes.CDLL:
    return ctypes.CDLL(str(build(harness_recipe())))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The step at which a plugin stopped, ``done`` for none, and what it said."""

    step: str
    heard: str


def drive(
    library: Path,
    plugin: str,
    attributes: Attributes,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *,
    versioned_logger: bool = True,
    constant_sizes: bool = False,
    stream: int = 0,
) -> Outcome:
    """The whole life of a plugin; see kernels/tests/plugin_harness.cpp."""
    arrays = {
        name: np.ascontiguousarray(np.atleast_1d(value)) for name, value in attributes.items()
    }
    fields = [
        _Field(name.encode(), a.ctypes.data, _FIELD_TYPES.get(a.dtype, 6), a.size)
        for name, a in arrays.items()
    ]
    job = _Job(
        str(library).encode(),
        plugin.encode(),
        b"node",
        (_Field * len(fields))(*fields),
        (Tensor * len(inputs))(*inputs),
        (Tensor * len(outputs))(*outputs),
        len(fields),
        len(inputs),
        len(outputs),
        versioned_logger,
        constant_sizes,
        stream,
    )
    heard = ctypes.create_string_buffer(4096)
    step = _harness().harness_run(ctypes.byref(job), heard, ctypes.c_size_t(len(heard)))
    return Outcome(STEPS[step], heard.value.decode())


def layout_of(kind: int, pack: int, channels: int) -> int | None:
    """TensorRT's number of a kernel's layout; None where the plugins do not offer it."""
    if pack == 1:
        return LINEAR
    if kind == FLOAT16 and pack == channels and channels % 8 == 0:
        return HWC8
    return {4: CHW4, 32: CHW32}.get(pack) if kind == INT8 else None


class PluginLibrary(Library):
    """The kernels of a plugin library, launched through the plugins."""

    def call(self, name: str, params: ctypes.Structure, stream: int = 0) -> None:
        """Drives the plugin over that kernel with the arguments of a launch."""
        plugin, attributes, inputs, outputs = _TRANSLATIONS[name](params)
        outcome = drive(self.path, plugin, attributes, inputs, outputs, stream=stream)
        assert outcome == Outcome("done", ""), outcome


_Call = tuple[str, Attributes, list[Tensor], list[Tensor]]


def _attention(params: Any) -> _Call:
    p = params
    assert isinstance(p, spatial_attention.Params)
    layout = layout_of(p.type, p.pack, p.channels)
    assert layout is not None
    shape = (p.rois, p.channels, p.height, p.width)
    attributes: Attributes = {}
    if p.type == INT8:
        attributes = {"x_scale": np.float32(p.x_scale), "y_scale": np.float32(p.y_scale)}
    inputs = [tensor(shape, p.type, layout, p.x), tensor((1, 2, 3, 3), p.weight_type, 0, p.weight)]
    return "CMSpatialAttention", attributes, inputs, [tensor(shape, p.type, layout, p.y)]


def _align(params: Any) -> _Call:
    p = params
    assert isinstance(p, roi_align.Params)
    layout = layout_of(p.type, p.pack, p.channels)
    assert layout is not None
    assert p.roi_image and not p.count
    attributes: Attributes = {"output_size": np.int32(p.side)}
    if p.type == INT8:
        attributes["feature_scales"] = np.array(p.feature_scale, np.float32)
        attributes["output_scale"] = np.float32(p.output_scale)
    maps = [
        tensor((p.images, p.channels, h, w), p.type, layout, data)
        for h, w, data in zip(p.height, p.width, p.features, strict=True)
    ]
    index = INT64 if p.index_bytes == 8 else INT32
    rest = [
        tensor((p.rois_count, 4), data=p.rois),
        tensor((p.rois_count,), index, data=p.roi_image),
        tensor((p.images, 2), data=p.image_size),
    ]
    shape = (p.rois_count, p.channels, p.side, p.side)
    return "CMPyramidRoIAlign", attributes, maps + rest, [tensor(shape, p.type, layout, p.output)]


def _decode(params: Any) -> _Call:
    p = params
    assert isinstance(p, decode_nms.Params)
    assert p.levels == 5 and p.index_bytes == 8
    attributes: Attributes = {
        "score_threshold": np.float32(p.score_threshold),
        "nms_threshold": np.float32(p.nms_threshold),
        "pre_nms_topk": np.int32(p.pre_nms_topk),
        "max_detections": np.int64(p.max_detections),  # either width must do
    }
    inputs = [
        tensor((p.images, channels, h, w), p.type, data=data)
        for pointers, channels in ((p.logits, p.classes), (p.reg, 4), (p.centerness, 1))
        for h, w, data in zip(p.height, p.width, pointers, strict=True)
    ]
    n, k = p.images, p.max_detections
    outputs = [
        tensor((n, k, 4), data=p.boxes),
        tensor((n, k), data=p.scores),
        tensor((n, k), INT64, data=p.classes_out),
        tensor((n,), INT64, data=p.count),
    ]
    return "CMDecodeNMS", attributes, inputs, outputs


_TRANSLATIONS = {"spatial_attention": _attention, "roi_align": _align, "decode_nms": _decode}
