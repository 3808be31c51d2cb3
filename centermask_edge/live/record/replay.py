"""Reads recordings: frames with their modes, in the batches in which they were segmented."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from centermask_edge.engines.files import file_sha256
from centermask_edge.errors import ModelFileError, SourceError, require
from centermask_edge.frame import Frame
from centermask_edge.live.record.recording import INDEX, SCHEMA, Made
from centermask_edge.live.result import Mode
from centermask_edge.live.source import Kind
from centermask_edge.live.track.place_config import FollowConfig


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a recorded frame is and how it was segmented.

    Attributes:
        camera: its name.
        index: in its source.
        pts_s: as the source said.
        arrival_s: ``time.monotonic()`` of the recording process.
        batch: number of the engine's call.
        mode: what the governor had asked.
        file: name of the video in the folder.
        time_ms: of the frame in it.
    """

    camera: str
    index: int
    pts_s: float
    arrival_s: float
    batch: int
    mode: Mode
    file: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class ReplayBatch:
    """Frames that went into the engine in one call.

    Attributes:
        number: of the call.
        frames: bit for bit, in their order in the batch.
        modes: of each.
        complete: whether all its frames were recorded. Otherwise the call cannot be made again,
            and what a tracker makes of later frames may differ.
    """

    number: int
    frames: tuple[Frame, ...]
    modes: tuple[Mode, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Recording:
    """What the index of a recording says.

    Attributes:
        folder: where it is.
        made: with what its results were made.
        entries: its frames in the order in which they were written.
        incomplete: batches of which frames are missing.
    """

    folder: Path
    made: Made
    entries: tuple[Entry, ...]
    incomplete: frozenset[int] = field(default_factory=frozenset)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names, in the order of their first frames."""
        return tuple(dict.fromkeys(entry.camera for entry in self.entries))

    def check_model(self, path: Path) -> None:
        """Nothing, if results were made with that file.

        Raises:
            ModelFileError: they were made with another one.
        """
        found = file_sha256(path)
        wanted = self.made.model_sha256
        if wanted and found != wanted:
            raise ModelFileError(
                f"{path} (sha256 {found[:12]}) is not the model of {self.folder} "
                f"({wanted[:12]}); results would differ"
            )


def open_recording(folder: Path) -> Recording:
    """The index of a recording, as far as it was written.

    Raises:
        SourceError: there is none, or it is damaged elsewhere than in its last line.
    """
    path = folder / INDEX
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}; give a recording") from None
    entries: list[Entry] = []
    incomplete: set[int] = set()
    made: Made | None = None
    for number, text in enumerate(lines, start=1):
        try:
            values = json.loads(text)
            if number == 1:
                made = _made(values)
            elif "dropped" in values:
                incomplete.add(int(values["dropped"]["batch"]))
            else:
                entries.append(_entry(values))
        except (ValueError, KeyError, TypeError) as error:
            if 1 < number == len(lines):  # the process was killed while it wrote
                break
            raise SourceError(f"{path}:{number} is not a line of {SCHEMA} ({error})") from None
    if made is None:
        raise SourceError(f"{path} is empty; the recording was ended before it began")
    return Recording(folder, made, tuple(entries), frozenset(incomplete))


def _made(values: dict[str, Any]) -> Made:
    if values.get("schema") != SCHEMA:
        raise ValueError(f"schema {values.get('schema')!r}, wanted {SCHEMA!r}")
    return Made(
        str(values["model_sha256"]),
        str(values["engine"]),
        int(values["threads"]),
        float(values["score"]),
        _cameras(values.get("cameras", {})),
    )


def _cameras(values: Any) -> dict[str, FollowConfig]:
    if not isinstance(values, dict):
        raise ValueError(f"cameras: {type(values).__name__}, wanted settings by name")
    try:
        return {name: FollowConfig.model_validate(follow) for name, follow in values.items()}
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"cameras: {first['msg']}") from None


def _entry(values: dict[str, Any]) -> Entry:
    file = str(values["file"])
    if Path(file).name != file:
        raise ValueError(f"file {file!r} lies elsewhere")
    return Entry(
        str(values["camera"]),
        int(values["index"]),
        float(values["pts_s"]),
        float(values["arrival_s"]),
        int(values["batch"]),
        Mode(int(values["stride"]), int(values["short_side"]), bool(values["masks"])),
        file,
        int(values["time_ms"]),
    )


class _Reader:
    """The frames of one film, one after the other."""

    def __init__(self, av: Any, path: Path) -> None:
        self._av = av
        try:
            self._container = av.open(str(path))
        except av.FFmpegError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from None
        self._frames = self._container.decode(video=0)

    def read(self, entry: Entry) -> Frame | None:
        """The frame of that entry; None where the file ends before it, as after a kill."""
        try:
            for decoded in self._frames:
                if round(decoded.pts * decoded.time_base * 1000) == entry.time_ms:
                    image = decoded.to_ndarray(format="bgr24")
                    return Frame(image, entry.pts_s, entry.arrival_s, entry.camera, entry.index)
        except self._av.FFmpegError:  # cut off in the middle of a packet
            pass
        return None

    def close(self) -> None:
        self._container.close()


class _Readers:
    """A reader for each film, opened when it is needed and let go when the next one is."""

    def __init__(self, folder: Path) -> None:
        self._av: Any = require("av", extra="cpu", why="read recordings")
        self._folder = folder
        self._open: dict[str, tuple[str, _Reader]] = {}

    def read(self, entry: Entry) -> Frame | None:
        """The frame of that entry, or None."""
        file, reader = self._open.get(entry.camera, ("", None))
        if reader is None or file != entry.file:
            if reader is not None:
                reader.close()
            reader = _Reader(self._av, self._folder / entry.file)
            self._open[entry.camera] = (entry.file, reader)
        return reader.read(entry)

    def __enter__(self) -> _Readers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _, reader in self._open.values():
            reader.close()


def replay_batches(
    folder: Path, warn: Callable[[str], None] = lambda line: None
) -> Iterator[ReplayBatch]:
    """The recorded batches, one after the other, up to where a killed recording ends.

    Args:
        folder: of the recording.
        warn: gets one line where frames are missing at its end.

    Raises:
        SourceError: it is no recording, or not one batch of it can be read.
    """
    recording = open_recording(folder)
    batches: dict[int, list[Entry]] = {}
    for entry in recording.entries:
        batches.setdefault(entry.batch, []).append(entry)
    with _Readers(folder) as readers:
        for done, (number, entries) in enumerate(batches.items()):
            frames = _frames(readers, entries, needed=done == 0)
            if len(frames) < len(entries):
                warn(
                    f"{folder} breaks off after {done} of {len(batches)} batches; "
                    "its recording was killed"
                )
                return
            modes = tuple(entry.mode for entry in entries)
            yield ReplayBatch(number, frames, modes, number not in recording.incomplete)


def _frames(readers: _Readers, entries: list[Entry], *, needed: bool) -> tuple[Frame, ...]:
    """The frames that are there; a film that a kill left without even a head holds none."""
    found = []
    for entry in entries:
        try:
            frame = readers.read(entry)
        except SourceError:
            if needed:
                raise
            frame = None
        if frame is not None:
            found.append(frame)
    return tuple(found)


class ReplaySource:
    """The recorded frames of one camera as a source.

    Args:
        folder: of the recording.
        camera: its name; may be left out where there is one only.

    Raises:
        SourceError: no recording, or no such camera in it.
    """

    kind = Kind.VIDEO
    rate: Fraction | None = None

    def __init__(self, folder: Path, camera: str | None = None) -> None:
        self._recording = open_recording(folder)
        cameras = self._recording.cameras
        if camera is None and len(cameras) == 1:
            camera = cameras[0]
        if camera is None or camera not in cameras:
            asked = "which camera" if camera is None else f"no camera {camera!r}"
            raise SourceError(f"{folder}: {asked}; it holds: {', '.join(cameras) or 'no frame'}")
        self.name = camera
        self.warnings: list[str] = []
        self._entries = [e for e in self._recording.entries if e.camera == camera]
        self.total: int | None = len(self._entries)
        self.paths = [folder / INDEX] + [folder / f for f in {e.file for e in self._entries}]

    def __iter__(self) -> Iterator[Frame]:
        with _Readers(self._recording.folder) as readers:
            for number, entry in enumerate(self._entries):
                frame = readers.read(entry)
                if frame is None:
                    self.warnings.append(
                        f"{self.name} breaks off after frame {number} of {self.total}; "
                        "the recording was killed"
                    )
                    return
                yield frame

    def close(self) -> None:
        """Nothing is open between frames."""
