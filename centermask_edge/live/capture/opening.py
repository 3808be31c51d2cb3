"""From what the user wrote to a camera: a file, a webcam, a stream or a GStreamer pipeline."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

from centermask_edge.errors import require
from centermask_edge.live.capture.allocations import limit_allocations
from centermask_edge.live.capture.camera import LiveCamera
from centermask_edge.live.capture.faults import Secrets
from centermask_edge.live.capture.ffmpeg import host_of
from centermask_edge.live.capture.gst import GST, GstSource, check_pipeline, pipeline_name
from centermask_edge.live.capture.options import CaptureOptions, Decode
from centermask_edge.live.capture.pipelines import jetson_rtsp, why_no_hardware
from centermask_edge.live.capture.reader import Opener
from centermask_edge.live.source import Kind, Source, redact
from centermask_edge.live.sources.opening import open_source
from centermask_edge.live.sources.video import SCHEMES, Patience, VideoSource
from centermask_edge.live.synthetic.source import SYNTHETIC, parse_synthetic

_PROBE_S = 1.0
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")


def open_camera(
    text: str,
    options: CaptureOptions | None = None,
    *,
    name: str = "",
    rng: random.Random | None = None,
) -> LiveCamera:
    """The camera of that address, not started yet.

    Understood are those of ``open_source``, ``gst:`` before a GStreamer pipeline, and ``gst:``
    before an address, which asks for hardware decoding as ``Decode.HARDWARE`` does.

    What waiting cannot mend is told here. A camera that is off, or refuses, is not: it is waited
    for.

    Args:
        text: the address.
        options: how patient, how often, how large.
        name: for messages and results; otherwise the address without credentials.
        rng: draws the waits before new attempts.

    Raises:
        MissingPackageError: what reads it is not installed.
        SourceError: it is no address, or a file that does not exist.
    """
    options = options or CaptureOptions()
    opener, shown, live = _opener(text, options)
    secrets = Secrets.of(text)
    return LiveCamera(
        name or secrets.scrub(shown), opener, options, live=live, secrets=secrets, rng=rng
    )


def _opener(text: str, options: CaptureOptions) -> tuple[Opener, str, bool]:
    """How it is opened, its name, and whether it is live."""
    if text.startswith(GST):
        rest = text[len(GST) :].strip()
        if _ADDRESS.match(rest) and "!" not in rest:
            return _address(rest, options, Decode.HARDWARE)
        check_pipeline(rest)
        shown = pipeline_name(rest)
        return _pipeline(rest, shown, options), shown, True
    if _ADDRESS.match(text):
        return _address(text, options, options.decode)
    if text.isascii() and text.isdigit():
        require("cv2", extra="cpu", why="read a webcam")
        return lambda within_s: open_source(text), f"webcam {int(text)}", True
    if text.startswith(SYNTHETIC):
        address = parse_synthetic(text)
        return lambda within_s: open_source(text), text.partition("?")[0], not address.frames
    if not text or not os.path.exists(text):
        open_source(text)  # which raises, with the words that ``run`` uses, too
    return lambda within_s: open_source(text), Path(text).name or text, False


def _address(text: str, options: CaptureOptions, decode: Decode) -> tuple[Opener, str, bool]:
    shown = redact(text)
    match = _ADDRESS.match(text)
    if match is None or match[1].lower() not in SCHEMES:
        open_source(text)
    host_of(text, shown)
    note = ""
    if decode is Decode.HARDWARE:
        note = why_no_hardware(text)
        if not note:
            return _pipeline(jetson_rtsp(text), shown, options), shown, True
    require("av", extra="cpu", why="read videos and streams")
    limit_allocations(options.max_pixels)
    return lambda within_s: _open_stream(text, options, within_s, note), shown, True


def _pipeline(text: str, shown: str, options: CaptureOptions) -> Opener:
    return lambda within_s: GstSource(text, shown, within_s, options.max_pixels)


def _open_stream(text: str, options: CaptureOptions, within_s: float, note: str) -> Source:
    patience = Patience(within_s, options.frozen_s, options.max_pixels, _PROBE_S)
    source = VideoSource(text, Kind.STREAM, patience)
    source.note = note
    return source
