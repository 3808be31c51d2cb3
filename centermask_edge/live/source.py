"""What every source of frames has, and how addresses are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from centermask_edge.frame import Frame


class Kind(str, Enum):
    """What a source is; the sinks depend on it."""

    VIDEO = "video"
    IMAGE = "image"
    FOLDER = "folder"
    WEBCAM = "webcam"
    STREAM = "stream"


class Source(Protocol):
    """Frames, in order, once."""

    @property
    def name(self) -> str:
        """For messages and results: a file name, or an address without credentials."""

    @property
    def kind(self) -> Kind:
        """What it is."""

    @property
    def rate(self) -> Fraction | None:
        """Frames per second; None where pictures have no time or the source does not say."""

    @property
    def total(self) -> int | None:
        """Frames it promises, where it says."""

    @property
    def paths(self) -> list[Path]:
        """Files it reads, which no sink may overwrite."""

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far without ending the run; the reader may empty it."""

    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            SourceError: not one can be decoded.
        """

    def close(self) -> None:
        """Lets go of the file, device or connection; may be called twice."""


_SECRET = re.compile(
    r"([?&;](?:user\w*|usr|login|account|pass\w*|pwd|token|auth\w*|\w*key|secret|sig\w*)=)[^&;#]*",
    re.IGNORECASE,
)


def redact(address: str) -> str:
    """The address without user name, password and the like.

    Errs on the safe side: whatever stands between ``://`` and the last ``@`` is taken for them.

    >>> redact("rtsp://admin:p@ss/w@10.0.0.7/live?channel=1&token=abc")
    'rtsp://***@10.0.0.7/live?channel=1&token=***'
    """
    return _SECRET.sub(r"\1***", re.sub(r"://.*@", "://***@", address))
