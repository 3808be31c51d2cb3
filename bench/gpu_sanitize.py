"""Some cases of every kernel and nothing else: what compute-sanitizer is run on.

Needs numpy and the library alone, so that the sanitizer has little to follow.

    compute-sanitizer --tool memcheck python3 bench/gpu_sanitize.py LIBRARY [EVERY [SECONDS]]
"""

from __future__ import annotations

import importlib
import itertools
import sys
import time
from pathlib import Path
from typing import Any

from centermask_edge.kernels.library import Library, load_cuda
from centermask_edge.kernels.verify import KERNELS

Case = tuple[Any, Any]  # the module that checks it, and the case


def load(path: Path) -> Library:
    """The library; the launchers alone are not enough where NVRTC made the machine code."""
    return load_cuda() if path.name.startswith("driver-") else Library(path)


def in_turns(every: int) -> list[Case]:
    """Every n-th case, the kernels in turns, so that each has had some when the time is up."""
    modules = [importlib.import_module(f"centermask_edge.kernels.cases.{k}") for k in KERNELS]
    columns = [[(module, case) for case in module.cases()[::every]] for module in modules]
    rows = itertools.zip_longest(*columns)
    return [entry for row in rows for entry in row if entry is not None]


def main(arguments: list[str]) -> int:
    """Runs every n-th case within so many seconds; an error if one differs from its reference."""
    library = load(Path(arguments[0]))
    every = int(arguments[1]) if len(arguments) > 1 else 1
    limit_s = float(arguments[2]) if len(arguments) > 2 else float("inf")
    cases, start, done = in_turns(every), time.monotonic(), 0
    for module, case in cases:
        if time.monotonic() - start > limit_s:
            break
        module.check(library, case)
        done += 1
    sys.stdout.write(f"{done} of {len(cases)} cases on {library.device_name()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
