"""Pictures that differ enough to be calibration pictures, and the files they come in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]


def scene(seed: int, width: int = 96, height: int = 64, level: int = 128) -> Picture:
    """Coarse coloured blocks around a grey level: another scene for every seed."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(-70, 71, (height // 8, width // 8, 3)) + level
    coarse = np.clip(blocks, 0, 255).astype(np.uint8)
    return np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1)


def noisy(picture: Picture, seed: int) -> Picture:
    """The same picture by a sensor with noise."""
    noise = np.random.default_rng(seed).normal(0, 2, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def save(path: Path, picture: Picture) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture[..., ::-1].copy()).save(path)
    return path


def folder(path: Path, pictures: Iterable[Picture]) -> Path:
    """A folder of PNG files."""
    for index, picture in enumerate(pictures):
        save(path / f"p{index}.png", picture)
    return path


def video(path: Path, pictures: Iterable[Picture]) -> Path:
    """A video whose frames are these."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path
