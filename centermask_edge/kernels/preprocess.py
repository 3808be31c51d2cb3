"""The preprocessing kernel: its parameter struct, and a launch on numpy arrays."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.kernels.arrays import Arena
from centermask_edge.kernels.layouts import type_of
from centermask_edge.kernels.library import Library

Bytes = NDArray[np.uint8]

BGR, RGB, NV12 = 0, 1, 2
BT601, BT709 = 0, 1


class Params(ctypes.Structure):
    """``cm_preprocess_params`` of centermask/preprocess.h."""

    _fields_ = (
        ("source", ctypes.c_void_p),
        ("chroma", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("source_stride", ctypes.c_int64),
        ("chroma_stride", ctypes.c_int64),
        ("source_pitch", ctypes.c_int64),
        ("chroma_pitch", ctypes.c_int64),
        ("images", ctypes.c_int32),
        ("source_height", ctypes.c_int32),
        ("source_width", ctypes.c_int32),
        ("resized_height", ctypes.c_int32),
        ("resized_width", ctypes.c_int32),
        ("padded_height", ctypes.c_int32),
        ("padded_width", ctypes.c_int32),
        ("source_format", ctypes.c_int32),
        ("matrix", ctypes.c_int32),
        ("full_range", ctypes.c_int32),
        ("rgb_output", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("mean", ctypes.c_float * 3),
        ("std", ctypes.c_float * 3),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is made of a frame; sizes are (height, width) in pixels.

    Attributes:
        resized: of the picture inside the output.
        padded: of the output.
        mean: of the output's channels, in grey levels.
        std: of the output's channels.
        rgb_output: channels R, G, B instead of B, G, R.
        dtype: float32 or float16.
        source_format: BGR, RGB or NV12.
        matrix: BT601 or BT709, NV12 only.
        full_range: NV12 luma of 0..255 instead of 16..235.
    """

    resized: tuple[int, int]
    padded: tuple[int, int]
    mean: tuple[float, float, float] = (103.530, 116.280, 123.675)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    rgb_output: bool = False
    dtype: type[np.floating[Any]] = np.float32
    source_format: int = BGR
    matrix: int = BT601
    full_range: bool = False


def make_params(plan: Plan, images: int, height: int, width: int) -> Params:
    """Everything but the pointers and pitches, for frames of that height and width."""
    return Params(
        images=images,
        source_height=height,
        source_width=width,
        resized_height=plan.resized[0],
        resized_width=plan.resized[1],
        padded_height=plan.padded[0],
        padded_width=plan.padded[1],
        source_format=plan.source_format,
        matrix=plan.matrix,
        full_range=plan.full_range,
        rgb_output=plan.rgb_output,
        type=type_of(plan.dtype),
        mean=(ctypes.c_float * 3)(*plan.mean),
        std=(ctypes.c_float * 3)(*plan.std),
    )


def tables(library: Library, params: Params) -> NDArray[np.int32]:
    """The resize weights for the sizes in ``params``, int32, to be uploaded once.

    Raises:
        KernelError: the sizes are refused.
    """
    size = library.bytes_of("preprocess_table_bytes", params)
    memory = np.zeros(max(size // 4, 1), np.int32)
    library.fill("preprocess_fill_tables", params, memory.ctypes.data)
    return memory


def _spaced(rows: Bytes, padding: int) -> tuple[Bytes, int, int]:
    """Rows (N, R, B) with bytes between them and between the pictures; pitch and stride."""
    apart = np.pad(rows, ((0, 0), (0, 0), (0, padding)), constant_values=0xA5)
    flat = apart.reshape(len(rows), rows.shape[1] * apart.shape[2])
    flat = np.pad(flat, ((0, 0), (0, padding)), constant_values=0xA5)
    return flat, apart.shape[2], flat.shape[1]


def preprocess(library: Library, frames: Bytes, plan: Plan, padding: int = 0) -> NDArray[Any]:
    """Network input of a batch of frames, (N, 3, Hp, Wp), zero beyond the picture.

    Args:
        library: which build.
        frames: uint8 (N, H, W, 3); NV12: (N, H * 3 / 2, W), luma above interleaved U and V.
        plan: what to make of them.
        padding: bytes between the rows and between the pictures, as a capture card leaves them;
            twice as many in NV12's chroma plane, which has a pitch and a stride of its own.

    Raises:
        KernelError: the kernel refuses the arguments.
    """
    images, rows = frames.shape[:2]
    nv12 = plan.source_format == NV12
    height, width = (rows * 2 // 3 if nv12 else rows), frames.shape[2]
    params = make_params(plan, images, height, width)
    shape = (images, 3, *plan.padded)
    with Arena(library) as arena:
        params.tables = arena.put(tables(library, params))
        plane = frames[:, :height].reshape(images, height, -1)
        memory, params.source_pitch, params.source_stride = _spaced(plane, padding)
        params.source = arena.put(memory)
        if nv12:
            pairs = frames[:, height:]
            memory, params.chroma_pitch, params.chroma_stride = _spaced(pairs, 2 * padding)
            params.chroma = arena.put(memory)
        params.output = arena.new(shape, plan.dtype)
        library.call("preprocess", params)
        return arena.get(params.output, shape, plan.dtype)
