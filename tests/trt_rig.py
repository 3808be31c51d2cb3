"""A fake GPU with engines of the tiny model on it, and what the tests give them."""

from __future__ import annotations

from pathlib import Path

import fake_tensorrt
import numpy as np
import tiny_model
from fake_arrays import Kernels
from fake_cuda import Driver

from centermask_edge.engines.base import Detections
from centermask_edge.engines.tensorrt.engine import TensorRtEngine
from centermask_edge.kernels.library import Library


class Rig:
    """Opens engines on the fake GPU and sees to it that nothing stays behind."""

    def __init__(self, driver: Driver, host: Library, folder: Path) -> None:
        self.driver, self.host, self.folder = driver, host, folder
        self.api = fake_tensorrt.api(driver)
        self.opened: list[TensorRtEngine] = []

    def open(
        self,
        profile: list[list[int]] | None = None,
        min_score: float = 0.0,
        graphs: bool = True,
    ) -> TensorRtEngine:
        path = fake_tensorrt.save_engine(tiny_model.build(), self.folder / "tiny.engine", profile)
        engine = TensorRtEngine(
            self.api,
            path,
            path.read_bytes(),
            tiny_model.metadata(),
            min_score=min_score,
            graphs=graphs,
            kernels=lambda: Kernels(self.host, self.driver),
        )
        self.opened.append(engine)
        return engine

    def close(self) -> None:
        """Closes what was opened and looks for what stayed behind."""
        for engine in self.opened:
            engine.close()
        assert self.driver.live == {}, "after close"


def batch(n: int = 1, height: int = 64, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(height * width + n)
    images = rng.standard_normal((n, 3, height, width), dtype=np.float32)
    return images, np.tile(np.array([[height - 4, width - 2]], np.float32), (n, 1))


def frame(height: int = 70, width: int = 90, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def agree(found: Detections, wanted: Detections, atol: float = 1e-5) -> None:
    for name in Detections.__slots__:
        got, want = getattr(found, name), getattr(wanted, name)
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, atol=atol, err_msg=name)
