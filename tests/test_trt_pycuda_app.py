"""The example for pycuda, on a stand-in for pycuda that has what the example uses of it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_cuda
import fake_tensorrt
import numpy as np
import pytest
import tiny_model
from fake_arrays import Foreign, Kernels
from fake_cuda import Driver
from PIL import Image

from centermask_edge.engines.tensorrt import open as opening
from centermask_edge.engines.tensorrt.buffers import pinned_array
from centermask_edge.engines.tensorrt.engine import TensorRtEngine
from centermask_edge.kernels.library import Library

APP = Path(__file__).parents[1] / "apps" / "pycuda_arrays.py"


@pytest.fixture()
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """With ``pycuda``, ``pycuda.autoprimaryctx`` and ``pycuda.gpuarray`` on its memory."""
    with fake_cuda.installed(Driver()) as found:
        pycuda, context, arrays = map(
            ModuleType, ("pycuda", "pycuda.autoprimaryctx", "pycuda.gpuarray")
        )
        uploaded: list[Foreign] = []

        def to_gpu(array: np.ndarray) -> Foreign:
            uploaded.append(Foreign(found, array))  # names no stream, as pycuda's
            return uploaded[-1]

        class GPUArray:
            def __init__(
                self, shape: tuple[int, ...], dtype: Any, *, gpudata: int, base: object
            ) -> None:
                self._view = pinned_array(gpudata, shape, dtype)

            def get(self) -> np.ndarray:
                return self._view.copy()

        for name, value in (("to_gpu", to_gpu), ("GPUArray", GPUArray)):
            setattr(arrays, name, value)
        pycuda.gpuarray, pycuda.autoprimaryctx = arrays, context  # type: ignore[attr-defined]
        for module in (pycuda, context, arrays):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        yield found
        for array in uploaded:
            array.free()
        assert found.live == {}


def test_the_example_prints_what_is_in_the_picture(
    driver: Driver,
    host: Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = fake_tensorrt.save_engine(tiny_model.build(), tmp_path / "tiny.engine")
    api = fake_tensorrt.api(driver)

    def open_tensorrt(path: Path, min_score: float) -> TensorRtEngine:
        return TensorRtEngine(
            api,
            path,
            path.read_bytes(),
            tiny_model.metadata(),
            min_score=min_score,
            kernels=lambda: Kernels(host, driver),
        )

    monkeypatch.setattr(opening, "open_tensorrt", open_tensorrt)
    spec = importlib.util.spec_from_file_location("pycuda_arrays", APP)
    assert spec is not None and spec.loader is not None
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save(tmp_path / "photo.png")
    app.main([str(path), str(tmp_path / "photo.png")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("[")[0].strip() for line in lines] == ["person 0.90", "dog 0.60"]
    box = [float(v) for v in lines[0].split("[")[1].rstrip("]").split(",")]
    np.testing.assert_allclose(box, tiny_model.BOXES[0] * [200, 100, 200, 100], atol=0.1)
