"""As much of PyGObject's ``gi`` as ``capture.gst`` uses, for machines without GStreamer."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from enum import Enum, Flag
from typing import Any

import pytest


class _Codes(Enum):
    @classmethod
    def quark(cls) -> str:
        return cls.__name__


class ResourceError(_Codes):
    NOT_AUTHORIZED, NOT_FOUND, BUSY, OPEN_READ, OPEN_READ_WRITE, OPEN_WRITE = range(6)
    READ, WRITE, CLOSE, FAILED = range(6, 10)


class StreamError(_Codes):
    DECODE, DEMUX, FORMAT, TYPE_NOT_FOUND, WRONG_TYPE = range(5)
    CODEC_NOT_FOUND, DECRYPT, DECRYPT_NOKEY = range(5, 8)


class MessageType(Flag):
    ERROR, EOS = 1, 2


class GError(Exception):
    """GLib's error."""

    def __init__(self, message: str, code: _Codes | None = None) -> None:
        super().__init__(f"gst-error: {message}")
        self.message = message
        self.code = code

    def matches(self, quark: str, code: _Codes) -> bool:
        return code is self.code and quark == type(code).__name__


@dataclass
class Sample:
    """A picture, its rows padded to 4 bytes, and the several objects GStreamer makes of it."""

    width: int
    height: int
    pts: int
    data: bytes
    unmapped: bool = False

    def get_caps(self) -> Sample:
        return self

    def get_structure(self, index: int) -> Sample:
        return self

    def get_value(self, key: str) -> int:
        return self.width if key == "width" else self.height

    def get_buffer(self) -> Sample:
        return self

    def map(self, flags: object) -> tuple[bool, Sample]:
        return True, self

    def unmap(self, memory: Sample) -> None:
        self.unmapped = True


@dataclass
class Message:
    type: MessageType
    error: GError | None = None

    def parse_error(self) -> tuple[GError | None, str]:
        return self.error, "debug text with rtsp://admin:s3cret@h"


@dataclass
class Element:
    name: str
    klass: str

    def get_factory(self) -> Element:
        return self

    def get_name(self) -> str:
        return self.name

    def get_metadata(self, key: str) -> str:
        return self.klass


@dataclass
class Pipeline:
    """What ``parse_launch`` gives; also its own sink, bus and iterator."""

    samples: list[Sample]
    last: Message | None
    elements: list[Element]
    states: list[str] = field(default_factory=list)

    def get_by_name(self, name: str) -> Pipeline:
        return self

    def get_bus(self) -> Pipeline:
        return self

    def set_state(self, state: str) -> None:
        self.states.append(state)

    def emit(self, signal: str, timeout_ns: int) -> Sample | None:
        assert signal == "try-pull-sample" and 0 < timeout_ns <= 10**9
        return self.samples.pop(0) if self.samples else None

    def pop_filtered(self, kinds: MessageType) -> Message | None:
        return self.last if not self.samples else None

    def iterate_recurse(self) -> Pipeline:
        self._left = list(self.elements)
        return self

    def next(self) -> tuple[str, Element | None]:
        return ("ok", self._left.pop(0)) if self._left else ("done", None)


class FakeGst:
    """GStreamer with these elements; every pipeline gives ``samples``, then ``last``."""

    def __init__(self, *elements: str) -> None:
        self.known = set(elements)
        self.samples: list[Sample] = []
        self.last: Message | None = Message(MessageType.EOS)
        self.elements: list[Element] = []
        self.launched: list[str] = []
        self.pipelines: list[Pipeline] = []

    def parse_launch(self, text: str) -> Pipeline:
        self.launched.append(text)
        for part in text.split(" ! "):
            name = part.split()[0]
            if "/" not in name and name not in self.known:
                raise GError(f'no element "{name}" in {text}')
        self.pipelines.append(Pipeline(list(self.samples), self.last, self.elements))
        return self.pipelines[-1]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        gi, repository = types.ModuleType("gi"), types.ModuleType("gi.repository")
        gst: Any = types.ModuleType("gi.repository.Gst")
        gi.require_version = lambda name, version: None  # type: ignore[attr-defined]
        gst.init = lambda arguments: None
        gst.parse_launch = self.parse_launch
        gst.SECOND = 10**9
        gst.State = types.SimpleNamespace(PLAYING="playing", NULL="null")
        gst.MapFlags = types.SimpleNamespace(READ=1)
        gst.IteratorResult = types.SimpleNamespace(OK="ok")
        gst.MessageType, gst.ResourceError, gst.StreamError = (
            MessageType,
            ResourceError,
            StreamError,
        )
        gst.ElementFactory = types.SimpleNamespace(
            find=lambda name: name if name in self.known else None
        )
        for name, module in (("gi", gi), ("gi.repository", repository), ("gi.repository.Gst", gst)):
            patch.setitem(sys.modules, name, module)
