"""The one root of every error a user can cause, and the gate to optional packages."""

from __future__ import annotations

import importlib
from types import ModuleType


class CenterMaskError(Exception):
    """Something the user can fix: one line with what was found, what was wanted, what to do.

    The command line prints the line and exits with code 2; nothing else is caught there.
    """


class ConfigError(CenterMaskError):
    """An unknown preset, a value out of its range, a file of settings that cannot be read."""


class ModelFileError(CenterMaskError):
    """A model or checkpoint file that is missing, damaged or of another architecture."""


class SourceError(CenterMaskError):
    """A video, image, folder, camera or stream that cannot be read."""


class SinkError(CenterMaskError):
    """An output that cannot be written."""


class DatasetError(CenterMaskError):
    """An annotation file or image folder that does not hold what training needs."""


class KernelError(CenterMaskError):
    """A CUDA kernel that cannot be built, loaded or run with the arguments given."""


class MissingPackageError(CenterMaskError):
    """An optional package that this command needs is not installed."""


def require(module: str, *, extra: str, why: str) -> ModuleType:
    """The imported optional module, or one line that says how to install it.

    Args:
        module: import name, for example ``openvino``.
        extra: the extra of this package that installs it.
        why: what the user was doing, completing "... is needed to".

    Raises:
        MissingPackageError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.split(".")[0]
        if error.name is not None and error.name.split(".")[0] != top:
            raise
        raise MissingPackageError(
            f"{top} is not installed and is needed to {why}; "
            f"install it with: pip install 'centermask-edge[{extra}]'"
        ) from None
