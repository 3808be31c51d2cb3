"""The settings of a live run: cameras in a file, errors with their place, secrets never shown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from centermask_edge.engines.base import EngineName
from centermask_edge.errors import ConfigError, require
from centermask_edge.live.capture.options import Decode
from centermask_edge.live.outputs.privacy_config import Style
from centermask_edge.live.track.place_config import FollowConfig

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)")
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(?:.*@)?([^/?#]*)([^?#]*)")
_LONGEST_AGE_S = 60.0

Place = tuple[int | str, ...]


def parse_age(text: str) -> float:
    """Seconds of a duration written with its unit.

    Raises:
        ValueError: not a duration, or one no result can keep.

    >>> parse_age("100ms"), parse_age("0.5 s")
    (0.1, 0.5)
    """
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise ValueError("not an age; wanted a number with its unit, for example 100ms or 0.5s")
    seconds = float(found[1]) / (1000 if found[2] == "ms" else 1)
    if not 0.001 <= seconds <= _LONGEST_AGE_S:
        raise ValueError("an age out of range; wanted 1ms to 60s")
    return seconds


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port to listen on.

    Raises:
        ValueError: not such an address.

    >>> parse_listen("8080"), parse_listen("0.0.0.0:80"), parse_listen("[::1]:80")
    (('127.0.0.1', 8080), ('0.0.0.0', 80), ('::1', 80))
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535 or text.startswith(":"):
        raise ValueError("wanted PORT or HOST:PORT, for example 8080 or 0.0.0.0:8080")
    return host.strip("[]") or "127.0.0.1", int(port)


class _Model(BaseModel):
    # Values stay out of messages: they may be passwords.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CameraConfig(FollowConfig):
    """One camera."""

    address: str = Field(
        repr=False,
        min_length=1,
        description="rtsp:// or http:// address, file, folder, webcam number; ${NAME} is taken "
        "from the environment.",
    )
    name: str = Field("", max_length=80, description="Unique; made from the address where empty.")
    loop: bool = Field(False, description="Begin a file again at its end.")
    decode: Decode = Field(Decode.SOFTWARE, description="What decodes a network stream.")

    @field_validator("address", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class OutputsConfig(_Model):
    """Where results go; anything may be left out."""

    show: bool = Field(False, description="Open a window with all cameras.")
    out: Path | None = Field(None, description="Folder for an annotated video a camera.")
    json_lines: Path | None = Field(None, alias="json", description="JSON lines, one a result.")
    mjpeg: str | None = Field(
        None, description="[HOST:]PORT of a page with all cameras; this machine only by default."
    )
    mjpeg_token: str | None = Field(
        None,
        repr=False,
        description="What viewers must bear; needed for a HOST that others reach. Take it from "
        "the environment: ${NAME}.",
    )
    mqtt: str | None = Field(
        None, repr=False, description="mqtt:// or mqtts:// address of a broker, for events."
    )
    mqtt_prefix: str = Field("centermask-edge", description="First part of every topic.")
    rtsp_push: str | None = Field(
        None,
        repr=False,
        description="rtsp:// address to publish to through ffmpeg; {camera} in it stands for the "
        "camera's name.",
    )
    clips: Path | None = Field(None, description="Folder for clips around events.")
    privacy: Style | None = Field(
        None, description="Hide what is found in every picture that leaves; not with a recording."
    )
    record: Path | None = Field(None, description="Folder for a recording that can be replayed.")

    @field_validator("mjpeg", mode="before")
    @classmethod
    def _port(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("mjpeg")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None:
            parse_listen(value)
        return value


class LiveConfig(_Model):
    """A whole run of ``centermask-edge live``."""

    cameras: tuple[CameraConfig, ...] = Field((), description="At least one.")
    outputs: OutputsConfig = OutputsConfig.model_validate({})
    model: Path | None = Field(None, description="An .onnx file or a TensorRT engine.")
    engine: EngineName | None = Field(None, description="What runs the model.")
    threads: int | None = Field(None, ge=1, description="Processor threads of the engine.")
    score: float = Field(0.4, ge=0, le=1, description="Least box score of an instance.")
    size: int | None = Field(None, ge=32, le=4096, description="Short side of the input, pixels.")
    batch: int | None = Field(None, ge=1, le=64, description="Most frames in one engine call.")
    max_age: str | None = Field(
        None, description="Age of results that the governor keeps at the 95th percentile: 100ms."
    )

    @field_validator("max_age")
    @classmethod
    def _age(cls, value: str | None) -> str | None:
        if value is not None:
            parse_age(value)
        return value


def schema() -> dict[str, Any]:
    """The JSON Schema of a config file, for editors and validators."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **LiveConfig.model_json_schema(by_alias=True),
        "title": "centermask-edge live",
    }


