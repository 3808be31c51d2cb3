"""The plugin library for building and running engines, and the key by which a manifest knows it."""

from __future__ import annotations

from pathlib import Path

from centermask_edge.kernels.build import build, content_key
from centermask_edge.kernels.plugin import plugin_recipe
from centermask_edge.resources import project_file

_ROOMS = ("include", "src", "plugin")


def kernels_key() -> str:
    """Hash of the sources of kernels and plugins, 16 hexadecimal digits.

    Of sources only: an engine holds the names, attributes and tensors of our plugins, and runs
    with a library that any compiler made of the same sources.
    """
    return content_key(project_file("kernels"), rooms=_ROOMS)


def find_plugins(*, for_gpu: bool) -> Path:
    """The plugin library, built if needed.

    Args:
        for_gpu: whether the engine is for the GPU of this machine, which needs the kernels to time
            and to run them. Building ahead of time launches nothing: the build for the CPU, which
            takes seconds, is enough.

    Raises:
        KernelError: there is no compiler for it, or it refuses.
    """
    return build(plugin_recipe(host=not for_gpu))
