"""What a camera of the fault server shows: frames encoded once, and shown over and over."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import SourceError, require
from centermask_edge.live.chaos.h264 import PPS, SPS, flat_picture, kind, nal_units
from centermask_edge.live.sources.opening import open_source

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
    usual: _Film | None = None
    small: _Film | None = None
    for number, picture in enumerate(itertools.islice(pictures, MOST_FRAMES)):
        if usual is None or small is None:
            height, width = picture.shape[:2]
            # Chroma has half the pixels.
            size = max(32, width // 2 * 2), max(32, height // 2 * 2)
            half = max(32, size[0] // 4 * 2), max(32, size[1] // 4 * 2)
            usual, small = _Film(codec, size, step), _Film(codec, half, step)
        usual.add(picture)
        if number < step:
            small.add(picture)
    if usual is None or small is None:
        raise SourceError("there is not one picture for the fault server to show")
    half_footage = small.done()
    return Reel(codec, rate_hz, usual.done(), half_footage, _huge(codec, half_footage))


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


class _Film:
    """Pictures encoded one by one.

    Args:
        codec: how.
        size: width and height in pixels.
        step: frames from one key frame to the next.
    """

    def __init__(self, codec: Codec, size: tuple[int, int], step: int) -> None:
        self._av: Any = require("av", extra="cpu", why="run the fault server")
        self._codec, self._size, self._step = codec, size, step
        h264 = codec is Codec.H264
        self._encoder = self._av.CodecContext.create("libx264" if h264 else "mjpeg", "w")
        self._encoder.width, self._encoder.height = size
        self._encoder.pix_fmt = "yuv420p" if h264 else "yuvj420p"
        self._encoder.time_base = Fraction(1, 25)
        self._encoder.options = (
            _h264_options(step) if h264 else {"qmin": _QUALITY, "qmax": _QUALITY}
        )
        self._units: list[tuple[bytes, ...]] = []
        self._count = 0

    def add(self, picture: Picture) -> None:
        """One picture, uint8 (H, W, 3) BGR."""
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
        frame = frame.reformat(*self._size, format=self._encoder.pix_fmt)
        frame.pts, frame.time_base = self._count, Fraction(1, 25)
        self._count += 1
        self._take(self._encoder.encode(frame))

    def done(self) -> Footage:
        """What was filmed, cut so that it can be shown in a circle."""
        self._take(self._encoder.encode(None))
        if self._codec is Codec.MJPEG:
            return Footage(tuple(self._units), 1, self._size)
        # So that the number of a frame alone says whether it is a key frame, also after a round.
        step = min(self._step, len(self._units))
        whole = len(self._units) // step * step
        return Footage(tuple(self._units[:whole]), step, self._size)

    def _take(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            data = bytes(packet)
            h264 = self._codec is Codec.H264
            self._units.append(tuple(nal_units(data)) if h264 else (data,))


def _h264_options(step: int) -> dict[str, str]:
    """One key frame every so many, none between, and the parameters with each."""
    keys = f"keyint={step}:min-keyint={step}:scenecut=0:repeat-headers=1"
    return {"preset": "ultrafast", "tune": "zerolatency", "x264-params": keys}


def _huge(codec: Codec, small: Footage) -> Footage:
    if codec is Codec.H264:
        return Footage(tuple(flat_picture(*_HUGE, number=n) for n in (0, 1)), 1, _HUGE)
    picture = small.units[0][0]
    # Height and width stand five bytes behind the mark of a frame's head (ITU-T T.81, B.2.2).
    at = picture.index(b"\xff\xc0") + 5
    claim = _HUGE[1].to_bytes(2, "big") + _HUGE[0].to_bytes(2, "big")
    return Footage(((picture[:at] + claim + picture[at + 4 :],),), 1, _HUGE)
