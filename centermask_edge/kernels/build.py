"""Compile the kernels into one shared library, once for each content.

A library's file name is the hash of everything it is made from: the sources, the flags and the
compiler's version. So a stale one is never loaded, two versions live side by side, and a build
that is interrupted leaves nothing that could be mistaken for a whole one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from centermask_edge.errors import KernelError
from centermask_edge.kernels.toolchain import (
    Compiler,
    require_host_compiler,
    require_nvcc,
    supported_architectures,
)
from centermask_edge.resources import cache_dir, project_file

# Turing, the two Amperes, Ada, Hopper, Thor and Blackwell; the last also as PTX for what follows.
ARCHITECTURES = (75, 86, 87, 89, 90, 110, 120)

_SUFFIXES = {".h", ".cu", ".cpp", ".map"}
ROOMS = ("include", "src")  # folders of the kernels alone
SOURCES = "{sources}"  # in a recipe's tail: the folder of the sources, which is not in its hash
_COMMON = ("-std=c++17", "-shared")
_WARNINGS = ("-Wall", "-Wextra")
HOST_FLAGS = (
    *_COMMON,
    *_WARNINGS,
    "-Werror",
    "-Wno-unknown-pragmas",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-U_FORTIFY_SOURCE",  # its checked longjmp takes a fibre's stack for a broken one
    "-DCM_HOST",
    "-x",
    "c++",
)
DRIVER_FLAGS = (
    *_COMMON,
    *_WARNINGS,
    "-Werror",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-DCM_DRIVER",
    "-x",
    "c++",
)
CUDA_FLAGS = (
    *_COMMON,
    "-O3",
    "-lineinfo",
    "--cudart=static",
    "--threads=0",
    "-Werror",
    "all-warnings",
    "-Xcompiler",
    ",".join((*_WARNINGS, "-fPIC", "-fvisibility=hidden")),
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a library is made from.

    Attributes:
        kind: ``host``, ``cuda`` or ``driver``; the start of the file's name.
        compiler: that builds it.
        flags: in order, without files.
        sources: the folder with ``include`` and ``src``.
        main: the file to compile, below ``sources``.
        others: more of them.
        rooms: folders below ``sources`` that it is made from, searched for headers.
        tail: flags that follow the files: libraries, and options of the linker.
    """

    kind: str
    compiler: Compiler
    flags: tuple[str, ...]
    sources: Path
    main: str = "src/all.cu"
    others: tuple[str, ...] = ()
    rooms: tuple[str, ...] = ROOMS
    tail: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Hash of compiler, flags and every source, 16 hexadecimal digits."""
        main = (self.sources / self.main).read_text(encoding="utf-8")
        made_with = (self.compiler.signature, *self.flags, *self.others, *self.tail, main)
        return content_key(self.sources, *made_with, rooms=self.rooms)

    @property
    def path(self) -> Path:
        """Where the library is, once built."""
        return cache_dir() / "kernels" / f"{self.kind}-{self.key}.so"

    def command(self, output: Path) -> list[str]:
        """The compiler's command line."""
        folders = [f"-I{self.sources / room}" for room in self.rooms]
        files = [str(self.sources / name) for name in (self.main, *self.others)]
        command = [str(self.compiler.path), *self.flags, *folders, "-o", str(output), *files]
        return [*command, *(flag.replace(SOURCES, str(self.sources)) for flag in self.tail)]


def content_key(sources: Path, *made_with: str, rooms: Sequence[str] = ROOMS) -> str:
    """Hash of every source and of what else decides the result, 16 hexadecimal digits."""
    digest = hashlib.sha256(repr(made_with).encode())
    for path in source_files(sources, rooms):
        digest.update(path.relative_to(sources).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def source_files(folder: Path, rooms: Sequence[str] = ROOMS) -> list[Path]:
    """The headers and sources in these rooms of the folder, sorted."""
    found = (p for room in rooms for p in (folder / room).rglob("*"))
    return sorted(p for p in found if p.suffix in _SUFFIXES)


def host_recipe(sources: Path | None = None) -> Recipe:
    """How the library that runs on the CPU is built.

    Raises:
        KernelError: there is no C++ compiler.
    """
    folder = project_file("kernels") if sources is None else sources
    return Recipe("host", require_host_compiler(), HOST_FLAGS, folder)


def driver_recipe(sources: Path | None = None) -> Recipe:
    """How the launchers are built for device code that NVRTC compiles.

    Raises:
        KernelError: there is no C++ compiler.
    """
    folder = project_file("kernels") if sources is None else sources
    return Recipe("driver", require_host_compiler(), DRIVER_FLAGS, folder, tail=("-ldl",))


def gencode(architectures: Sequence[int]) -> tuple[str, ...]:
    """Options for nvcc: machine code for each architecture, and PTX for the newest."""
    newest = max(architectures)
    flags = []
    for arch in sorted(set(architectures)):
        code = f"[sm_{arch},compute_{arch}]" if arch == newest else f"sm_{arch}"
        flags += ["-gencode", f"arch=compute_{arch},code={code}"]
    return tuple(flags)


def cuda_recipe(architectures: Sequence[int] | None = None, sources: Path | None = None) -> Recipe:
    """How the library for GPUs is built.

    Args:
        architectures: compute capabilities as 10 * major + minor; where None, those of
            ``ARCHITECTURES`` that this nvcc knows (older ones lack the newest).
        sources: the folder with ``include`` and ``src``; the project's own where None.

    Raises:
        KernelError: there is no nvcc, or it does not know an architecture that was asked for.
    """
    folder = project_file("kernels") if sources is None else sources
    nvcc = require_nvcc()
    known = supported_architectures(nvcc)
    wanted = [a for a in ARCHITECTURES if a in known] if architectures is None else architectures
    unknown = sorted(set(wanted) - known)
    if unknown or not wanted:
        raise KernelError(
            f"{nvcc.path} has no architecture {unknown or ARCHITECTURES}; it knows "
            f"{sorted(known)}: choose of these, or install a CUDA toolkit that has it"
        )
    return Recipe("cuda", nvcc, (*CUDA_FLAGS, *gencode(wanted)), folder)


def build(recipe: Recipe) -> Path:
    """The library's file, compiled unless it is in the cache; whole or not at all.

    Raises:
        KernelError: the compiler refuses, or the cache cannot be written.
    """
    return publish(recipe.path, lambda partial: _compile(recipe, partial))


def publish(path: Path, make: Callable[[Path], None]) -> Path:
    """The file at ``path``, made by ``make`` under another name unless it exists.

    Raises:
        KernelError: the folder cannot be written.
    """
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=f"{path.suffix}.partial", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise KernelError(
            f"cannot write the kernels' cache {path.parent}: {error.strerror}; "
            "name another folder with CENTERMASK_EDGE_CACHE"
        ) from None
    partial = Path(name)
    try:
        make(partial)
        with partial.open("rb") as built:
            os.fsync(built.fileno())
        partial.chmod(0o755)
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return path


def _compile(recipe: Recipe, output: Path) -> None:
    command = recipe.command(output)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return
    log = output.parent / f"{recipe.kind}-{recipe.key}.log"
    log.write_text(" ".join(command) + "\n" + done.stdout + done.stderr)
    lines = (done.stdout + done.stderr).splitlines()
    errors = [line.strip() for line in lines if "error" in line.lower()]
    first = (errors or lines or ["it said nothing"])[0]
    raise KernelError(
        f"{recipe.compiler.path} cannot build the kernels: {first}; the whole log is in {log}"
    )
