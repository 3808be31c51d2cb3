"""Runs the building process and turns every way in which it can end into an engine or one line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import centermask_edge
from centermask_edge import errors
from centermask_edge.engines.tensorrt.request import Request
from centermask_edge.errors import CenterMaskError, ModelFileError

Progress = Callable[[str, int, int], None]
MODULE = "centermask_edge.engines.tensorrt.builder_process"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a finished build says of itself: seconds, and bytes where TensorRT told."""

    seconds: float
    activation_bytes: int = 0
    weight_bytes: int = 0


def run(request: Request, progress: Progress | None = None) -> Answer:
    """Builds in a process of its own.

    Args:
        request: what to build.
        progress: called with the phase, steps done and steps of it in all.

    Raises:
        CenterMaskError: as the child's own, or ModelFileError where it crashed or was killed.
    """
    command = [sys.executable, "-m", MODULE]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=_environment(),
    )
    try:
        answer = _talk(child, request, progress)
    finally:  # Ctrl-C, too
        if child.poll() is None:
            child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
    return _judged(answer, child.returncode, request)


def _environment() -> dict[str, str]:
    """So that the child finds this very package, installed or not."""
    root = str(Path(centermask_edge.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _talk(
    child: subprocess.Popen[str], request: Request, progress: Progress | None
) -> dict[str, Any]:
    """The child's last answer; empty where it died without one."""
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(OSError):  # it died already: its exit code says how
        child.stdin.write(request.to_json())
        child.stdin.close()
    last: dict[str, Any] = {}
    for line in child.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # cut off in the middle of a line
        if said.get("event") != "progress":
            last = said
        elif progress is not None:
            progress(said["phase"], said["step"], said["steps"])
    child.wait()
    return last


def _judged(answer: dict[str, Any], code: int, request: Request) -> Answer:
    if code == 0 and answer.get("event") == "done":
        numbers = {name: answer[name] for name in Answer.__slots__ if name in answer}
        return Answer(**numbers)
    where = f"; the whole log is in {request.log}" if Path(request.log).is_file() else ""
    if answer.get("event") == "error":
        kind = getattr(errors, str(answer["kind"]), ModelFileError)
        ours = isinstance(kind, type) and issubclass(kind, CenterMaskError)
        wanted = kind if ours else ModelFileError
        raise wanted(f"{answer['message']}{where}")
    raise ModelFileError(f"the process that builds the engine {_death(code)}{where}")


def _death(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code} before the engine was whole"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code == getattr(signal, "SIGKILL", 9):
        return (
            f"was killed ({name}), which usually means that memory ran out: lower --workspace, "
            "--batch or --size, close other programs, or add swap"
        )
    return (
        f"crashed inside TensorRT ({name}): try another --workspace or --precision, and please "
        "report this"
    )
