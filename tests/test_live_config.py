"""Config files of a live run: what is wrong is said with its place, and secrets are not said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from centermask_edge.cli import main
from centermask_edge.errors import ConfigError
from centermask_edge.live.live_config import (
    CameraConfig,
    LiveConfig,
    load_config,
    named,
    parse_age,
    parse_listen,
    schema,
)

GOOD = """
cameras:
  - name: door
    address: rtsp://admin:${CAM_PASSWORD}@10.0.0.7/live
    score: 0.6
  - address: 0
max_age: 100ms
"""


def write(tmp_path: Path, text: str, name: str = "cams.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def test_a_file_with_a_secret_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAM_PASSWORD", "hunter2")
    config = load_config(write(tmp_path, GOOD))
    assert config.cameras[0].address == "rtsp://admin:hunter2@10.0.0.7/live"
    assert [camera.name for camera in named(config.cameras)] == ["door", "webcam 0"]
    assert config.max_age == "100ms"
    assert "hunter2" not in repr(config)


def test_json_is_read_too(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"cameras": [{"address": "a.mp4"}]}), "cams.json")
    assert load_config(path).cameras[0].address == "a.mp4"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("cameras:\n  - address: a\n  - name: b\n", "line 3: cameras[1].address", "is missing"),
        ("cameras:\n  - address: a\n    scor: 1\n", "line 3: cameras[0].scor", "not a setting"),
        ("cameras: []\nscore: 2\n", "line 2: score", "less than or equal to 1"),
        ("max_age: soon\n", "line 1: max_age", "example 100ms or 0.5s"),
        ("score: 1\nscore: 0\n", "line 2: score is there twice", "line 1"),
        ("cameras: [\n", "line 2", "not valid YAML"),
        ("engine: warp\n", "line 1: engine", "openvino"),
        ("- a\n", "cams.yaml", "holds no settings"),
        ("", "cams.yaml", "holds no settings"),
        ("cameras:\n- address: ${NO_SUCH_THING}\n", "line 2: cameras[0].address", "export"),
        ("a: \x00\n", "cams.yaml", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    message = error_of(write(tmp_path, text))
    assert where in message and what in message
    assert "\n" not in message


def test_json_errors_have_a_line_or_a_path(tmp_path: Path) -> None:
    assert "line 1: not valid JSON" in error_of(write(tmp_path, "{", "c.json"))
    message = error_of(write(tmp_path, '{"cameras": [{"adress": "x"}]}', "c.json"))
    assert "cameras[0].address: is missing (and 1 more)" in message


def test_no_message_holds_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    for text in ("score: ${TOKEN}\n", "engine: ${TOKEN}\n", "cameras: ${TOKEN}\n"):
        assert "hunter2" not in error_of(write(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in error_of(tmp_path / "missing.yaml")
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in error_of(path)


def test_names_are_different_and_without_credentials() -> None:
    addresses = ["rtsp://u:p@h/a", "rtsp://v:q@h/a", "clip.mp4", "x/clip.mp4"]
    cameras = named([CameraConfig(address=address) for address in addresses])
    assert [c.name for c in cameras] == ["h/a", "h/a #2", "clip.mp4", "clip.mp4 #2"]
    with pytest.raises(ConfigError, match="two cameras are named 'a'"):
        named([CameraConfig(address="0", name="a"), CameraConfig(address="1", name="a")])


@pytest.mark.parametrize("text", ["100", "ms", "-5ms", "0ms", "2h", "90s", "1e3ms", ""])
def test_ages_need_a_unit_and_a_sensible_size(text: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        parse_age(text)


@pytest.mark.parametrize("text", ["", "x", ":80", "host:", "99999", "1.2.3.4", "h:-1"])
def test_addresses_to_listen_on_need_a_port(text: str) -> None:
    with pytest.raises(ValueError, match="wanted PORT"):
        parse_listen(text)


def test_the_schema_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(schema()["properties"]) == set(LiveConfig.model_fields)
    assert main(["live", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()
