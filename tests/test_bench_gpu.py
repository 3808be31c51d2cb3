"""The GPU bench, as far as it can be tried without a GPU: a rehearsal of the whole script."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gpu
import gpu_job
import pytest
import torch
from gpu_decode import Decode
from gpu_frames import Lite
from gpu_job import REHEARSAL, Job, Run, plain_torch
from gpu_sanitize import in_turns
from gpu_sanitize import main as sanitize_main
from gpu_timing import CpuTimer

from centermask_edge.backbone import Backbone
from centermask_edge.config import PRESETS, DecodeConfig
from centermask_edge.errors import KernelError
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.verify import KERNELS
from centermask_edge.model import kernel_ops

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("host", "one_thread")


# Nothing but torch and numpy is there on the machine of `make gpu`.
BLOCKED = (
    *("pydantic", "typer", "rich", "pytest", "hypothesis", "torchvision", "safetensors"),
    *("onnx", "onnxruntime", "openvino", "cv2", "PIL", "av"),
)
PROGRAM = f"""
import runpy, sys
for name in {BLOCKED}: sys.modules[name] = None
sys.path.insert(0, "bench")
sys.argv[0] = "bench/gpu.py"
runpy.run_path("bench/gpu.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory, host: Library) -> tuple[int, Path, str]:
    """Exit code, JSON and output of a rehearsal."""
    path = tmp_path_factory.mktemp("gpu") / "r.json"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--rehearse", "--out", str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert path.is_file(), done.stderr
    return done.returncode, path, done.stdout


def test_every_section_of_the_script_runs(rehearsal: tuple[int, Path, str]) -> None:
    code, path, output = rehearsal
    result = json.loads(path.read_text())
    assert result["errors"] == {}
    assert result["skipped"] == []
    assert result["tests"]["failures"] == []
    assert result["rehearsal"] is True
    assert code == 0
    assert {row["kernel"] for row in result["timings"]} == set(KERNELS)
    assert all(row["failed"] == {} and row["bytes"] > 0 for row in result["timings"])
    assert {row["model"] for row in result["frames"]} == {"lite-v19-slim-dw"}
    assert len(result["frames"]) == 8
    assert "REHEARSAL ON A CPU: no figure below means anything" in output
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


def test_every_comparison_of_the_brief_is_there(rehearsal: tuple[int, Path, str]) -> None:
    result = json.loads(rehearsal[1].read_text())
    beside = {row["kernel"]: set(row["times"]) for row in result["timings"]}
    assert beside["spatial_attention"] == {"kernel", "again", "torch", "torch.compile"}
    assert beside["decode_nms"] == {"kernel", "again", "torch"}
    names = " ".join(row["name"] for row in result["timings"] if row["kernel"] == "roi_align")
    for part in ("float32", "float16", "int8, NCHW", "int8, CHW32", "channels last"):
        assert part in names
    times = result["timings"][0]["times"]["kernel"]
    assert set(times) == {
        *("cold_p50_us", "cold_p95_us", "warm_p50_us", "warm_p95_us", "why_not_warm"),
    }


def test_a_rehearsal_meets_no_target(rehearsal: tuple[int, Path, str]) -> None:
    result = json.loads(rehearsal[1].read_text())
    assert {t["state"] for t in result["targets"].values()} == {"not measured"}
    assert all("skipped" in entry for entry in result["sanitizer"].values())
    assert "memcheck: not run (no GPU)" in rehearsal[2]
    assert "0 findings" not in rehearsal[2]


def test_a_rehearsal_is_never_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--rehearse"])
    assert "not a result" in capsys.readouterr().err


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main(["--out", str(tmp_path / "r.json")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no GPU found")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_no_rehearsal_lies_among_the_results() -> None:
    for path in gpu.RESULTS.glob("*.json"):
        assert json.loads(path.read_text())["rehearsal"] is False


def test_the_sanitized_program_runs_by_itself(
    host: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sanitize_main([str(host.path), "15"]) == 0
    done, of, total = capsys.readouterr().out.split()[:3]
    assert (done, of) == (total, "of")


def test_the_sanitized_program_ends_in_time(
    host: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sanitize_main([str(host.path), "1", "-1"]) == 0
    assert capsys.readouterr().out.startswith("0 of ")


def test_the_sanitizer_sees_every_kernel_early() -> None:
    first = [module.__name__.rpartition(".")[2] for module, _ in in_turns(3)[: len(KERNELS)]]
    assert first == list(KERNELS)


def session(path: Path) -> gpu.Session:
    return gpu.Session(path, time.monotonic(), gpu.blank(True, {"gpu": "host"}))


def test_a_section_that_fails_costs_nothing_but_itself(tmp_path: Path) -> None:
    run = session(tmp_path / "r.json")

    def fails() -> None:
        run.result["tests"]["passed"] = 3
        raise ZeroDivisionError("an accident\nwith details")

    run.run("tests", fails)
    assert json.loads(run.partial.read_text())["tests"]["passed"] == 3
    run.run("frames", lambda: run.result["frames"].append("x"))
    run.publish()
    result = json.loads(run.path.read_text())
    assert result["errors"] == {"tests": "ZeroDivisionError: an accident"}
    assert result["frames"] == ["x"]
    assert not run.partial.exists()


def test_no_section_begins_without_time(
    tmp_path: Path, host: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "BUDGET_S", 0.0)
    run = session(tmp_path / "r.json")
    run.result["copy_bytes_per_s"] = 1e9
    gpu.run_tests(run, host, 9)
    gpu.time_backbones(run, CpuTimer(), REHEARSAL, 1)
    assert len(run.result["skipped"]) == len(KERNELS) + 1
    assert all(line.endswith("no time left") for line in run.result["skipped"])
    gpu._time_or_skip(run, CpuTimer(), Job("roi_align", "K 50", 1), 1)
    assert run.result["skipped"][-1] == "roi_align: K 50: no time left"
    assert run.result["timings"] == run.result["frames"] == []


def test_a_job_that_fails_leaves_the_others(
    tmp_path: Path, host: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise KernelError("code -7")

    def groups(*_: object) -> Any:
        good: dict[str, Run] = {"kernel": int, "again": int}
        bad = {**good, "kernel": broken}
        return {
            "a": iter([Job("a", "bad", 1, dict(bad)), Job("a", "good", 1, dict(good))]),
            "b": (1 // 0 for _ in range(1)),
            "c": iter([Job("c", "good", 1, dict(good))]),
        }

    monkeypatch.setattr(gpu, "job_groups", groups)
    run = session(tmp_path / "r.json")
    run.result["copy_bytes_per_s"] = 1e9
    gpu.time_jobs(run, CpuTimer(), REHEARSAL, host, 1)
    assert [row["kernel"] for row in run.result["timings"]] == ["a", "c"]
    assert set(run.result["errors"]) == {"a: bad", "jobs of b"}


def test_failures_and_findings_decide_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}

    def measure(run: gpu.Session, *_: object) -> None:
        run.result["tests"]["passed"] = 1
        run.result.update(found)

    monkeypatch.setattr(gpu, "measure", measure)
    command = ["--rehearse", "--out", str(tmp_path / "a.json")]
    assert gpu.main(command) == 0
    for bad in (
        {"sanitizer": {"memcheck": {"findings": 1}}},
        {"sanitizer": {"memcheck": {"failed": "the cases did not end"}}},
        {"tests": {"passed": 1, "failures": ["roi_align x: differs"]}},
        {"errors": {"frames": "RuntimeError: no"}},
        {"tests": {"passed": 0, "failures": []}},
    ):
        found = bad
        assert gpu.main(command) == 1, bad


def test_the_result_is_named_after_gpu_and_date() -> None:
    found = gpu.default_path("NVIDIA H200", "2026-11-24")
    assert found == ROOT / "bench" / "results" / "nvidia-h200-2026-11-24.json"


def test_plain_torch_is_without_kernels_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_ops, "usable", lambda _: True)
    with pytest.raises(ZeroDivisionError), plain_torch():
        assert kernel_ops.usable(torch.zeros(1)) is False
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert kernel_ops.usable(torch.zeros(1)) is True
    assert gpu_job._never(torch.zeros(1)) is False


def test_the_plain_settings_are_the_presets() -> None:
    assert dataclasses.asdict(Decode()) == DecodeConfig().model_dump()
    for backbone in (Backbone.V19, Backbone.V39, *REHEARSAL.backbones):
        lite, want = Lite(backbone), PRESETS[f"lite-{backbone.value}"]
        for name in (f.name for f in dataclasses.fields(lite) if f.name != "decode"):
            assert getattr(lite, name) == getattr(want, name), name
