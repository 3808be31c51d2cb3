"""compute-sanitizer over ``gpu_sanitize.py``: each tool's findings, or why there are none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from centermask_edge.kernels.library import Library
from centermask_edge.kernels.toolchain import find_nvcc

Result = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
NEEDED = ("memcheck", "racecheck")  # without these two nothing is said to be free of findings
EVERY, TOOL_S = 3, 90.0
_SUMMARY = re.compile(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (\d+)")
_REFUSED = re.compile(r"[^\n]*(?:Device not supported|Unable to attach|Failed to initialize)[^\n]*")
_CASES = re.compile(r"\d+ of \d+ cases on [^\n]+")


def find_sanitizer() -> str | None:
    """The program: on the search path, beside nvcc, or in the toolkit's usual place."""
    nvcc = find_nvcc()
    places = [str(nvcc.path.resolve().parent)] if nvcc else []
    path = os.pathsep.join([os.environ.get("PATH", ""), *places, "/usr/local/cuda/bin"])
    return shutil.which("compute-sanitizer", path=path)


def sanitize(library: Library, deadline: float) -> Result:
    """Each tool over some cases of every kernel, as long as there is time."""
    program = find_sanitizer()
    if library.capability() == 0:
        return {tool: {"skipped": "no GPU"} for tool in TOOLS}
    if program is None:
        return {tool: {"skipped": "compute-sanitizer is not installed"} for tool in TOOLS}
    found: Result = {}
    for tool in TOOLS:
        left = deadline - time.monotonic()
        found[tool] = (
            run_tool(program, tool, library.path, min(left, TOOL_S))
            if left > 20
            else {"skipped": "no time left"}
        )
    return found


def run_tool(program: str, tool: str, library: Path, limit_s: float) -> Result:
    """One tool; the cases end by themselves after two thirds of the limit."""
    script = [sys.executable, str(ROOT / "bench" / "gpu_sanitize.py"), str(library)]
    command = [program, "--tool", tool, *script, str(EVERY), str(limit_s * 2 / 3)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limit_s,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        return {"skipped": f"{type(fault).__name__}: {str(fault)[-200:]}"}
    return judge(done.stdout + done.stderr, done.returncode)


def judge(output: str, exit_code: int) -> Result:
    """What a tool's output says.

    A finding counts even where the program died of it, as of a stray write it does. A program that
    died without one has failed. A device that the tool refuses was not looked at.
    """
    refused, number, cases = _REFUSED.search(output), findings(output), _CASES.search(output)
    if refused and cases is None:
        return {"skipped": f"it refuses the device: {refused[0].strip()}"}
    entry: Result = {"cases": cases[0] if cases else None, "exit_code": exit_code}
    if number is not None:
        entry["findings"] = number
    if number is None and cases is not None:
        return {"skipped": "it gave no summary: " + " ".join(output.split())[-400:]}
    if cases is None and not number:
        entry["failed"] = "the cases did not end: " + " ".join(output.split())[-400:]
    if number:
        entry["output"] = output[:4000]  # the first finding explains the others
    return entry


def findings(output: str) -> int | None:
    """Number of errors or hazards in the sanitizer's output; None where it gives no summary.

    >>> findings("========= ERROR SUMMARY: 0 errors")
    0
    """
    found = [int(number) for number in _SUMMARY.findall(output)]
    return sum(found) if found else None
