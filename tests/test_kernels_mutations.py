"""Deliberate faults in the kernels: each must be caught by the cases of its kernel.

A suite that stays green on a broken kernel proves nothing. Every fault is one edit of a source; the
host build is made from the edited copy, and the cases are run in two orders of threads.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from centermask_edge.kernels.build import Recipe, build, host_recipe
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.verify import KERNELS
from centermask_edge.resources import project_file

FAULTS = [
    pytest.param(kernel, *fault, id=f"{kernel}-{number}")
    for kernel in KERNELS
    for number, fault in enumerate(importlib.import_module(f"test_kernels_{kernel}").MUTATIONS)
]


def edited(folder: Path, kernel: str, file: str, old: str, new: str) -> Recipe:
    """The host build of one kernel, made from a copy of the sources with one edit."""
    sources = folder / "kernels"
    shutil.copytree(project_file("kernels"), sources)
    source = sources / "src" / file
    text = source.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file} has {text.count(old)} times: {old}"
    source.write_text(text.replace(old, new), encoding="utf-8")
    one = sources / "src" / "one.cu"
    one.write_text(f'#include "runtime.cu"\n#include "{kernel}.cu"\n', encoding="utf-8")
    made = host_recipe(sources)
    lenient = tuple(flag for flag in made.flags if flag != "-Werror")
    return Recipe("host", made.compiler, lenient, sources, "src/one.cu")


# Runs in a process of its own: a broken kernel may crash, or never end.
PROGRAM = """
import importlib, sys
from pathlib import Path
from centermask_edge.errors import KernelError
from centermask_edge.kernels.cases.compare import Mismatch
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.verify import KERNELS
library = Library(Path(sys.argv[1]))
cases = importlib.import_module(f"centermask_edge.kernels.cases.{sys.argv[2]}")
for order in (0, 1):
    library.configure_host(order=order)
    for case in cases.cases():
        try:
            cases.check(library, case)
        except (Mismatch, KernelError) as fault:
            sys.exit(f"noticed: {case}: {fault}")
"""


def caught(library: Path, kernel: str) -> bool:
    """Whether any case notices, in the threads' own order or in the reverse."""
    command = [sys.executable, "-c", PROGRAM, str(library), kernel]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return True
    assert done.returncode <= 0 or "noticed: " in done.stderr, done.stderr
    return done.returncode != 0


@pytest.mark.parametrize(("kernel", "file", "old", "new"), FAULTS)
def test_a_deliberate_fault_is_caught(
    host: Library, tmp_path: Path, kernel: str, file: str, old: str, new: str
) -> None:
    recipe = edited(tmp_path, kernel, file, old, new)
    assert caught(build(recipe), kernel), f"nothing notices {new!r} in place of {old!r}"


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_a_fault_nothing_is_caught(tmp_path: Path, host: Library, kernel: str) -> None:
    recipe = edited(tmp_path, kernel, "common.h", "#pragma once", "#pragma once  // the same")
    assert not caught(build(recipe), kernel)
