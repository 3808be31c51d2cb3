"""The number of a frame in its own picture, as black and white blocks that survive coding.

32 bits in two rows of 16 blocks, in the upper left corner, on a grey frame: 24 bits of the number
and 8 of a checksum, the highest first. White is a 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

_COLUMNS, _ROWS = 16, 2
_BITS = 24
# The polynomial x^8 + x^2 + x + 1 of ITU-T I.432.1, there for headers of 32 bits.
_POLYNOMIAL = 0x107
_BLACK, _GREY, _WHITE = 16, 128, 235


def block_side(height: int, width: int) -> int:
    """Pixels of one block's side in a picture of that size; even, as chroma has half the pixels.

    >>> block_side(1080, 1920), block_side(240, 320)
    (24, 6)
    """
    return max(6, min(height // 45, width // 80) // 2 * 2)


def code_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns that the code takes from the corner on, its frame of half a block included.

    >>> code_size(1080, 1920)
    (72, 408)
    """
    side = block_side(height, width)
    return (_ROWS + 1) * side, (_COLUMNS + 1) * side


def burn(image: Picture, number: int) -> None:
    """Draws the code into the picture.

    Args:
        image: uint8 (H, W, 3), changed.
        number: from 0 on; beyond 24 bits it begins again.
    """
    height, width = image.shape[:2]
    rows, columns = code_size(height, width)
    side = block_side(height, width)
    number %= 1 << _BITS
    word = number << 8 | _checksum(number)
    bits = (word >> np.arange(31, -1, -1)) & 1
    blocks = np.where(bits, _WHITE, _BLACK).astype(np.uint8).reshape(_ROWS, _COLUMNS)
    image[:rows, :columns] = _GREY
    half = side // 2
    inner = image[half : half + _ROWS * side, half : half + _COLUMNS * side]
    inner[...] = blocks.repeat(side, axis=0).repeat(side, axis=1)[..., None]


def read(image: Picture) -> int | None:
    """The number in a picture; None where there is none, or it is damaged.

    Args:
        image: uint8 (H, W, 3), of the size it was drawn in.
    """
    height, width = image.shape[:2]
    rows, columns = code_size(height, width)
    if rows > height or columns > width:
        return None
    side = block_side(height, width)
    half, edge = side // 2, max(1, side // 4)
    inner = image[half : half + _ROWS * side, half : half + _COLUMNS * side]
    blocks = inner.reshape(_ROWS, side, _COLUMNS, side, 3)[:, edge:-edge, :, edge:-edge]
    levels = blocks.mean(axis=(1, 3, 4)).ravel()
    # A picture without a code has blocks that are neither.
    if (np.abs(levels - _GREY) < (_WHITE - _GREY) / 3).any():
        return None
    word = int((levels > _GREY) @ (1 << np.arange(31, -1, -1, dtype=np.int64)))
    number, checksum = word >> 8, word & 0xFF
    return number if checksum == _checksum(number) else None


def _checksum(number: int) -> int:
    """The remainder of the polynomial, turned over so that a black picture is no zero.

    >>> f"{_checksum(0):02x} {_checksum(1):02x}"
    'ff f8'
    """
    rest = number << 8
    for bit in range(_BITS + 7, 7, -1):
        if rest >> bit & 1:
            rest ^= _POLYNOMIAL << (bit - 8)
    return rest ^ 0xFF
