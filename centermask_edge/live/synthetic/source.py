"""``synthetic:people?width=1280&fps=25``: a scene as a camera, or as a clip of so many frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from centermask_edge.errors import SourceError
from centermask_edge.frame import Frame
from centermask_edge.live.health import Fault
from centermask_edge.live.source import Kind
from centermask_edge.live.synthetic.scene import Look, Scene, SceneSettings, TrueObject

SYNTHETIC = "synthetic:"
# Least and most of each option.
_RANGES = {
    "width": (160, 7680),
    "height": (120, 4320),
    "objects": (0, 200),
    "seed": (0, 2**32 - 1),
    "frames": (0, 2**24),
}
_FPS = (0.1, 240.0)


@dataclass(frozen=True, slots=True)
class SyntheticAddress:
    """What an address asks for.

    Attributes:
        scene: the scene.
        frames: after so many it ends, as a clip does; 0 for a camera, which never ends.
    """

    scene: SceneSettings
    frames: int = 0


def parse_synthetic(text: str) -> SyntheticAddress:
    """The settings in ``synthetic:LOOK?OPTION=VALUE&...``.

    Raises:
        SourceError: there is no such look or option, or its value is out of range.

    >>> parse_synthetic("synthetic:shapes?width=640&height=360").scene.width
    640
    """
    look, _, query = text.removeprefix(SYNTHETIC).partition("?")
    try:
        scene = SceneSettings(look=Look(look or Look.PEOPLE.value))
    except ValueError:
        known = " or ".join(SYNTHETIC + item.value for item in Look)
        raise SourceError(f"{text}: no such synthetic camera; wanted {known}") from None
    frames = 0
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key == "fps":
            scene = replace(scene, fps=_number(text, key, value, *_FPS))
        elif key == "frames":
            frames = int(_number(text, key, value, *_RANGES[key], whole=True))
        elif key in _RANGES:
            chosen: Any = int(_number(text, key, value, *_RANGES[key], whole=True))
            scene = replace(scene, **{key: chosen})
        else:
            raise SourceError(f"{text}: no option {key!r}; there are fps, {', '.join(_RANGES)}")
    return SyntheticAddress(scene, frames)


def _number(
    text: str, key: str, value: str, low: float, high: float, *, whole: bool = False
) -> float:
    try:
        number: float = int(value) if whole else float(value)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        kind = "a whole number" if whole else "a number"
        raise SourceError(f"{text}: {key} is {value!r}; wanted {kind} from {low:g} to {high:.10g}")
    return number


class SyntheticSource:
    """A ``Source`` of computed frames.

    As a camera, it shows the frame whose time has come: who reads slowly misses some, and the
    numbers in the pictures tell which. As a clip, it gives every frame as fast as it is asked to.

    Args:
        text: the address; see ``parse_synthetic``.

    Raises:
        SourceError: the address is wrong.
        MissingPackageError: PyAV, which reads the bundled clip, is not installed.
    """

    def __init__(self, text: str) -> None:
        address = parse_synthetic(text)
        self._scene = Scene(address.scene)
        self._frames = address.frames
        self.name = text.partition("?")[0]
        self.kind = Kind.VIDEO if self._frames else Kind.STREAM
        self.rate: Fraction | None = Fraction(address.scene.fps).limit_denominator(1001)
        self.total: int | None = self._frames or None
        self.paths: list[Path] = []
        self.warnings: list[str] = []
        self.fault: Fault | None = None
        self.decoder = "computed"
        self.note = ""
        self._left = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        fps = self._scene.settings.fps
        if self._frames:
            yield from (self._frame(n, n / fps) for n in range(self._frames))
            return
        start, index = time.monotonic(), 0
        while not self._left.wait(max(0.0, start + index / fps - time.monotonic())):
            yield self._frame(index, index / fps)
            index = max(index + 1, int((time.monotonic() - start) * fps))

    def truth(self, index: int) -> list[TrueObject]:
        """What is to be seen in the frame whose picture bears that number."""
        return self._scene.truth(index)

    def leave(self) -> None:
        """Ends the frames; may be called from another thread."""
        self._left.set()

    def close(self) -> None:
        """As ``leave``."""
        self._left.set()

    def _frame(self, index: int, pts_s: float) -> Frame:
        image = self._scene.picture(index)
        return Frame(image, pts_s, time.monotonic(), self.name, index)
