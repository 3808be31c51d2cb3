"""Some cases of every kernel and nothing else: what compute-sanitizer is run on.

Needs numpy and the library alone, so that the sanitizer has little to follow.

    compute-sanitizer --tool memcheck python3 bench/gpu_sanitize.py LIBRARY [EVERY]
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from centermask_edge.kernels.library import Library
from centermask_edge.kernels.verify import KERNELS

_SUMMARY = re.compile(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (\d+)")


def findings(output: str) -> int | None:
    """Number of errors or hazards in the sanitizer's output; None where it gives no summary.

    >>> findings("========= ERROR SUMMARY: 0 errors")
    0
    """
    found = [int(number) for number in _SUMMARY.findall(output)]
    return sum(found) if found else None


def main(arguments: list[str]) -> int:
    """Runs every n-th case; 1 if one differs from its reference."""
    library = Library(Path(arguments[0]))
    every = int(arguments[1]) if len(arguments) > 1 else 1
    done = 0
    for kernel in KERNELS:
        cases = importlib.import_module(f"centermask_edge.kernels.cases.{kernel}")
        for case in cases.cases()[::every]:
            cases.check(library, case)
            done += 1
    sys.stdout.write(f"{done} cases on {library.device_name()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
