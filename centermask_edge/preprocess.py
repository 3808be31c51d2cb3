"""Picture to network input: the one description that training and every engine share.

Resize (Pillow's bilinear with antialiasing, on uint8), normalise, then zero padding on the right
and the bottom. Reading ``plan`` needs numpy only; calling :class:`Preprocess` needs Pillow.
Source: the Lite recipe of CenterMask (CVPR 2020) section 3, short side 600 and long side 1000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from centermask_edge.errors import require
from centermask_edge.frame import check_image

if TYPE_CHECKING:
    from centermask_edge.config import PreprocessConfig

Size = tuple[int, int]


def resized_size(height: int, width: int, short_side: int, long_side: int) -> Size:
    """Height and width in pixels after the resize, each at least 1.

    The short side becomes ``short_side`` unless the long one would pass ``long_side``; then the
    long one becomes ``long_side``. Rounding is ``int(v + 0.5)`` of the
    double-precision product, in this order of operations: 1080 x 1920 gives 562, not 563.

    >>> resized_size(1080, 1920, 600, 1000)
    (562, 1000)
    >>> resized_size(500, 400, 600, 1000)
    (750, 600)
    """
    if height < 1 or width < 1:
        raise ValueError(f"a picture has at least one pixel; got {height} x {width}")
    scale = short_side / min(height, width)
    if height < width:
        new_height, new_width = float(short_side), scale * width
    else:
        new_height, new_width = scale * height, float(short_side)
    longest = max(new_height, new_width)
    if longest > long_side:
        new_height *= long_side / longest
        new_width *= long_side / longest
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def padded_size(height: int, width: int, multiple: int = 32) -> Size:
    """Height and width rounded up to ``multiple``.

    >>> padded_size(600, 800)
    (608, 800)
    """
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the source picture lies in the network input; all sizes are (height, width) pixels.

    Attributes:
        source_size: of the picture as it came.
        resized_size: of the picture inside the input, unpadded: the graph's ``image_size``.
        padded_size: of the input tensor.
    """

    source_size: Size
    resized_size: Size
    padded_size: Size

    @property
    def scale_x(self) -> float:
        """Resized pixels per source pixel, horizontally."""
        return self.resized_size[1] / self.source_size[1]

    @property
    def scale_y(self) -> float:
        """Resized pixels per source pixel, vertically."""
        return self.resized_size[0] / self.source_size[0]

    def to_source(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes from resized to source pixels, not clipped.

        Args:
            boxes: float32 (K, 4) xyxy in resized pixels.

        Returns:
            float32 (K, 4) xyxy in source pixels.
        """
        across = self.source_size[1] / self.resized_size[1]
        down = self.source_size[0] / self.resized_size[0]
        return boxes * np.array([across, down, across, down], np.float32)


class Preprocess:
    """Turns a BGR picture into what the network was trained on.

    Args:
        config: sizes, channel order and pixel statistics; travels with the weights.
    """

    def __init__(self, config: PreprocessConfig) -> None:
        self.config = config
        self._mean = np.array(config.mean, np.float32)
        self._std = np.array(config.std, np.float32)

    def plan(self, height: int, width: int) -> Placement:
        """Sizes for a picture of that height and width, in pixels."""
        config = self.config
        resized = resized_size(height, width, config.short_side, config.long_side)
        return Placement((height, width), resized, padded_size(*resized, config.pad_multiple))

    def __call__(self, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], Placement]:
        """Network input and where the picture lies in it.

        Args:
            image: uint8 (H, W, 3) BGR.

        Returns:
            float32 (3, Hp, Wp), normalised, zero beyond the picture; and its placement.

        Raises:
            MissingPackageError: Pillow is not installed.
            ValueError: not such a picture.
        """
        check_image(image)
        placement = self.plan(image.shape[0], image.shape[1])
        resized = resize(image, placement.resized_size)
        height, width = placement.resized_size
        output = np.zeros((3, *placement.padded_size), np.float32)
        for channel in range(3):
            plane = output[channel, :height, :width]
            source = channel if self.config.channel_order == "bgr" else 2 - channel
            np.subtract(resized[..., source], self._mean[channel], out=plane, dtype=np.float32)
            if self._std[channel] != 1:
                np.divide(plane, self._std[channel], out=plane)
        return output, placement


def resize(image: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """The picture at another size, bilinear with antialiasing, rounded to uint8.

    Args:
        image: uint8 (H, W, 3), any channel order.
        size: wanted (height, width) in pixels.

    Returns:
        uint8 (height, width, 3); the input itself where it already has that size.
    """
    if image.shape[:2] == size:
        return image
    pillow = require("PIL.Image", extra="cpu", why="resize pictures")
    picture = pillow.fromarray(np.ascontiguousarray(image))
    resized = picture.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)
