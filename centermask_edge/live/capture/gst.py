"""Frames of a GStreamer pipeline, where the system has GStreamer and its Python bindings.

There they are the only way to a Jetson's decoder and to its CSI cameras. No wheel brings them.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from centermask_edge.errors import MissingPackageError, SourceError
from centermask_edge.frame import Frame
from centermask_edge.live.capture.faults import Secrets, SourceFault
from centermask_edge.live.health import Fault
from centermask_edge.live.source import Kind, redact

GST = "gst:"
_SINK = "centermask_out"
# The newest frame only, as soon as it is there.
_TAIL = (
    f" ! videoconvert ! video/x-raw,format=BGR"
    f" ! appsink name={_SINK} max-buffers=1 drop=true sync=false"
)
# How long a thread that nobody wants any more may still wait.
_PULL_S = 0.2
_NO_TIME = 2**64 - 1


def load_gst() -> ModuleType:
    """GStreamer's module, ready for use.

    Raises:
        MissingPackageError: GStreamer or its Python bindings are not installed.
    """
    try:
        gi = importlib.import_module("gi")
        gi.require_version("Gst", "1.0")
        gst = importlib.import_module("gi.repository.Gst")
    except (ImportError, ValueError):
        raise MissingPackageError(
            "GStreamer for Python is not installed and is needed to run a gst: pipeline; install "
            "it with: apt install python3-gi gir1.2-gst-plugins-base-1.0 "
            "gstreamer1.0-plugins-good, and use a Python that sees it "
            "(python3 -m venv --system-site-packages)"
        ) from None
    gst.init(None)
    return gst


def check_pipeline(text: str) -> None:
    """Whether GStreamer knows the pipeline's elements and how they are put together.

    Raises:
        MissingPackageError: see :func:`load_gst`.
        SourceError: it does not.
    """
    _parse(load_gst(), text)


def pipeline_name(text: str) -> str:
    """A short name of the pipeline: where its pictures come from, without credentials.

    >>> pipeline_name("rtspsrc location=rtsp://u:p@10.0.0.7/live latency=0 ! decodebin")
    'rtsp://***@10.0.0.7/live'
    >>> pipeline_name("nvarguscamerasrc sensor-id=1 ! nvvidconv")
    'nvarguscamerasrc sensor-id=1'
    """
    first = Secrets.of(text).scrub(text.split("!", 1)[0])
    location = re.search(r"location\s*=\s*(\"[^\"]*\"|\S+)", first)
    return redact(location[1].strip('"')) if location else first


class GstSource:
    """Frames of a pipeline that ends in raw video; conversion and sink are added.

    Args:
        pipeline: as ``gst-launch-1.0`` takes it, without a sink.
        name: for messages and results.
        within_s: how long the first frame may take.
        max_pixels: of one picture.

    Attributes:
        fault: what ended the frames; None where they ended by themselves.
        decoder: the element that decodes, None of them for raw video.

    Raises:
        MissingPackageError: see :func:`load_gst`.
        SourceFault: no frame came.
        SourceError: it is no pipeline.
    """

    kind = Kind.STREAM
    total = None

    def __init__(self, pipeline: str, name: str, within_s: float, max_pixels: int) -> None:
        self.name = name
        self.paths: list[Path] = []
        self.warnings: list[str] = []
        self.fault: Fault | None = None
        self.rate: Fraction | None = None
        self._max_pixels = max_pixels
        self._secrets = Secrets.of(pipeline)
        self._left = False
        self._gst = load_gst()
        self._pipeline = _parse(self._gst, pipeline)
        self._sink = self._pipeline.get_by_name(_SINK)
        self._bus = self._pipeline.get_bus()
        try:
            self._first = self._start(within_s)
            self.decoder = _decoder(self._gst, self._pipeline)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        start = time.monotonic()
        index = 0
        sample = self._first
        self._first = None
        while not self._left:
            if sample is not None:
                image, pts_s = self._picture(sample)
                now = time.monotonic()
                yield Frame(image, now - start if pts_s is None else pts_s, now, self.name, index)
                index += 1
            elif self._ended():
                return
            sample = self._pull(_PULL_S)

    def leave(self) -> None:
        """Ends the frames within a moment; may be called from another thread."""
        self._left = True

    def close(self) -> None:
        """Stops the pipeline; may be called twice."""
        self._pipeline.set_state(self._gst.State.NULL)

    def _start(self, within_s: float) -> Any:
        end = time.monotonic() + within_s
        self._pipeline.set_state(self._gst.State.PLAYING)
        while time.monotonic() < end and not self._left:
            sample = self._pull(_PULL_S)
            if sample is not None:
                return sample
            if self._ended():
                raise SourceFault(self.fault or Fault.END, self._last_words())
        raise SourceFault(Fault.TIMEOUT, f"{self.name}: no picture within {within_s:.3g} s")

    def _pull(self, timeout_s: float) -> Any:
        return self._sink.emit("try-pull-sample", int(timeout_s * self._gst.SECOND))

    def _ended(self) -> bool:
        """Whether the pipeline came to its end, by itself or by an error, which is noted."""
        kinds = self._gst.MessageType
        message = self._bus.pop_filtered(kinds.ERROR | kinds.EOS)
        if message is None:
            return False
        if message.type == kinds.ERROR:
            error, _ = message.parse_error()
            self.fault = _fault(self._gst, error)
            self.warnings.append(self._secrets.scrub(f"{self.name}: {error.message}"))
        return True

    def _last_words(self) -> str:
        return self.warnings[-1] if self.warnings else f"{self.name} ended before its first picture"

    def _picture(self, sample: Any) -> tuple[npt.NDArray[np.uint8], float | None]:
        shape = sample.get_caps().get_structure(0)
        width, height = shape.get_value("width"), shape.get_value("height")
        if width * height > self._max_pixels:
            raise SourceFault(
                Fault.CODEC,
                f"{self.name} sends pictures of {width}x{height} pixels, "
                f"larger than the {self._max_pixels / 1e6:.3g} million allowed",
            )
        buffer = sample.get_buffer()
        mapped, memory = buffer.map(self._gst.MapFlags.READ)
        if not mapped:
            raise SourceFault(Fault.INTERNAL, f"{self.name}: a picture's memory cannot be read")
        try:
            # Rows are padded to a multiple of 4 bytes, or as an element saw fit.
            rows = np.frombuffer(memory.data, np.uint8)
            rows = rows[: rows.size // height * height].reshape(height, -1)
            image = rows[:, : width * 3].reshape(height, width, 3).copy()
        finally:
            buffer.unmap(memory)
        return image, None if buffer.pts in (None, _NO_TIME) else buffer.pts / 1e9


def has_element(gst: ModuleType, name: str) -> bool:
    """Whether this GStreamer has the element."""
    return gst.ElementFactory.find(name) is not None


def _parse(gst: ModuleType, text: str) -> Any:
    name = pipeline_name(text)
    if not text or re.search(r"!\s*\w*sink\b", text):
        raise SourceError(
            "a gst: pipeline starts with a source and ends in raw video, without a sink, for "
            "example: gst: videotestsrc ! video/x-raw,width=640,height=480"
        )
    try:
        return gst.parse_launch(text + _TAIL)
    except Exception as error:
        # gi's own error class; named here, it would have to be imported.
        words = Secrets.of(text).scrub(str(getattr(error, "message", "") or type(error).__name__))
    raise SourceError(f"{name} is not a pipeline that GStreamer can build: {words}")


def _decoder(gst: ModuleType, pipeline: Any) -> str:
    """The names of the elements that decode pictures, and whether hardware does."""
    found = []
    elements = pipeline.iterate_recurse()
    while True:
        result, element = elements.next()
        if result != gst.IteratorResult.OK:
            break
        factory = element.get_factory()
        kind = factory.get_metadata("klass") or "" if factory else ""
        if "Decoder" in kind and ("Video" in kind or "Image" in kind) and "Bin" not in kind:
            name = factory.get_name()
            hard = "Hardware" in kind or name.startswith(("nvv4l2", "nvjpeg"))
            found.append(f"{name} (GStreamer, {'hardware' if hard else 'software'})")
    return ", ".join(found) or "GStreamer, nothing to decode"


def _fault(gst: ModuleType, error: Any) -> Fault:
    resource, stream = gst.ResourceError, gst.StreamError
    for enum, codes, fault in (
        (resource, ("NOT_AUTHORIZED",), Fault.AUTH),
        (resource, ("NOT_FOUND",), Fault.NOT_FOUND),
        (resource, ("BUSY", "OPEN_READ", "OPEN_READ_WRITE", "OPEN_WRITE"), Fault.UNREACHABLE),
        (resource, ("READ", "WRITE", "CLOSE"), Fault.RESET),
        (stream, ("DECODE", "DEMUX", "FORMAT", "TYPE_NOT_FOUND", "WRONG_TYPE"), Fault.CODEC),
        (stream, ("CODEC_NOT_FOUND", "DECRYPT", "DECRYPT_NOKEY"), Fault.CODEC),
    ):
        if any(error.matches(enum.quark(), getattr(enum, code)) for code in codes):
            return fault
    return Fault.INTERNAL