def load_config(path: Path) -> LiveConfig:
    """The settings in a YAML or JSON file.

    Raises:
        ConfigError: it cannot be read, or a value is wrong; with file, line and path of the value.
        MissingPackageError: PyYAML is not installed and the file is not JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file in UTF-8; wanted YAML or JSON") from None
    data, lines = _parse(path, text)
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path} holds no settings; wanted at least:  cameras: [{{address: ...}}]"
        )
    try:
        return LiveConfig.model_validate(_expanded(data, (), path, lines))
    except ValidationError as error:
        raise ConfigError(_first_error(error, path, lines)) from None


def _parse(path: Path, text: str) -> tuple[Any, dict[Place, int]]:
    """The plain values of a file, and the line of each."""
    if path.suffix.lower() == ".json":
        try:
            return json.loads(text), {}
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
    yaml: Any = require("yaml", extra="cpu", why=f"read {path.name}; JSON needs no package")
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        lines: dict[Place, int] = {}
        if root is not None:
            _note_lines(yaml, root, (), path, lines)
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{where}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError:
        raise ConfigError(
            f"{path} is not valid YAML: a character that has no place there"
        ) from None


def _note_lines(yaml: Any, node: Any, place: Place, path: Path, lines: dict[Place, int]) -> None:
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value)
            if inner in lines:
                raise ConfigError(
                    f"{path}, line {key.start_mark.line + 1}: {_dotted(inner)} is there twice; "
                    f"first in line {lines[inner]}"
                )
            _note_lines(yaml, value, inner, path, lines)
            lines[inner] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _note_lines(yaml, value, (*place, i), path, lines)


def _dotted(place: Sequence[int | str]) -> str:
    """The path of a value.

    >>> _dotted(("cameras", 2, "address"))
    'cameras[2].address'
    """
    words = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return words.removeprefix(".")


def _where(place: Place, path: Path, lines: dict[Place, int]) -> str:
    known = place
    while known and known not in lines:
        known = known[:-1]
    line = f", line {lines[known]}" if known in lines else ""
    return f"{path}{line}: {_dotted(place)}"


def _expanded(value: Any, place: Place, path: Path, lines: dict[Place, int]) -> Any:
    """The value with ``${NAME}`` replaced from the environment."""
    if isinstance(value, dict):
        return {k: _expanded(v, (*place, str(k)), path, lines) for k, v in value.items()}
    if isinstance(value, list):
        return [_expanded(v, (*place, i), path, lines) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replaced(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ConfigError(
                f"{_where(place, path, lines)}: the environment has no {found[1]}; "
                f"set it: export {found[1]}=..."
            )
        return os.environ[found[1]]

    return _VARIABLE.sub(replaced, value)


def _first_error(error: ValidationError, path: Path, lines: dict[Place, int]) -> str:
    """The first thing that is wrong, and how many more are; never a value."""
    errors = error.errors(include_input=False, include_url=False)
    first = errors[0]
    place = tuple(first["loc"])
    words = {
        "missing": "is missing",
        "extra_forbidden": "is not a setting; centermask-edge live --schema lists them",
    }.get(first["type"]) or first["msg"].removeprefix("Value error, ").replace("Input ", "it ", 1)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{_where(place, path, lines)}: {words}{more}"


def camera_name(address: str) -> str:
    """A short name for a camera nobody named, without credentials.

    >>> camera_name("rtsp://admin:secret@10.0.0.7:554/live?token=1")
    '10.0.0.7:554/live'
    >>> camera_name("clips/door.mp4"), camera_name("0")
    ('door.mp4', 'webcam 0')
    """
    found = _ADDRESS.match(address)
    if found is not None:
        return (found[2] + found[3]).rstrip("/") or found[1]
    if address.isascii() and address.isdigit():
        return f"webcam {address}"
    if ":" in address and not os.path.exists(address):
        return re.split(r"[?,]", address)[0]
    return Path(address).name or address


def named(cameras: Sequence[CameraConfig]) -> tuple[CameraConfig, ...]:
    """The cameras, each with a name of its own.

    Raises:
        ConfigError: two were given the same name.
    """
    taken = [camera.name for camera in cameras if camera.name]
    twice = next((name for name in taken if taken.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two cameras are named {twice!r}; give each a name of its own")
    used = set(taken)
    result = []
    for camera in cameras:
        name = camera.name or camera_name(camera.address)
        number = 2
        while not camera.name and name in used:
            name = f"{camera_name(camera.address)} #{number}"
            number += 1
        used.add(name)
        result.append(camera.model_copy(update={"name": name}))
    return tuple(result)
