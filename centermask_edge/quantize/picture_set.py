"""A calibration set on disk: a folder with ``manifest.json``, and pictures in it or elsewhere.

The manifest names every picture by its SHA-256, and says what the set covers and what it was
chosen from. Paths in it are relative to it, so that a set and its data can move together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.files import file_sha256
from centermask_edge.quantize.artefact import CalibrationPicture
from centermask_edge.quantize.collect import Picture
from centermask_edge.quantize.errors import QuantizationError

MANIFEST = "manifest.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceRecord(_Record):
    """What the pictures were chosen from.

    Attributes:
        kind: dataset, folder, image, video, stream or webcam.
        name: file name, or address without credentials.
        sha256: of the file, where it is one.
        looked_at: pictures that were decoded.
        blank: of them, those of one colour or black.
        duplicates: of them, near-duplicates.
    """

    kind: str
    name: str
    sha256: str | None
    looked_at: int
    blank: int
    duplicates: int


class ModelRecord(_Record):
    """The model that found the objects, and whose preprocessing the set is for."""

    file: str
    weights: str
    graph: str


class PictureRecord(_Record):
    """One picture.

    Attributes:
        file: path below the set's root.
        origin: what it is in the source: file name, or frame number.
        sha256: of the file.
        height: in pixels.
        width: in pixels.
        brightness: mean grey level, 0 to 255.
        contrast: standard deviation of the grey levels.
        shows: see ``facts.py``.
    """

    file: str
    origin: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    height: int
    width: int
    brightness: float
    contrast: float
    shows: tuple[str, ...]


class Manifest(_Record):
    """The content of ``manifest.json``.

    Attributes:
        format: of this record.
        source: what the pictures were chosen from.
        seed: that decided between equals.
        root: folder of the pictures, relative to the manifest.
        model: None where none was given.
        preprocess: of that model.
        shows: number of chosen pictures that show each fact.
        available: the same of all the pictures that were looked at.
        pictures: in the order of the source.
    """

    format: Literal[1] = 1
    source: SourceRecord
    seed: int
    root: str
    model: ModelRecord | None
    preprocess: PreprocessConfig | None
    shows: dict[str, int]
    available: dict[str, int]
    pictures: tuple[PictureRecord, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class PictureSet:
    """A manifest, and where it lies.

    Attributes:
        record: the manifest.
        path: of its file.
        root: folder of the pictures.
    """

    record: Manifest
    path: Path
    root: Path

    def check_preprocess(self, wanted: PreprocessConfig) -> None:
        """Nothing, if the set was not made for other preprocessing.

        Raises:
            QuantizationError: it was; the field that differs is named.
        """
        found = self.record.preprocess
        if found is None or found == wanted:
            return
        for field in type(found).model_fields:
            have, want = getattr(found, field), getattr(wanted, field)
            if have != want:
                raise QuantizationError(
                    f"{self.path} is for other preprocessing than the model: {field} is "
                    f"{_plain(have)}, wanted {_plain(want)}; choose pictures for this model with: "
                    "centermask-edge calibrate SOURCE --model MODEL"
                )

    def pictures(self, read: Callable[[Path], Picture]) -> list[CalibrationPicture]:
        """The pictures, each of which is what the manifest says.

        Args:
            read: gives uint8 (H, W, 3) BGR.

        Raises:
            QuantizationError: one is missing or has changed.
        """
        found = []
        for picture in self.record.pictures:
            path = self.root / picture.file
            self._check(path, picture)
            found.append(CalibrationPicture(picture.file, picture.sha256, partial(read, path)))
        return found

    def shared_with(self, paths: Iterable[Path]) -> int:
        """How many of those files are pictures of the set.

        Raises:
            ModelFileError: one cannot be read.
        """
        known = {picture.sha256 for picture in self.record.pictures}
        return sum(file_sha256(path) in known for path in paths)

    def _check(self, path: Path, picture: PictureRecord) -> None:
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise QuantizationError(
                f"the calibration picture {path} named in {self.path} cannot be read "
                f"({error.strerror}); put it back, name its folder with --pictures, or choose "
                "pictures again with: centermask-edge calibrate"
            ) from None
        if digest != picture.sha256:
            raise QuantizationError(
                f"the calibration picture {path} has changed since {self.path} was written: "
                f"sha256 is {digest[:16]}, wanted {picture.sha256[:16]}; put it back, or choose "
                "pictures again with: centermask-edge calibrate"
            )


def _plain(value: object) -> str:
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def load_set(path: Path, root: Path | None = None) -> PictureSet:
    """A calibration set.

    Args:
        path: of the folder or of its manifest.
        root: folder of the pictures, where they are not where the manifest says.

    Raises:
        QuantizationError: there is none, or it is damaged or of another kind.
    """
    file = path / MANIFEST if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise QuantizationError(
            f"no calibration set at {path}: {file} is missing; make one with: "
            f"centermask-edge calibrate SOURCE --out {path}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise QuantizationError(f"cannot read the calibration manifest {file}: {reason}") from None
    try:
        record = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise QuantizationError(
            f"{file} is not a calibration manifest of this version ({where}: {first['msg']}); "
            "make one with: centermask-edge calibrate"
        ) from None
    return PictureSet(record, file, root or (file.parent.resolve() / record.root).resolve())
