"""The TensorRT plugin library: how it is built, and what TensorRT-RTX needs to load it.

One library holds the kernels and three V3 plugins over them (``CMDecodeNMS``,
``CMPyramidRoIAlign``, ``CMSpatialAttention``; namespace ``centermask``, version ``1``). The host
gives it to ``registry.load_library``; it links neither libnvinfer nor a shared CUDA runtime.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from centermask_edge.errors import KernelError
from centermask_edge.kernels.build import (
    ROOMS,
    SOURCES,
    Recipe,
    cuda_recipe,
    driver_recipe,
    host_recipe,
    publish,
)
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.nvrtc import cubin, find_nvrtc, prefers_nvrtc
from centermask_edge.kernels.toolchain import NVCC_VARIABLE, find_nvcc, require_host_compiler
from centermask_edge.resources import cache_dir

PLUGINS = ("CMDecodeNMS", "CMPyramidRoIAlign", "CMSpatialAttention")
NAMESPACE, VERSION = "centermask", "1"
RTX_ALIAS = "libtensorrt_rtx.so"

_ROOM = "plugin"
_LINKER = (f"--version-script={SOURCES}/{_ROOM}/exports.map", "--exclude-libs,ALL", "-Bsymbolic")
_NO_UNDEFINED = ("-z,defs",)
_HEADER = "NvInferRuntime.h"
_HEADERS_VARIABLE = "CENTERMASK_EDGE_TENSORRT_INCLUDE"
_HEADER_PLACES = (
    "/usr/include/x86_64-linux-gnu",
    "/usr/include/aarch64-linux-gnu",
    "/usr/include",
    "/usr/local/tensorrt/include",
    "/opt/tensorrt/include",
    "/usr/src/tensorrt/include",
)


def _linker(for_nvcc: bool) -> tuple[str, ...]:
    options = (*_LINKER, *_NO_UNDEFINED)
    if not for_nvcc:
        return tuple(f"-Wl,{option}" for option in options)
    words = [word for option in options for word in option.split(",")]
    return tuple(flag for word in words for flag in ("-Xlinker", word))


def nvidia_headers() -> Path | None:
    """Folder of TensorRT's own headers: ``CENTERMASK_EDGE_TENSORRT_INCLUDE``, or a usual place.

    None where there are none; the library is then built against our own declaration of the
    interface, and behaves the same.

    Raises:
        KernelError: the folder that was named has no ``NvInferRuntime.h``.
    """
    named = os.environ.get(_HEADERS_VARIABLE)
    for place in (named,) if named else _HEADER_PLACES:
        if (Path(place) / _HEADER).is_file():
            return Path(place)
    if named:
        raise KernelError(
            f"{_HEADERS_VARIABLE}={named} has no {_HEADER}; name the folder that has it, or unset "
            "the variable to build without TensorRT's headers"
        )
    return None


def _cuda_base(architectures: Sequence[int] | None, sources: Path | None) -> Recipe:
    if find_nvcc() is None:
        raise KernelError(
            "no nvcc was found, and the TensorRT plugins need one: install the CUDA toolkit 12 or "
            "newer (JetPack has it in /usr/local/cuda), name it with "
            f"{NVCC_VARIABLE}=/path/to/nvcc, or do without it: pip install "
            "'centermask-edge[nvrtc]'; for a library that builds engines and runs none, add --host"
        )
    base = cuda_recipe(architectures, sources)
    headers = nvidia_headers()
    if headers is None:
        return base
    return replace(base, flags=(*base.flags, "-DCM_NVIDIA_HEADERS", "-isystem", str(headers)))


def plugin_recipe(
    host: bool = False,
    architectures: Sequence[int] | None = None,
    sources: Path | None = None,
) -> Recipe:
    """How the plugin library is built; :func:`centermask_edge.kernels.build.build` does it.

    Without nvcc, NVRTC makes the machine code where it is installed; see
    :func:`nvrtc_plugin_recipe`.

    Args:
        host: for the CPU: the plugins load, register and build engines all the same, and their
            ``enqueue`` works on CPU memory, as the harness of the tests needs it.
        architectures: compute capabilities as 10 * major + minor; all that nvcc knows where None.
        sources: the folder with ``include``, ``src`` and ``plugin``; the project's own where None.

    Raises:
        KernelError: the compiler is missing, or nvcc does not know an architecture.
    """
    if not host and prefers_nvrtc():
        return nvrtc_plugin_recipe(architectures, sources)
    base = host_recipe(sources) if host else _cuda_base(architectures, sources)
    return _with_plugins(base)


def nvrtc_plugin_recipe(
    architectures: Sequence[int] | None = None, sources: Path | None = None
) -> Recipe:
    """How the plugin library is built without nvcc: for one kind of GPU, whose code is compiled.

    Args:
        architectures: one compute capability as 10 * major + minor; of this GPU where None.
        sources: as in :func:`plugin_recipe`.

    Raises:
        KernelError: NVRTC or the C++ compiler is missing or refuses, or there is no one GPU to
            build for.
    """
    nvrtc, gpu = find_nvrtc(), find_gpu()
    if nvrtc is None:
        raise KernelError(
            "no NVRTC with its headers was found; install it with: "
            "pip install 'centermask-edge[nvrtc]'"
        )
    wanted = sorted(set(architectures or ([gpu.capability] if gpu else [])))
    if len(wanted) != 1:
        found = f"{len(wanted)} architectures were named" if wanted else "no GPU was found"
        raise KernelError(
            f"{found}, and NVRTC builds the plugins for one; name it, for example --arch 87, or "
            "install the CUDA toolkit for a library with several"
        )
    base = driver_recipe(sources)
    code = cubin(nvrtc, wanted[0], sources)
    return _with_plugins(replace(base, flags=(f'-DCM_CUBIN="{code}"', *base.flags)))


def _with_plugins(base: Recipe) -> Recipe:
    parts = sorted((base.sources / _ROOM).glob("*.cpp"))
    return replace(
        base,
        kind=f"plugin-{base.kind}",
        others=tuple(f"{_ROOM}/{part.name}" for part in parts),
        rooms=(*ROOMS, _ROOM),
        tail=(*base.tail, *_linker(for_nvcc=base.kind == "cuda")),
    )


def rtx_alias(library: Path) -> Path:
    """A tiny library named ``libtensorrt_rtx.so`` that stands for TensorRT-RTX, made once.

    The ONNX parser of TensorRT-RTX opens that name when it meets a plugin, and aborts the process
    where it is missing; the wheel only has ``libtensorrt_rtx.so.1``. Load the alias before, for
    the whole process: ``ctypes.CDLL(str(alias), mode=ctypes.RTLD_GLOBAL)``, with ``library``
    loaded already (importing the bindings does it) or found by the loader.

    Args:
        library: the file of TensorRT-RTX, ``.../libtensorrt_rtx.so.1``.

    Raises:
        KernelError: there is no such file or no C++ compiler, or it refuses.
    """
    if not library.is_file():
        raise KernelError(
            f"{library} does not exist, and TensorRT-RTX needs it; install it with: "
            "pip install 'centermask-edge[rtx]'"
        )
    compiler = require_host_compiler()
    flags = ("-shared", "-fPIC", f"-Wl,-soname,{RTX_ALIAS}", "-Wl,--no-as-needed")
    made_with = (compiler.signature, *flags, library.name)
    key = hashlib.sha256(repr(made_with).encode()).hexdigest()[:16]

    def link(partial: Path) -> None:
        command = [str(compiler.path), *flags, "-x", "c++", "/dev/null", "-x", "none"]
        command += [str(library), "-o", str(partial)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise KernelError(
                f"{compiler.path} cannot link {RTX_ALIAS}: {done.stderr.strip()[:200]}; put a "
                f"symbolic link of that name to {library} on LD_LIBRARY_PATH instead"
            )

    return publish(cache_dir() / "kernels" / f"rtx-alias-{key}.so", link)
