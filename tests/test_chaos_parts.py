"""The fault server's parts: H.264 without an encoder, RTP, passwords, requests, footage."""

from __future__ import annotations

import asyncio
from typing import Any

import av
import numpy as np
import pytest
from chaos_rig import FRAMES, KEY_EVERY, SCENE, reel
from hypothesis import given
from hypothesis import strategies as st

from centermask_edge.errors import SourceError
from centermask_edge.live.chaos.access import Access, Scheme
from centermask_edge.live.chaos.footage import Codec, film, film_source
from centermask_edge.live.chaos.h264 import flat_picture, nal_units
from centermask_edge.live.chaos.requests import BadRequestError, parse_request, read_request
from centermask_edge.live.chaos.rtp import RtpStream
from centermask_edge.live.synthetic import time_code

PLAY = b"PLAY rtsp://h/live/ RTSP/1.0\r\nCSeq: 4\r\n\r\n"
START = b"\x00\x00\x00\x01"


def decoded(frames: list[bytes], codec: str = "h264") -> list[Any]:
    decoder: Any = av.CodecContext.create(codec, "r")
    decoder.options = {"err_detect": "explode"}
    found = [picture for data in frames for picture in decoder.decode(av.Packet(data))]
    return found + list(decoder.decode(None))


@pytest.mark.parametrize("size", [(16, 16), (640, 368), (1024, 32)])
def test_a_picture_without_an_encoder_is_grey(size: tuple[int, int]) -> None:
    width, height = size
    frames = [b"".join(START + u for u in flat_picture(*size, number=n % 2)) for n in range(3)]
    pictures = decoded(frames)
    assert [(p.width, p.height, p.key_frame) for p in pictures] == [(width, height, True)] * 3
    grey = pictures[0].to_ndarray(format="gray")
    assert np.ptp(grey) == 0 and abs(int(grey[0, 0]) - 128) < 8


def test_a_picture_is_made_of_whole_macroblocks() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        flat_picture(100, 64)


@given(st.lists(st.binary(min_size=1, max_size=9).map(lambda b: b"\x65" + b.replace(b"\0", b"1"))))
def test_units_are_found_between_start_codes(units: list[bytes]) -> None:
    starts = [START if n % 2 else START[1:] for n in range(len(units))]
    stream = b"".join(start + unit for start, unit in zip(starts, units, strict=True))
    assert list(nal_units(stream)) == units


@given(
    st.lists(st.binary(min_size=1, max_size=5000), min_size=1, max_size=4),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**33),
)
def test_packets_are_short_and_hold_every_unit(
    units: list[bytes], sequence: int, stamp: int
) -> None:
    stream = RtpStream(7, sequence)
    packets = stream.packets(units, stamp)
    numbers = [int.from_bytes(p[2:4], "big") for p in packets]
    assert numbers == [(sequence + n) % 2**16 for n in range(len(packets))]
    assert stream.sequence == (sequence + len(packets)) % 2**16
    assert [p[1] >> 7 for p in packets] == [0] * (len(packets) - 1) + [1]
    assert {p[4:12] for p in packets} == {(stamp % 2**32).to_bytes(4, "big") + b"\0\0\0\7"}
    assert max(map(len, packets)) <= 1412
    found: list[bytes] = []
    fragments = 0
    for payload in (p[12:] for p in packets):
        # A unit that is whole keeps its first byte, which may look like that of a fragment.
        if fragments == 0 and len(units[len(found)]) <= 1400:
            found.append(payload)
            continue
        assert bool(payload[1] & 0x80) is (fragments == 0)
        whole = bytes((payload[0] & 0xE0 | payload[1] & 0x1F,)) if fragments == 0 else found.pop()
        found.append(whole + payload[2:])
        fragments = 0 if payload[1] & 0x40 else fragments + 1
        if fragments:
            continue
    assert found == units


@pytest.mark.parametrize("scheme", list(Scheme))
def test_only_the_right_password_is_granted(scheme: Scheme) -> None:
    # RFC 7617's own example for Basic; Digest is spoken by the clients of the other tests.
    access = Access("Aladdin", "open sesame", scheme)
    proof = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    asked = b"DESCRIBE rtsp://h/live RTSP/1.0\r\nAuthorization: %b\r\n\r\n"
    assert access.granted(parse_request(asked % proof.encode())) is (scheme is Scheme.BASIC)
    for wrong in (b"", b"Basic", b"Basic !", b"Digest", b'Digest response="", uri="', b"\xff \xff"):
        assert not access.granted(parse_request(asked % wrong))
    assert access.challenge()[0][1].startswith(scheme.value)
    assert Access("a", "b").challenge() != Access("a", "b").challenge()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_an_error(data: bytes) -> None:
    async def read() -> None:
        reader = asyncio.StreamReader(limit=64)
        reader.feed_data(data)
        reader.feed_eof()
        for _ in data:
            if await read_request(reader) is None:
                return

    try:
        asyncio.run(read())
    except BadRequestError as error:
        assert str(error)


def test_a_request_after_reports_of_the_player() -> None:
    async def read() -> tuple[str, str]:
        reader = asyncio.StreamReader()
        reader.feed_data(b"$\x01\x00\x03abc" * 2 + PLAY)
        request = await read_request(reader)
        assert request is not None
        return request.method, request.path

    assert asyncio.run(read()) == ("PLAY", "live")


@pytest.mark.parametrize("codec", list(Codec))
def test_a_reel_shows_the_pictures_in_two_sizes(codec: Codec) -> None:
    made = reel(codec)
    join = (lambda units: b"".join(START + u for u in units)) if codec is Codec.H264 else b"".join
    usual = decoded([join(units) for units in made.usual.units], codec.value)
    numbers = [time_code.read(picture.to_ndarray(format="bgr24")) for picture in usual]
    assert numbers == list(range(FRAMES))
    small = decoded([join(units) for units in made.small.units], codec.value)
    assert {(p.width, p.height) for p in small} == {(SCENE.width // 2, SCENE.height // 2)}
    assert made.usual.frame(FRAMES + 3) == made.usual.frame(3)
    if codec is Codec.H264:
        keys = [n for n, units in enumerate(made.usual.units) if any(u[0] & 31 == 5 for u in units)]
        assert keys == list(range(0, FRAMES, KEY_EVERY)) and made.usual.key_every == KEY_EVERY


def test_odd_pictures_of_different_sizes_are_brought_to_one() -> None:
    pictures = [np.zeros((51 + n, 77, 3), np.uint8) for n in range(7)]
    made = film(pictures, 1000.0, key_every=3)
    assert made.usual.size == (76, 50) and len(made.usual.units) == 6 and made.rate_hz == 60
    assert len(film(pictures[:1], 0.0).usual.units) == 1
    with pytest.raises(SourceError, match="not one picture"):
        film([], 25.0)


def test_a_camera_without_an_end_is_filmed_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("centermask_edge.live.chaos.footage.MOST_FRAMES", 4)
    made = film_source("synthetic:shapes?width=160&height=120&fps=50")
    assert len(made.usual.units) == 4 and made.rate_hz == 50
