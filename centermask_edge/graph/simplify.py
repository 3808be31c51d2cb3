"""onnxsim, where it is installed and where its result proves equal on ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

# Two spatial sizes and a batch: a simplification that froze a shape would fail on one of them.
_PROBES = ((1, 128, 160), (2, 96, 224))
_TOLERANCE = 1e-5


def _run(model: onnx.ModelProto, image: NDArray[np.float32]) -> list[NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {"image": image}))


def equal_outputs(first: onnx.ModelProto, second: onnx.ModelProto) -> bool:
    """True if two graphs with input ``image`` give the same outputs, relative to their size."""
    rng = np.random.default_rng(0)
    for batch, height, width in _PROBES:
        image = rng.standard_normal((batch, 3, height, width)).astype(np.float32)
        try:
            pairs = list(zip(_run(first, image), _run(second, image), strict=True))
        except Exception:  # ONNX Runtime raises many types; each means: not equal
            return False
        for a, b in pairs:
            if a.shape != b.shape or np.abs(a - b).max() > _TOLERANCE * max(np.abs(a).max(), 1.0):
                return False
    return True


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """The simplified graph if onnxsim is installed and changes no output, else the graph itself."""
    try:
        import onnxsim
    except ModuleNotFoundError:
        return model
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            result, ok = onnxsim.simplify(model)
        except Exception:  # a failure of the optional tool is not the user's problem
            return model
    return result if ok and equal_outputs(model, result) else model
