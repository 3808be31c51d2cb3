"""``kernels build``, ``check`` and ``status``: the CUDA kernels' compilers, cache and device."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from centermask_edge.cli.report import write_json
from centermask_edge.errors import KernelError
from centermask_edge.kernels.build import (
    Recipe,
    build,
    cuda_recipe,
    driver_recipe,
    host_recipe,
)
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.library import Library, load_cuda, load_host
from centermask_edge.kernels.nvrtc import cubin, find_nvrtc, prefers_nvrtc
from centermask_edge.kernels.plugin import nvrtc_plugin_recipe, plugin_recipe
from centermask_edge.kernels.toolchain import find_host_compiler, find_nvcc
from centermask_edge.kernels.verify import KERNELS, verify
from centermask_edge.resources import cache_dir


def application() -> typer.Typer:
    """The commands."""
    app = typer.Typer(help="The CUDA kernels: build them, or see what is there.")
    app.command("build")(build_command)
    app.command("check")(check_command)
    app.command("status")(status_command)
    return app


def _made(path: Path, start: float, was_there: bool) -> None:
    size = path.stat().st_size / 1e6
    how = "already there" if was_there else f"built in {time.monotonic() - start:.1f} s"
    typer.echo(f"{path}  {size:.1f} MB, {how}")


def _build(recipe: Recipe) -> Path:
    start, was_there = time.monotonic(), recipe.path.is_file()
    if not was_there:
        typer.echo(f"building the kernels with {recipe.compiler.path} ...", err=True)
    path = build(recipe)
    _made(path, start, was_there)
    return path


def _build_with_nvrtc(architectures: list[int]) -> None:
    nvrtc, gpu = find_nvrtc(), find_gpu()
    if nvrtc is None:
        raise KernelError(
            "no NVRTC with its headers was found; install it with: "
            "pip install 'centermask-edge[nvrtc]'"
        )
    if not architectures and gpu is None:
        raise KernelError(
            "no GPU was found, so NVRTC has nothing to build for; name an architecture, "
            "for example --arch 87"
        )
    _build(driver_recipe())
    for architecture in architectures or [gpu.capability if gpu else 0]:
        start = time.monotonic()
        _made(cubin(nvrtc, architecture), start, False)


def build_command(
    arch: Annotated[
        list[int] | None,
        typer.Option(help="Compute capability as 10 * major + minor, e.g. 87; may be repeated."),
    ] = None,
    host: Annotated[bool, typer.Option("--host", help="Build for the CPU, as tests do.")] = False,
    nvrtc: Annotated[
        bool, typer.Option("--nvrtc", help="Use NVRTC and the C++ compiler instead of nvcc.")
    ] = False,
    plugin: Annotated[
        bool, typer.Option("--plugin", help="Build the library of TensorRT plugins.")
    ] = False,
) -> None:
    """Build the kernels' library for every architecture that nvcc knows, or for those named."""
    if plugin:
        nvrtc_only = nvrtc and not host
        recipe = nvrtc_plugin_recipe(arch) if nvrtc_only else plugin_recipe(host, arch or None)
        Library(_build(recipe))
    elif host:
        Library(_build(host_recipe()))
    elif nvrtc or prefers_nvrtc():
        _build_with_nvrtc(arch or [])
    else:
        Library(_build(cuda_recipe(arch or None)))


def check_command(
    host: Annotated[
        bool, typer.Option("--host", help="The build for the CPU, not the GPU.")
    ] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the table as JSON, too.")
    ] = None,
) -> None:
    """Run every test case of every kernel on this GPU against its numpy reference."""
    if not host and find_gpu() is None:
        raise KernelError(
            "no GPU with a driver was found; the same cases run on the CPU with: "
            "centermask-edge kernels check --host"
        )
    library = load_host() if host else load_cuda()
    typer.echo(f"device: {library.device_name()}")
    typer.echo(f"{'kernel':<18}{'type':<9}{'cases':>6}{'failed':>7}  largest error")
    verdicts = []
    for kernel in KERNELS:
        for verdict in verify(library, kernel):
            verdicts.append(verdict)
            worst = "equal to the bit" if verdict.exact else f"{verdict.worst:.1e} {verdict.unit}"
            counts = f"{verdict.cases:>6}{len(verdict.failures):>7}"
            typer.echo(f"{verdict.kernel:<18}{verdict.kind:<9}{counts}  {worst}")
    if json_path is not None:
        rows = [dataclasses.asdict(verdict) for verdict in verdicts]
        write_json(json_path, {"device": library.device_name(), "rows": rows})
    failures = [line for verdict in verdicts for line in verdict.failures]
    if failures:
        more = f"; and {len(failures) - 1} more" if len(failures) > 1 else ""
        raise KernelError(
            f"the kernels compute wrong results on {library.device_name()}: {failures[0]}{more}; "
            "do not use them here, and please report this"
        )


def status_command() -> None:
    """Show compilers, the GPU, and the libraries in the cache."""
    gpu, nvcc, nvrtc, host = find_gpu(), find_nvcc(), find_nvrtc(), find_host_compiler()
    rows = [
        ("GPU", f"{gpu.name}, sm_{gpu.capability}, CUDA {gpu.driver}" if gpu else "none found"),
        ("nvcc", f"{nvcc.path}, {_version(nvcc.signature)}" if nvcc else "not found"),
        ("NVRTC", f"{nvrtc.version}, headers in {nvrtc.include}" if nvrtc else "not found"),
        ("C++", str(host.path) if host else "not found"),
        ("cache", str(cache_dir() / "kernels")),
    ]
    for name, text in rows:
        typer.echo(f"{name:<7}{text}")
    recipes = (
        (nvcc, cuda_recipe),
        (nvcc, plugin_recipe),
        (host, host_recipe),
        (host, driver_recipe),
        (host, partial(plugin_recipe, host=True)),
    )
    current = {recipe().path for compiler, recipe in recipes if compiler is not None}
    for path in sorted((cache_dir() / "kernels").glob("*")):
        if path.suffix in {".so", ".cubin"}:
            state = "current" if path in current else "other sources, flags or compiler"
            state = "for NVRTC" if path.suffix == ".cubin" else state
            typer.echo(f"       {path.name}  {path.stat().st_size / 1e6:.1f} MB  {state}")


def _version(signature: str) -> str:
    return signature.split("release ")[-1].split(",")[0]
