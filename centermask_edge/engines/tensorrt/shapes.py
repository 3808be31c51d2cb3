"""``--batch`` and ``--size``: from words to the shapes of an engine's input."""

from __future__ import annotations

import re

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.tensorrt.manifest import Range, Shapes
from centermask_edge.errors import ConfigError
from centermask_edge.graph.metadata import ModelMetadata
from centermask_edge.preprocess import Preprocess, padded_size

LARGEST_BATCH, LARGEST_SIDE = 64, 4096
# The shape of most cameras' pictures; decides the long side where a short side is given.
_CAMERA = (1080, 1920)
_EXPLICIT = re.compile(r"(\d+)\s*[xX]\s*(\d+)$")


def parse_batch(text: str) -> Range:
    """Pictures of a batch from ``4`` or ``1,2,4``: smallest, usual, largest.

    Raises:
        ConfigError: no such numbers, or not in this order.

    >>> parse_batch("1,2,4")
    Range(min=1, opt=2, max=4)
    """
    words = [word.strip() for word in text.split(",")]
    if len(words) not in (1, 3) or not all(word.isdigit() for word in words):
        raise ConfigError(f"--batch {text!r}: wanted one number or min,opt,max, for example 1,2,4")
    numbers = [int(word) for word in words]
    low, usual, high = numbers if len(numbers) == 3 else numbers * 3
    if not 1 <= low <= usual <= high <= LARGEST_BATCH:
        raise ConfigError(
            f"--batch {text!r}: wanted 1 <= min <= opt <= max <= {LARGEST_BATCH} pictures"
        )
    return Range(min=low, opt=usual, max=high)


def parse_size(
    text: str | None, batch: Range, metadata: ModelMetadata
) -> tuple[Shapes, ModelMetadata]:
    """The input's shapes, and the model's record with its preprocessing made to match.

    Args:
        text: ``352x640`` (height, width), a short side such as ``352``, or three of either as
            min,opt,max. None takes the size the model was trained for.
        batch: pictures.
        metadata: of the ONNX file.

    A short side means pictures of 16:9. Sizes are rounded up to a multiple of 32.

    Raises:
        ConfigError: no such size.
    """
    config = metadata.preprocess
    words = [str(config.short_side)] if text is None else text.split(",")
    if len(words) not in (1, 3):
        raise ConfigError(
            f"--size {text!r}: wanted HEIGHTxWIDTH, a short side, or three of them as min,opt,max"
        )
    pairs = [_pair(word.strip(), config) for word in words]
    sizes = [size for size, _ in pairs] * (1 if len(pairs) == 3 else 3)
    heights, widths = ([size[axis] for size in sizes] for axis in (0, 1))
    if sorted(heights) != heights or sorted(widths) != widths:
        raise ConfigError(f"--size {text!r}: wanted min <= opt <= max in height and in width")
    shapes = Shapes(batch=batch, height=_range(heights), width=_range(widths))
    used = pairs[len(pairs) // 2][1]
    return shapes, metadata.model_copy(update={"preprocess": used})


def _range(numbers: list[int]) -> Range:
    return Range(min=numbers[0], opt=numbers[1], max=numbers[2])


def _pair(word: str, config: PreprocessConfig) -> tuple[tuple[int, int], PreprocessConfig]:
    """Padded height and width, and the preprocessing whose pictures fit."""
    explicit = _EXPLICIT.match(word)
    if explicit is None and not word.isdigit():
        raise ConfigError(f"--size {word!r}: wanted HEIGHTxWIDTH such as 352x640, or a short side")
    sides = [int(explicit[1]), int(explicit[2])] if explicit else [int(word)]
    if not all(32 <= side <= LARGEST_SIDE for side in sides):
        raise ConfigError(f"--size {word}: a side is 32 to {LARGEST_SIDE} pixels")
    if explicit:
        size = padded_size(sides[0], sides[1], config.pad_multiple)
        update = {"short_side": min(size), "long_side": max(size)}
        unchanged = size == Preprocess(config).plan(*_turned(size)).padded_size
        return size, config if unchanged else config.model_copy(update=update)
    long_side = round(config.long_side * sides[0] / config.short_side)
    scaled = config.model_copy(update={"short_side": sides[0], "long_side": long_side})
    return Preprocess(scaled).plan(*_CAMERA).padded_size, scaled


def _turned(size: tuple[int, int]) -> tuple[int, int]:
    """A camera's picture, upright where the input is."""
    return _CAMERA if size[0] <= size[1] else (_CAMERA[1], _CAMERA[0])
