"""``centermask_edge.predict``: the instances of a picture in one call."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from centermask_edge.engines import EngineName, open_engine
from centermask_edge.engines.segment import Segmenter
from centermask_edge.engines.shipped import default_model
from centermask_edge.errors import ConfigError
from centermask_edge.frame import check_image
from centermask_edge.instances import Instances
from centermask_edge.live.sources.pictures import read_picture


@lru_cache(maxsize=2)
def _segmenter(
    model: Path, changed: int, engine: EngineName | None, threads: int | None, score: float
) -> Segmenter:
    return Segmenter(open_engine(model, engine, threads, min_score=score))


def predict(
    image: str | Path | npt.NDArray[Any],
    *,
    model: str | Path | None = None,
    score: float = 0.4,
    engine: str | None = None,
    threads: int | None = None,
) -> Instances:
    """The instances in one picture, best first.

    The model stays loaded for the next call with the same settings. One thread at a time.

    Args:
        image: path of a picture, or uint8 (H, W, 3) in BGR order.
        model: an exported .onnx file; the shipped person model where None.
        score: least box score.
        engine: ``openvino`` or ``onnxruntime``; the fastest one installed where None.
        threads: processor threads; as many as the engine likes where None.

    Raises:
        ConfigError: unknown engine, or an impossible score or number of threads.
        ModelFileError: the model cannot be read.
        SourceError: the picture cannot be read.
        ValueError: the array is not such a picture.
    """
    pixels = read_picture(Path(image)) if isinstance(image, str | Path) else check_image(image)
    try:
        chosen = None if engine is None else EngineName(engine)
    except ValueError:
        known = ", ".join(name.value for name in EngineName)
        raise ConfigError(f"unknown engine {engine!r}; choose one of: {known}") from None
    path = default_model(chosen) if model is None else Path(model)
    if not 0 <= score <= 1:
        raise ConfigError(f"score {score:g}: a score is between 0 and 1")
    # A file exported anew under the same name is another model.
    changed = path.stat().st_mtime_ns if os.path.exists(path) else 0
    segment = _segmenter(path, changed, chosen, threads, score)
    return segment(np.ascontiguousarray(pixels)).above(score)
