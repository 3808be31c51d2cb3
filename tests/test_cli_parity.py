"""The parity command: what it writes, how it ends. The figures are tested in test_parity."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from centermask_edge.cli import main, parity
from centermask_edge.model import parity_tables
from centermask_edge.model.checks import Check, Table
from centermask_edge.resources import CACHE_VARIABLE
from centermask_edge.train import parity as training


def table(title: str, passed: bool) -> Table:
    return Table(title, "note", ("what",), (Check(("figure",), "1e-4", passed),))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The command without its minutes of arithmetic; what the engines were given comes back."""
    seen: dict[str, Any] = {"engines pass": True}

    def engine_checks(*given: Any) -> list[Check]:
        seen["given"] = given
        return list(table("", seen["engines pass"]).checks)

    monkeypatch.setattr(parity_tables, "official_tables", lambda r: [table("Official", True)])
    monkeypatch.setattr(training, "training_tables", lambda r: [table("Training", True)])
    monkeypatch.setattr(parity, "engine_checks", engine_checks)
    return seen


def test_page_and_json_hold_every_table(
    quick: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, data = tmp_path / "new" / "page.md", tmp_path / "data.json"
    words = ["parity", "--frames", "2", "--out", str(page), "--json", str(data)]
    assert main(words) == 0
    text, content = page.read_text(), json.loads(data.read_text())
    assert "    centermask-edge parity --out page.md --json data.json --frames 2\n" in text
    assert [part["title"] for part in content["tables"]][:2] == ["Official", "Training"]
    assert content["passed"] is True and "torch" in content["versions"]
    shown = capsys.readouterr().out
    for part in content["tables"]:
        assert f"## {part['title']}\n" in text
        assert part["title"] in shown
        assert part["rows"][0][-1] == "pass"
    assert str(tmp_path) not in text + data.read_text()


def test_frames_of_the_clip_and_pictures_of_a_folder_reach_the_engines(
    quick: dict[str, Any], tmp_path: Path
) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    assert main(["parity", "--frames", "3", "--images", str(tmp_path)]) == 0
    pictures = quick["given"][3]
    assert [p.shape for p in pictures] == [(432, 768, 3)] * 3 + [(30, 40, 3)]
    assert pictures[3][0, 0].tolist() == [0, 0, 255]  # BGR
    assert len({p.tobytes() for p in pictures}) == 4


def test_a_row_that_fails_is_exit_code_1_and_still_written(
    quick: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick["engines pass"] = False
    assert main(["parity", "--frames", "1", "--json", str(tmp_path / "data.json")]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert json.loads((tmp_path / "data.json").read_text())["passed"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reference", "nowhere"], "nowhere holds no reference outputs"),
        (["--checkpoint", "none.safetensors"], "checkpoint not found: none.safetensors"),
        (["--images", "nowhere"], "nowhere"),
        (["--frames", "0"], "--frames"),
    ],
)
def test_a_users_error_is_one_line(
    quick: dict[str, Any],
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["parity", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_a_page_that_cannot_be_written_is_one_line(
    quick: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["parity", "--frames", "1", "--out", str(tmp_path / "file" / "page.md")]) == 2
    assert "error: cannot write" in capsys.readouterr().err.splitlines()[-1]


def test_the_comparison_leaves_the_users_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with parity._throwaway_folder() as folder:
        assert os.environ[CACHE_VARIABLE] == str(folder) != str(tmp_path)
    assert os.environ[CACHE_VARIABLE] == str(tmp_path) and not folder.exists()
    monkeypatch.delenv(CACHE_VARIABLE)
    with parity._throwaway_folder():
        pass
    assert CACHE_VARIABLE not in os.environ
