"""Pictures and models that several tests of engines share; each is made once."""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from centermask_edge.quantize import max_int8
from centermask_edge.resources import shipped_model


@cache
def people(count: int = 3) -> tuple[NDArray[np.uint8], ...]:
    """Frames of the bundled clip, evenly spaced."""
    av = pytest.importorskip("av")
    with (
        as_file(files("centermask_edge") / "_clips" / "people.mp4") as path,
        av.open(str(path)) as container,
    ):
        frames = list(container.decode(video=0))
    chosen = np.linspace(0, len(frames) - 1, count).astype(int)
    return tuple(frames[i].to_ndarray(format="bgr24") for i in chosen)


@cache
def int8_person() -> onnx.ModelProto:
    """The shipped model with Q/DQ by largest values; copy it before changing it."""
    return max_int8(onnx.load(shipped_model()), people())
