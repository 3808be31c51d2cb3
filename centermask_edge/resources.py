"""Files that come with the package, and the one folder outside it that is written to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from centermask_edge.errors import ConfigError, ModelFileError

_PACKAGE = Path(__file__).resolve().parent
CACHE_VARIABLE = "CENTERMASK_EDGE_CACHE"


def shipped_model() -> Path:
    """The model used where none is named: persons, trained by this project.

    Raises:
        ModelFileError: this installation does not hold it.
    """
    path = _PACKAGE / "_models" / "person.onnx"
    if not path.is_file():
        raise ModelFileError(
            f"the built-in model is missing ({path}); name another with --model, "
            "or install centermask-edge again"
        )
    return path


def project_file(*parts: str) -> Path:
    """A file or folder of ``kernels/``, ``calibration/`` or ``apps/``.

    The wheel carries them under ``_files/``, which is looked at first; a checkout has them beside
    the package.

    Args:
        parts: path below the project's root, for example ``"kernels", "sam.cu"``.

    Raises:
        ConfigError: neither place has it.
    """
    for root in (_PACKAGE / "_files", _PACKAGE.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise ConfigError(
        f"{'/'.join(parts)} is not part of this installation; install centermask-edge again"
    )


def cache_dir() -> Path:
    """Folder for what can be made again, by the custom of the system; it may not exist yet.

    ``CENTERMASK_EDGE_CACHE`` names another one.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "centermask-edge"


def recipe_file(name: str) -> Path:
    """A training recipe: one of the package's by name (``person``), or any json file by path.

    Raises:
        ConfigError: neither exists.
    """
    shipped = _PACKAGE / "recipes"
    for path in (shipped / f"{name}.json", Path(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(p.stem for p in shipped.glob("*.json")))
    raise ConfigError(f"unknown recipe {name!r}; give a json file or one of: {known}")
