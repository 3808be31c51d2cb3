"""The host build executes CUDA as written, and catches what hardware leaves undefined."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from centermask_edge.kernels.build import build, host_recipe
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.toolchain import find_host_compiler
from centermask_edge.resources import project_file

OVER_LIMIT, BARRIER, SHARED = -5, -20, -21
THREADS = 96
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def shim(cache: Path) -> Any:
    """The kernels of kernels/tests/shim.cu on this CPU."""
    if find_host_compiler() is None:
        pytest.skip("no C++ compiler")
    made = host_recipe(project_file("kernels"))
    path = build(type(made)("host", made.compiler, made.flags, made.sources, "tests/shim.cu"))
    library = Library(path)
    yield library
    library.configure_host()


def run(shim: Library, name: str, order: int = 0, per_thread: int = 1) -> tuple[int, Floats]:
    shim.configure_host(order=order)
    given = np.random.default_rng(0).normal(0, 1, THREADS).astype(np.float32)
    out = np.full(THREADS * per_thread, np.nan, np.float32)
    function = getattr(ctypes.CDLL(str(shim.path)), f"shim_{name}")
    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (given, out))
    return int(function(*pointers, ctypes.c_uint(THREADS))), out


VALUES = np.random.default_rng(0).normal(0, 1, THREADS).astype(np.float32)


@pytest.mark.parametrize("order", [0, 1, 2, 7])
def test_a_barrier_makes_neighbours_visible(shim: Library, order: int) -> None:
    code, out = run(shim, "neighbour", order)
    assert code == 0
    np.testing.assert_array_equal(out, np.roll(VALUES, -1))


@pytest.mark.parametrize("name", ["neighbour_without_barrier", "overwrite_without_barrier"])
def test_a_missing_barrier_shows_in_some_order(shim: Library, name: str) -> None:
    wrong = [order for order in (0, 1) if not same(run(shim, name, order)[1])]
    assert wrong


def same(out: Floats) -> bool:
    return bool(np.array_equal(out, np.roll(VALUES, -1)))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("some_leave_early", BARRIER),
        ("different_barriers", BARRIER),
        ("beyond_shared", SHARED),
        ("too_much_shared", OVER_LIMIT),
    ],
)
@pytest.mark.parametrize("order", [0, 1, 5])
def test_undefined_behaviour_is_an_error(shim: Library, name: str, code: int, order: int) -> None:
    assert run(shim, name, order)[0] == code
    assert run(shim, "neighbour", order)[0] == 0  # and the next launch is as good as new


def test_shared_memory_starts_as_nan(shim: Library) -> None:
    code, out = run(shim, "unwritten_shared")
    assert code == 0
    assert np.isnan(out).all()


@pytest.mark.parametrize("order", [0, 1, 3])
def test_warp_intrinsics(shim: Library, order: int) -> None:
    code, flat = run(shim, "warp", order, per_thread=6)
    assert code == 0
    out = flat.reshape(THREADS // 32, 32, 6)
    values, lane = VALUES.reshape(-1, 32), np.arange(32)
    wanted = [
        np.repeat(values[:, 5:6], 32, 1),
        values[:, lane ^ 3],
        values[:, np.where(lane + 4 < 32, lane + 4, lane)],
        values[:, np.where(lane >= 4, lane - 4, lane)],
        np.repeat((values > 0).sum(1, keepdims=True), 32, 1),
    ]
    for place, want in enumerate(wanted):
        np.testing.assert_array_equal(out[..., place], want)
    np.testing.assert_allclose(out[..., 5], np.repeat(values.sum(1, keepdims=True), 32, 1), 1e-5)
    assert (out[..., 5] == out[:, :1, 5]).all()


@pytest.mark.parametrize("order", [0, 1, 4])
def test_every_block_and_thread_runs_once(shim: Library, order: int) -> None:
    shim.configure_host(order=order)
    out = np.zeros(1 + 2 * 3 * 4 * 5, np.float32)
    place = ctypes.c_void_p(out.ctypes.data)
    assert ctypes.CDLL(str(shim.path)).shim_places(place, *map(ctypes.c_uint, (2, 3, 4, 5))) == 0
    blocks = np.arange(24)[:, None] * 1000 + np.arange(5)
    np.testing.assert_array_equal(out[1:].reshape(24, 5), blocks)
    assert out[0] == 120


def test_half_precision_is_ieee(shim: Library) -> None:
    shim.configure_host()
    every = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    random = np.random.default_rng(1).integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    finite = every[np.isfinite(every)]
    middle = (finite[:-1] + np.diff(finite) / 2).astype(np.float32)  # exactly between two halves
    edges = np.array([65519.996, 65520.0, 65504.0, 2**-24, 2**-25, 3e-8, -0.0], np.float32)
    given = np.concatenate((every, random, middle, np.nextafter(middle, np.float32(9)), edges))
    out = np.empty_like(given)
    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (given, out))
    assert ctypes.CDLL(str(shim.path)).shim_half(*pointers, len(given)) == 0
    with np.errstate(over="ignore", invalid="ignore"):
        want = given.astype(np.float16).astype(np.float32)
    nan = np.isnan(want)
    np.testing.assert_array_equal(np.isnan(out), nan)
    np.testing.assert_array_equal(out[~nan].view(np.uint32), want[~nan].view(np.uint32))


def test_launches_from_several_threads_take_turns(shim: Library) -> None:
    shim.configure_host()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: run(shim, "neighbour"), range(40)))
    assert all(code == 0 and same(out) for code, out in answers)
