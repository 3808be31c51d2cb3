"""TensorRT and TensorRT-RTX behind one thin adapter: what differs between versions is asked for.

Supported: TensorRT 10.3 to 11.x and TensorRT-RTX 1.7. Precision lives in the ONNX file and networks
are strongly typed, so nothing that TensorRT 11 removed is needed. The bindings are imported when
they are asked for, never before.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

from centermask_edge.errors import ConfigError, KernelError, MissingPackageError

Sink = Callable[[str, str], None]


class Flavor(str, Enum):
    """Which of the two; the values are those of ``--flavor``."""

    TENSORRT = "tensorrt"
    RTX = "rtx"

    @property
    def label(self) -> str:
        """As NVIDIA writes it."""
        return "TensorRT" if self is Flavor.TENSORRT else "TensorRT-RTX"


@dataclass(frozen=True, slots=True)
class Api:
    """One of the two, loaded.

    Attributes:
        flavor: which.
        trt: the module of its Python bindings.
        version: for example ``10.3.0`` or ``1.7.1.116``.
    """

    flavor: Flavor
    trt: Any
    version: str

    @property
    def name(self) -> str:
        """For tables and messages: ``TensorRT 10.3.0``."""
        return f"{self.flavor.label} {self.version}"


# With or without the metapackage that joins bindings and libraries.
_MODULES = {
    Flavor.TENSORRT: ("tensorrt", "tensorrt_bindings"),
    Flavor.RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_OLDEST = {Flavor.TENSORRT: (10, 3), Flavor.RTX: (1, 7)}
_ADVICE = {
    Flavor.TENSORRT: (
        "on a Jetson it comes with JetPack 6.1 or newer (make the virtual environment with "
        "--system-site-packages); elsewhere: pip install 'centermask-edge[tensorrt]'"
    ),
    Flavor.RTX: "pip install 'centermask-edge[rtx]'",
}
_loaded: set[tuple[Flavor, Path]] = set()
_lock = threading.Lock()


def find_api(flavor: Flavor | None = None) -> Api:
    """The bindings of one flavour; where None, TensorRT's if they are there, else TensorRT-RTX's.

    Raises:
        MissingPackageError: neither, or not the one asked for, is installed with its libraries.
        ConfigError: it is older than this toolkit supports.
    """
    failures: list[str] = []
    for candidate in Flavor if flavor is None else (flavor,):
        module = _import(candidate, failures)
        if module is not None:
            return _checked(Api(candidate, module, str(module.__version__)))
    if flavor is None:
        found = f" ({failures[0]})" if failures else ""
        raise MissingPackageError(
            f"neither TensorRT nor TensorRT-RTX can be loaded{found}; TensorRT: "
            f"{_ADVICE[Flavor.TENSORRT]}; TensorRT-RTX: {_ADVICE[Flavor.RTX]}"
        )
    found = failures[0] if failures else "no such package is installed"
    raise MissingPackageError(f"{flavor.label} cannot be loaded ({found}); {_ADVICE[flavor]}")


def _import(flavor: Flavor, failures: list[str]) -> ModuleType | None:
    for name in _MODULES[flavor]:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                failures.append(str(error))
        except (ImportError, OSError, RuntimeError) as error:  # bindings without their libraries
            failures.append(str(error).splitlines()[0] if str(error) else name)
        else:
            if hasattr(module, "Builder"):
                return module
            failures.append(f"{name} is installed without TensorRT's classes")
    return None


def _checked(api: Api) -> Api:
    oldest = _OLDEST[api.flavor]
    if version_tuple(api.version)[:2] < oldest:
        raise ConfigError(
            f"{api.name} is too old: {oldest[0]}.{oldest[1]} or newer is needed; "
            f"{_ADVICE[api.flavor]}"
        )
    return api


def version_tuple(version: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> version_tuple("10.3.0.post1")
    (10, 3, 0)
    """
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def make_logger(api: Api, sink: Sink) -> Any:
    """A logger that passes every message on.

    Args:
        api: whose logger.
        sink: called with the severity (``internal_error``, ``error``, ``warning``, ``info``,
            ``verbose``) and the text, from any thread. What it raises is dropped: an exception
            that enters TensorRT's C++ ends the process.
    """
    base: Any = api.trt.ILogger

    class Logger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            with contextlib.suppress(Exception):
                sink(str(severity).rsplit(".", 1)[-1].lower(), message)

    return Logger()


def load_plugins(api: Api, library: Path) -> None:
    """Makes the plugins known to the parser and the runtime of this process; later calls are free.

    Args:
        api: of the process; a logger should exist already, so that a refusal is heard.
        library: the plugin library of ``centermask-edge kernels build --plugin``.

    Raises:
        KernelError: it is missing, or TensorRT refuses it.
    """
    path = library.resolve()
    with _lock:
        if (api.flavor, path) in _loaded:
            return
        if not path.is_file():
            raise KernelError(
                f"plugin library not found: {library}; make it with: "
                "centermask-edge kernels build --plugin"
            )
        if api.flavor is Flavor.RTX:
            load_rtx_alias()
        try:
            handle = api.trt.get_plugin_registry().load_library(str(path))
        except RuntimeError as error:
            raise KernelError(f"{api.name} refuses the plugin library {path}: {error}") from None
        if handle is None:
            raise KernelError(
                f"{api.name} refuses the plugin library {path}; remove it and run: "
                "centermask-edge kernels build --plugin"
            )
        _loaded.add((api.flavor, path))


def load_rtx_alias() -> None:
    """Makes ``libtensorrt_rtx.so`` loadable under the name RTX's own parser asks for.

    The wheel ships the name with ``.1`` only; without this, the first plugin node in a file aborts
    the process. Elsewhere than on Linux there is nothing to do.

    Raises:
        KernelError: it cannot be built; there is no C++ compiler, for example.
    """
    library = _mapped("libtensorrt_rtx.so")
    if library is None:
        return
    from centermask_edge.kernels.plugin import rtx_alias

    alias = rtx_alias(library)
    try:
        ctypes.CDLL(str(alias), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise KernelError(f"cannot load {alias}: {error}; remove it and try again") from None


def _mapped(prefix: str) -> Path | None:
    """File of a library that this process has loaded; None where the system does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    paths = (Path(line.split(maxsplit=5)[-1]) for line in lines if prefix in line)
    return next((path for path in paths if path.name.startswith(prefix)), None)
