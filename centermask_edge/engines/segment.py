"""From a picture to its instances through any engine: preprocess, run, back to its pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.base import Engine
from centermask_edge.instances import Instances
from centermask_edge.preprocess import Preprocess


class Segmenter:
    """An engine with the preprocessing its model was trained with.

    Args:
        engine: a loaded model.
        preprocess: other sizes than the model's own, where given.
    """

    def __init__(self, engine: Engine, preprocess: PreprocessConfig | None = None) -> None:
        self.engine = engine
        self.preprocess = Preprocess(preprocess or engine.metadata.preprocess)

    def __call__(self, image: NDArray[np.uint8]) -> Instances:
        """The instances of one picture, uint8 (H, W, 3) BGR, best box score first."""
        tensor, placement = self.preprocess(image)
        size = np.asarray([placement.resized_size], dtype=np.float32)
        raw = self.engine.run(tensor[None], size)
        return Instances.from_detections(raw, 0, placement, self.engine.metadata.classes)
