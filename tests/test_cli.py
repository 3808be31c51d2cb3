"""The command line as a whole: exit codes, one line for an error, the table of commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

import centermask_edge
from centermask_edge import cli
from centermask_edge.errors import ConfigError


def add(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> None:
    """A command ``fail`` that raises the error."""

    def command() -> None:
        if error is not None:
            raise error

    monkeypatch.setitem(cli.COMMANDS, "fail", command)


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (None, 0, ""),
        (ConfigError("found this;\n wanted that"), 2, "error: found this; wanted that\n"),
        (KeyboardInterrupt(), 130, ""),
        (typer.Exit(7), 7, ""),
    ],
)
def test_errors_become_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException | None,
    code: int,
    shown: str,
) -> None:
    add(monkeypatch, error)
    assert cli.main(["fail"]) == code
    assert capsys.readouterr().err == shown


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["juggle"], "No such command 'juggle'; see centermask-edge --help"),
        (["run"], "see centermask-edge run --help"),
        (["run", "a.png", "--bogus"], "see centermask-edge run --help"),
        (["run", "a.png", "--threads", "many"], "'--threads'"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.startswith("error: ") and len(shown.splitlines()) == 1


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert next(iter(cli.COMMANDS)) == "run"
    assert [name for name in cli.COMMANDS if name not in shown] == []


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"centermask-edge {centermask_edge.__version__}\n"


def test_it_runs_as_a_module_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from centermask_edge.cli import main; main(['--version']);"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'cv2', 'av', 'PIL'};"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    root = Path(__file__).parents[1]
    for words in (["-c", code], ["-m", "centermask_edge", "--version"]):
        done = subprocess.run(
            [sys.executable, *words], cwd=root, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("centermask-edge ")


def test_a_closed_pipe_is_quiet() -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        f"{sys.executable} -m centermask_edge run --help | true",
        shell=True,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
