"""The GPU bench, as far as it can be tried without a GPU: a rehearsal of the whole script."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu
import gpu_report
import pytest
from gpu_frames import Decode, Lite
from gpu_jobs import REHEARSAL, plain_torch
from gpu_sanitize import findings
from gpu_sanitize import main as sanitize_main
from gpu_timing import CpuTimer, compare

from centermask_edge.backbone import Backbone
from centermask_edge.config import PRESETS, DecodeConfig
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.library import Library
from centermask_edge.model import kernel_ops

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("host", "one_thread")


# Nothing but torch and numpy is there on the machine of `make gpu`.
BLOCKED = ("pydantic", "typer", "rich", "onnx", "onnxruntime", "openvino", "cv2", "PIL", "av")
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


def test_every_line_of_the_script_runs(rehearsal: tuple[int, Path, str]) -> None:
    code, path, output = rehearsal
    assert code == 0
    result = json.loads(path.read_text())
    assert result["rehearsal"] is True
    assert result["tests"]["failures"] == []
    assert {row["kernel"] for row in result["timings"]} == {
        "roi_align",
        "spatial_attention",
        "decode_nms",
        "preprocess",
        "mask_overlay",
    }
    assert {row["model"] for row in result["frames"]} == {"lite-v19-slim-dw"}
    assert len(result["frames"]) == 4
    assert result["skipped"] == []
    assert all(row["bytes"] > 0 for row in result["timings"])
    assert "REHEARSAL ON A CPU: no figure below means anything" in output


def test_a_rehearsal_meets_no_target(rehearsal: tuple[int, Path, str]) -> None:
    result = json.loads(rehearsal[1].read_text())
    assert {t["state"] for t in result["targets"].values()} == {"not measured"}
    assert all("skipped" in entry for entry in result["sanitizer"].values())


def test_a_rehearsal_is_never_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--rehearse"])
    assert "not a result" in capsys.readouterr().err


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main(["--out", str(tmp_path / "r.json")]) == 2
    assert capsys.readouterr().err.startswith("error: no GPU found")
    assert list(tmp_path.iterdir()) == []


def test_no_rehearsal_lies_among_the_results() -> None:
    for path in gpu.RESULTS.glob("*.json"):
        assert json.loads(path.read_text())["rehearsal"] is False


def test_the_sanitized_program_runs_by_itself(
    host: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sanitize_main([str(host.path), "15"]) == 0
    assert "cases on host" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0),
        ("========= ERROR SUMMARY: 12 errors", 12),
        ("========= RACECHECK SUMMARY: 3 hazards displayed (2 errors, 1 warning)", 3),
        ("Device not supported", None),
    ],
)
def test_the_sanitizers_summary_is_read(output: str, number: int | None) -> None:
    assert findings(output) == number


def row(kernel: str, name: str, **values: Any) -> dict[str, Any]:
    times = {"kernel": {"warm_p50_us": 50.0, "cold_p50_us": 70.0}}
    return {
        "kernel": kernel,
        "name": name,
        "copy_fraction": 0.9,
        "speedup": {},
        "times": times,
    } | values


def test_targets_take_the_worst_row() -> None:
    result: dict[str, Any] = {
        "timings": [
            row("spatial_attention", "K 4000, float16"),
            row("spatial_attention", "K 4000, float32", copy_fraction=0.7),
            row("roi_align", "K 50, float16", speedup={"torchvision": 6.0}),
            row("roi_align", "K 1000, float16", speedup={"torchvision": 0.9}),
            row("decode_nms", "80 classes, 10000 candidates wanted"),
        ],
        "sanitizer": {"memcheck": {"findings": 0}, "racecheck": {"skipped": "no time left"}},
    }
    found = [(t["state"], t["value"]) for t in gpu_report.targets(result).values()]
    assert found == [
        ("missed", 0.7),
        ("not measured", None),
        ("met", 6.0),
        ("missed", 0.9),
        ("met", 50.0),
        ("met", 0.0),
    ]


def test_failures_and_findings_decide_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result: dict[str, Any] = {
        "rehearsal": True,
        "environment": {"gpu": "host"},
        "tests": {"passed": 1, "failures": []},
        "sanitizer": {"memcheck": {"findings": 1}},
        "timings": [],
        "frames": [],
        "skipped": [],
        "targets": {},
    }
    monkeypatch.setattr(gpu, "measure", lambda *_: result)
    assert gpu.main(["--rehearse", "--out", str(tmp_path / "a.json")]) == 1
    result["sanitizer"] = {}
    assert gpu.main(["--rehearse", "--out", str(tmp_path / "b.json")]) == 0
    result["tests"]["failures"] = ["roi_align x: differs"]
    assert gpu.main(["--rehearse", "--out", str(tmp_path / "c.json")]) == 1


def test_the_result_is_named_after_gpu_and_date() -> None:
    found = gpu.default_path({"environment": {"gpu": "NVIDIA H200"}, "date": "2026-11-24"})
    assert found == ROOT / "bench" / "results" / "nvidia-h200-2026-11-24.json"


def test_variants_are_timed_in_turns() -> None:
    calls: list[str] = []
    found = compare(
        CpuTimer(),
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        3,
        waiting=("b",),
    )
    assert calls[4:10] == ["a", "b"] * 3
    assert found["a"].warm_p50_us is not None
    assert found["b"].warm_p50_us is None
    assert found["b"].why_not_warm == "it waits for the device"


def test_plain_torch_is_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_ops, "usable", lambda _: True)
    with plain_torch():
        assert kernel_ops.usable(None) is False  # type: ignore[arg-type]
    assert kernel_ops.usable(None) is True  # type: ignore[arg-type]


def test_the_plain_settings_are_the_presets() -> None:
    assert dataclasses.asdict(Decode()) == DecodeConfig().model_dump()
    for backbone in (Backbone.V19, Backbone.V39, *REHEARSAL.backbones):
        lite, want = Lite(backbone), PRESETS[f"lite-{backbone.value}"]
        for name in (f.name for f in dataclasses.fields(lite) if f.name != "decode"):
            assert getattr(lite, name) == getattr(want, name), name
