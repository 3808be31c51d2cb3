"""One picture on its way from a source to the sinks, with the facts that stay with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded picture.

    Attributes:
        image: uint8 (H, W, 3) BGR, upright (EXIF and container rotation already applied).
        pts_s: presentation time in seconds of the source; 0.0 for a picture.
        arrival_s: ``time.monotonic()`` when the decoded picture was there.
        camera: what the picture came from: file name, or address without credentials.
        index: position in the source, from 0.
    """

    image: npt.NDArray[np.uint8]
    pts_s: float
    arrival_s: float
    camera: str
    index: int

    @property
    def height(self) -> int:
        """Rows of the picture."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Columns of the picture."""
        return int(self.image.shape[1])


def check_image(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The array itself if it is a picture as :class:`Frame` wants it.

    Raises:
        ValueError: not uint8 (H, W, 3) with at least one pixel.

    >>> check_image(np.zeros((2, 3, 3), np.uint8)).shape
    (2, 3, 3)
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"a picture is uint8 (height, width, 3) in BGR order; "
            f"got {image.dtype} {tuple(image.shape)}"
        )
    return image
