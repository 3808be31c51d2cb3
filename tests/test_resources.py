from __future__ import annotations

from pathlib import Path

import pytest

from centermask_edge import resources
from centermask_edge.errors import ConfigError, ModelFileError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "centermask_edge"
    folder.mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", folder)
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_wheel_comes_first_and_the_checkout_second(package: Path) -> None:
    write(package.parent / "kernels" / "a.cu", "checkout")
    assert resources.project_file("kernels", "a.cu").read_text() == "checkout"
    write(package / "_files" / "kernels" / "a.cu", "wheel")
    assert resources.project_file("kernels", "a.cu").read_text() == "wheel"


def test_a_file_of_neither_is_an_error(package: Path) -> None:
    with pytest.raises(ConfigError, match=r"kernels/b\.cu"):
        resources.project_file("kernels", "b.cu")


def test_shipped_model(package: Path) -> None:
    with pytest.raises(ModelFileError, match="--model"):
        resources.shipped_model()
    write(package / "_models" / "person.onnx", "x")
    assert resources.shipped_model().read_text() == "x"


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(resources.CACHE_VARIABLE, "/some/where")
    assert resources.cache_dir() == Path("/some/where")
    monkeypatch.delenv(resources.CACHE_VARIABLE)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert resources.cache_dir() == Path("/xdg/centermask-edge")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert resources.cache_dir() == Path.home() / ".cache" / "centermask-edge"
