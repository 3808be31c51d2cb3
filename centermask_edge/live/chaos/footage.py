"""What a camera of the fault server shows: frames encoded once, and shown over and over."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import SourceError, require
from centermask_edge.live.chaos.h264 import PPS, SPS, flat_picture, kind, nal_units
from centermask_edge.live.sources import open_source

Picture = NDArray[np.uint8]

MOST_FRAMES = 300
_USUAL_HZ = 10.0  # of pictures without time
_RATES_HZ = (1.0, 60.0)
_HUGE = (7680, 4320)
_QUALITY = "5"  # of JPEG, as FFmpeg counts: 2 is best, 31 worst


class Codec(str, Enum):
    """How pictures are sent: H.264 over RTSP, or JPEG over HTTP."""

    H264 = "h264"
    MJPEG = "mjpeg"


@dataclass(frozen=True, slots=True)
class Footage:
    """Frames to be shown in a circle.

    Attributes:
        units: of each frame its NAL units, parameters included where it is a key frame; with JPEG,
            the one picture.
        key_every: frames from one key frame to the next; divides their number.
        size: width and height in pixels.
    """

    units: tuple[tuple[bytes, ...], ...]
    key_every: int
    size: tuple[int, int]

    def frame(self, number: int) -> tuple[bytes, ...]:
        """The frame of that number, from 0 on without end."""
        return self.units[number % len(self.units)]

    @property
    def parameters(self) -> tuple[bytes, bytes]:
        """SPS and PPS."""
        found = {kind(unit): unit for unit in self.units[0]}
        return found[SPS], found[PPS]


@dataclass(frozen=True, slots=True)
class Reel:
    """All that one camera can show.

    Attributes:
        codec: of all three.
        rate_hz: frames a second.
        usual: what it is there for.
        small: the same at half the size.
        huge: pictures of 7680 x 4320; with JPEG they only claim to be.
    """

    codec: Codec
    rate_hz: float
    usual: Footage
    small: Footage
    huge: Footage


def film(
    pictures: Iterable[Picture],
    rate_hz: float,
    codec: Codec = Codec.H264,
    key_every: int | None = None,
) -> Reel:
    """A reel of the pictures, at most the first ``MOST_FRAMES`` of them.

    Args:
        pictures: uint8 (H, W, 3) BGR; all are brought to the size of the first.
        rate_hz: frames a second.
        codec: how they are encoded.
        key_every: frames from one key frame to the next; those of a second where None.

    Raises:
        MissingPackageError: PyAV is not installed.
        SourceError: there is no picture.
    """
    rate_hz = min(max(rate_hz, _RATES_HZ[0]), _RATES_HZ[1])
    step = key_every or max(1, round(rate_hz))
    stock = iter(itertools.islice(pictures, MOST_FRAMES))
    first = list(itertools.islice(stock, step))
    if not first:
        raise SourceError("there is not one picture for the fault server to show")
    height, width = first[0].shape[:2]
    # Chroma has half the pixels.
    size = max(32, width // 2 * 2), max(32, height // 2 * 2)
    half = max(32, size[0] // 4 * 2), max(32, size[1] // 4 * 2)
    usual = _encoded(itertools.chain(first, stock), size, codec, step)
    small = _encoded(first, half, codec, step)
    return Reel(codec, rate_hz, usual, small, _huge(codec, small))


def film_source(address: str, codec: Codec = Codec.H264) -> Reel:
    """A reel of a file's, a folder's or a computed camera's first frames; see ``film``.

    Raises:
        MissingPackageError: what reads it is not installed.
        SourceError: it cannot be read.
    """
    source = open_source(address)
    try:
        rate_hz = float(source.rate) if source.rate else _USUAL_HZ
        return film((frame.image for frame in source), rate_hz, codec)
    finally:
        source.close()


def _encoded(
    pictures: Iterable[Picture], size: tuple[int, int], codec: Codec, step: int
) -> Footage:
    frames = _frames(pictures, size, codec)
    if codec is Codec.MJPEG:
        return Footage(tuple(_jpegs(frames, size)), 1, size)
    units = tuple(_h264(frames, size, step))
    # So that the number of a frame alone says whether it is a key frame, also after a round.
    step = min(step, len(units))
    return Footage(units[: len(units) // step * step], step, size)


def _frames(pictures: Iterable[Picture], size: tuple[int, int], codec: Codec) -> Iterator[Any]:
    av: Any = require("av", extra="cpu", why="run the fault server")
    pixels = "yuv420p" if codec is Codec.H264 else "yuvj420p"
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
        frame = frame.reformat(*size, format=pixels)
        frame.pts, frame.time_base = number, Fraction(1, 25)
        yield frame


def _encoder(name: str, size: tuple[int, int], pixels: str, options: dict[str, str]) -> Any:
    av: Any = require("av", extra="cpu", why="run the fault server")
    encoder = av.CodecContext.create(name, "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt, encoder.time_base = pixels, Fraction(1, 25)
    encoder.options = options
    return encoder


def _h264(frames: Iterable[Any], size: tuple[int, int], step: int) -> Iterator[tuple[bytes, ...]]:
    # One key frame every so many, none between, and the parameters with each.
    keys = f"keyint={step}:min-keyint={step}:scenecut=0:repeat-headers=1"
    options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": keys}
    encoder = _encoder("libx264", size, "yuv420p", options)
    for frame in itertools.chain(frames, (None,)):
        for packet in encoder.encode(frame):
            yield tuple(nal_units(bytes(packet)))


def _jpegs(frames: Iterable[Any], size: tuple[int, int]) -> Iterator[tuple[bytes, ...]]:
    encoder = _encoder("mjpeg", size, "yuvj420p", {"qmin": _QUALITY, "qmax": _QUALITY})
    for frame in frames:
        yield (b"".join(bytes(packet) for packet in encoder.encode(frame)),)


def _huge(codec: Codec, small: Footage) -> Footage:
    if codec is Codec.H264:
        return Footage(tuple(flat_picture(*_HUGE, number=n) for n in (0, 1)), 1, _HUGE)
    picture = small.units[0][0]
    # Height and width stand five bytes behind the mark of a frame's head (ITU-T T.81, B.2.2).
    at = picture.index(b"\xff\xc0") + 5
    claim = _HUGE[1].to_bytes(2, "big") + _HUGE[0].to_bytes(2, "big")
    return Footage(((picture[:at] + claim + picture[at + 4 :],),), 1, _HUGE)
