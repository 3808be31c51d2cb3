"""H.264 in RTP packets, and these in an RTSP connection (RFC 3550, 6184 and 2326, 10.12)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

PAYLOAD_TYPE = 96
CLOCK_HZ = 90000
_MOST = 1400  # bytes of payload: with all headers below an Ethernet frame's 1500
_VERSION = 0x80
_MARKER = 0x80
_FU_A = 28
_FIRST, _LAST = 0x80, 0x40


class RtpStream:
    """Makes the packets of one stream.

    Args:
        source: number of the stream, 32 bits.
        sequence: of the next packet; counts on modulo 2**16.
    """

    def __init__(self, source: int, sequence: int = 0) -> None:
        self._source = source
        self.sequence = sequence

    def packets(self, units: Sequence[bytes], timestamp: int) -> list[bytes]:
        """The packets of one frame.

        Args:
            units: its NAL units.
            timestamp: of its clock, ``CLOCK_HZ``; taken modulo 2**32.
        """
        payloads = [payload for unit in units for payload in _payloads(unit)]
        last = len(payloads) - 1
        return [self._packet(p, timestamp, n == last) for n, p in enumerate(payloads)]

    def _packet(self, payload: bytes, timestamp: int, last: bool) -> bytes:
        head = bytes((_VERSION, PAYLOAD_TYPE | (_MARKER if last else 0)))
        number, self.sequence = self.sequence, (self.sequence + 1) & 0xFFFF
        times = (timestamp & 0xFFFFFFFF).to_bytes(4, "big")
        return head + number.to_bytes(2, "big") + times + self._source.to_bytes(4, "big") + payload


def _payloads(unit: bytes) -> Iterator[bytes]:
    """A NAL unit as it is, or in fragments (RFC 6184, 5.8)."""
    if len(unit) <= _MOST:
        yield unit
        return
    indicator, kind = unit[0] & 0xE0 | _FU_A, unit[0] & 0x1F
    step = _MOST - 2
    for begin in range(1, len(unit), step):
        edge = _FIRST if begin == 1 else 0
        edge |= _LAST if begin + step >= len(unit) else 0
        yield bytes((indicator, kind | edge)) + unit[begin : begin + step]


def interleaved(packets: Sequence[bytes], channel: int) -> bytes:
    r"""The packets as they go between the answers of an RTSP connection.

    >>> interleaved([b"ab"], 0)
    b'$\x00\x00\x02ab'
    """
    return b"".join(b"$%c%b%b" % (channel, len(p).to_bytes(2, "big"), p) for p in packets)
