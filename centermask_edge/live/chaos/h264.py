"""H.264 byte by byte: NAL units of a stream, and a flat picture of any size without an encoder.

Sections and tables are those of ITU-T H.264.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SPS, PPS = 7, 8
_START = re.compile(b"\x00\x00\x01")
_MACROBLOCK = 16
_BASELINE = 66
_LEVEL_6 = 60  # the lowest that holds 7680 x 4320


def nal_units(stream: bytes) -> Iterator[bytes]:
    r"""The NAL units of a byte stream (annex B), without start codes.

    >>> list(nal_units(bytes([0, 0, 0, 1, 9, 16, 0, 0, 1, 101, 7])))
    [b'\t\x10', b'e\x07']
    """
    starts = [found.end() for found in _START.finditer(stream)]
    ends = [*(at - 3 for at in starts[1:]), len(stream)]
    for begin, end in zip(starts, ends, strict=False):
        # A start code may have a zero more, and a unit never ends with one.
        unit = stream[begin:end].rstrip(b"\0")
        if unit:
            yield unit


def kind(unit: bytes) -> int:
    """The type of a NAL unit (table 7-1)."""
    return unit[0] & 31


def flat_picture(width: int, height: int, number: int = 0) -> tuple[bytes, bytes, bytes]:
    """A grey picture as SPS, PPS and one key slice, valid in every decoder.

    Each macroblock is predicted from its neighbours and adds nothing: 8 bits. So 7680 x 4320 takes
    130 kB here and 50 MB in whoever decodes it.

    Args:
        width: pixels, a multiple of 16.
        height: pixels, a multiple of 16.
        number: of the key picture; two in a row must differ.
    """
    columns, rows = width // _MACROBLOCK, height // _MACROBLOCK
    if columns * _MACROBLOCK != width or rows * _MACROBLOCK != height or not columns * rows:
        raise ValueError(f"{width}x{height}: wanted multiples of {_MACROBLOCK}")
    # First macroblock, only I slices (7), parameters 0; frame_num; number; marking; quantizer.
    head = _Bits().golomb(0, 7, 0).fixed(0, 4).golomb(number).fixed(0, 2).golomb(0)
    # Intra 16x16 from the mean (mb_type 3), chroma from the mean, the same quantizer, and no
    # coefficients (table 9-5).
    macroblock = _Bits().golomb(3, 0, 0).fixed(1, 1).text
    picture = _Bits(head.text + macroblock * (columns * rows))
    units = (b"\x67", _sps(columns, rows)), (b"\x68", _pps()), (b"\x65", picture)
    sps, pps, slice_unit = (first + bits.payload() for first, bits in units)
    return sps, pps, slice_unit


def _sps(columns: int, rows: int) -> _Bits:
    """Sequence parameters (7.3.2.1.1): frames in the order of display, without references."""
    bits = _Bits().fixed(_BASELINE, 8).fixed(0b1100_0000, 8).fixed(_LEVEL_6, 8)
    bits.golomb(0, 0, 2, 0).fixed(0, 1).golomb(columns - 1, rows - 1)
    return bits.fixed(0b1100, 4)  # whole frames, direct_8x8; no cropping, no more


def _pps() -> _Bits:
    """Picture parameters (7.3.2.2): CAVLC, one slice group, nothing weighted, all offsets 0."""
    bits = _Bits().golomb(0, 0).fixed(0, 2).golomb(0, 0, 0).fixed(0, 3)
    return bits.golomb(0, 0, 0).fixed(0, 3)


class _Bits:
    """Bits in the making, as text of 0 and 1."""

    def __init__(self, text: str = "") -> None:
        self.text = text

    def fixed(self, value: int, count: int) -> _Bits:
        """So many bits, the highest first."""
        self.text += f"{value:0{count}b}"
        return self

    def golomb(self, *values: int) -> _Bits:
        """Numbers from 0 on, short ones first (9.1); a signed 0 is the same."""
        for value in values:
            bits = f"{value + 1:b}"
            self.text += "0" * (len(bits) - 1) + bits
        return self

    def payload(self) -> bytes:
        """The bytes, ended and with what looks like a start code kept apart (7.3.1, 7.3.2.11)."""
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        raw = int(text, 2).to_bytes(len(text) // 8, "big")
        return re.sub(b"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", raw)
