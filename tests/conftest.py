from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_model
from hypothesis import settings

from centermask_edge.kernels.library import Library, load_host
from centermask_edge.kernels.toolchain import find_host_compiler
from centermask_edge.resources import CACHE_VARIABLE

# A busy core is no bug: how long an example takes decides nothing. Continuous integration takes
# the same examples every time, so that its answer is about the commit; a developer's run takes new
# ones.
settings.register_profile("centermask-edge", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("centermask-edge")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="session")
def host(cache: Path) -> Library:
    """The CUDA kernels, compiled for this CPU."""
    if find_host_compiler() is None:
        pytest.skip("no C++ compiler")
    return load_host()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file that finds the same three instances in every picture."""
    return tiny_model.save(tmp_path_factory.mktemp("tiny") / "tiny.onnx")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch with one thread: on tensors as small as the tests', a second one only waits, and on
    busy cores for long.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
