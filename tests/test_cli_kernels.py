from __future__ import annotations

import json
from pathlib import Path

import pytest

from centermask_edge.cli import main
from centermask_edge.kernels import toolchain
from centermask_edge.kernels.cases import spatial_attention
from centermask_edge.kernels.cases.compare import Mismatch
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.nvrtc import find_nvrtc
from centermask_edge.kernels.verify import KERNELS
from centermask_edge.resources import CACHE_VARIABLE


def test_build_for_the_host_says_where(host: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "build", "--host"]) == 0
    out = capsys.readouterr().out
    assert str(host.path) in out
    assert "already there" in out


@pytest.mark.skipif(find_nvrtc() is None, reason="no NVRTC")
def test_build_with_nvrtc(
    tmp_path: Path,
    host: Library,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert main(["kernels", "build", "--nvrtc", "--arch", "87"]) == 0
    built = sorted(path.name.split("-")[0] for path in (tmp_path / "kernels").iterdir())
    assert built == ["driver", "nvrtc"]
    assert "nvrtc-sm_87" in capsys.readouterr().out
    assert main(["kernels", "status"]) == 0
    assert "for NVRTC" in capsys.readouterr().out


@pytest.mark.skipif(find_nvrtc() is None or find_gpu() is not None, reason="needs NVRTC, no GPU")
def test_nvrtc_without_a_gpu_wants_an_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "build", "--nvrtc"]) == 2
    assert "no GPU was found" in capsys.readouterr().err


def test_status_tells_current_from_stale(host: Library, capsys: pytest.CaptureFixture[str]) -> None:
    stale = host.path.with_name("host-0123456789abcdef.so")
    stale.write_bytes(b"old")
    try:
        assert main(["kernels", "status"]) == 0
    finally:
        stale.unlink()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["GPU", "nvcc", "NVRTC", "C++", "cache"]
    (current,) = (line for line in lines if host.path.name in line)
    (other,) = (line for line in lines if stale.name in line)
    assert current.endswith("current")
    assert other.endswith("other sources, flags or compiler")


def test_status_on_a_machine_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setenv("CXX", "/nowhere")
    monkeypatch.setenv(toolchain.NVCC_VARIABLE, "/nowhere")
    assert main(["kernels", "status"]) == 0
    out = capsys.readouterr().out
    assert out.count("not found") >= 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host"], "CXX=/nowhere does not run"),
        (["--arch", "90"], "nvcc"),
        (["--arch", "ninety"], "--arch"),
    ],
)
def test_what_is_missing_is_one_line(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CXX", "/nowhere")
    monkeypatch.setenv(toolchain.NVCC_VARIABLE, "/nowhere")
    assert main(["kernels", "build", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_check_shows_every_kernel_and_its_largest_error(
    host: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kernels", "check", "--host", "--json", str(tmp_path / "check.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("device: host\n")
    rows = json.loads((tmp_path / "check.json").read_text())["rows"]
    assert {row["kernel"] for row in rows} == set(KERNELS)
    assert all(row["failures"] == [] and row["cases"] > 0 for row in rows)
    limits = {"float32": 1e-5, "float16": 2e-3, "int8": 1.0}
    assert all(row["worst"] <= limits[row["kind"]] for row in rows)
    assert all(row["worst"] == 0 for row in rows if row["exact"])
    # An error of nothing at all would mean that nothing was compared.
    assert all(row["worst"] > 0 for row in rows if not row["exact"] and row["kind"] != "int8")
    assert out.count("equal to the bit") == sum(row["exact"] for row in rows)


def test_check_ends_with_an_error_where_a_kernel_is_wrong(
    host: Library, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(library: Library, case: object) -> float:
        raise Mismatch("y: 3 of 4 differ")

    monkeypatch.setattr(spatial_attention, "check", wrong)
    monkeypatch.setattr("centermask_edge.cli.kernels.KERNELS", ("spatial_attention",))
    assert main(["kernels", "check", "--host"]) == 2
    error = capsys.readouterr().err
    assert "wrong results on host: spatial_attention" in error
    assert "y: 3 of 4 differ; and" in error
    assert error.count("\n") == 1


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_check_without_a_gpu_names_the_host_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "check"]) == 2
    assert "no GPU with a driver was found" in capsys.readouterr().err
