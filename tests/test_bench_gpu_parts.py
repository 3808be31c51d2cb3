"""The parts of the GPU bench that read, judge and time; a false torch.cuda stands in for a GPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_decode
import gpu_environment
import gpu_report
import gpu_rois
import gpu_sanitizer
import gpu_timing
import pytest
import torch
from gpu_job import REHEARSAL, make_boxes
from gpu_timing import CpuTimer, GpuTimer, compare

from centermask_edge.errors import KernelError
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.toolchain import find_nvcc

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("output", "code", "expected"),
    [
        ("9 of 9 cases on X\nERROR SUMMARY: 0 errors", 0, {"findings": 0}),
        ("9 of 9 cases on X\nERROR SUMMARY: 12 errors", 0, {"findings": 12}),
        (
            "RACECHECK SUMMARY: 3 hazards displayed (2 errors)\n9 of 9 cases on X",
            0,
            {"findings": 3},
        ),
        # A stray write ends the program: the finding must not be lost with it.
        ("Invalid __global__ write\nKernelError: 719\nERROR SUMMARY: 2 errors", 1, {"findings": 2}),
        ("Mismatch: y differs\nERROR SUMMARY: 0 errors", 1, {"failed": "the cases did not end"}),
        ("Segmentation fault", 139, {"failed": "the cases did not end"}),
        ("Error: Device not supported\nERROR SUMMARY: 1 error", 1, {"skipped": "it refuses"}),
        ("9 of 9 cases on X", 0, {"skipped": "it gave no summary"}),
    ],
)
def test_the_sanitizers_output_is_judged(output: str, code: int, expected: Any) -> None:
    found = gpu_sanitizer.judge(output, code)
    for key, value in expected.items():
        assert found[key] == value if isinstance(value, int) else found[key].startswith(value)
    assert {"skipped", "failed"} & set(found) == {"skipped", "failed"} & set(expected)


def test_a_tool_is_run_on_the_library_with_a_limit(tmp_path: Path, host: Library) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text('#!/bin/sh\nshift 2\n"$@" || exit\necho "ERROR SUMMARY: 0 errors"\n')
    program.chmod(0o755)
    found = gpu_sanitizer.run_tool(str(program), "memcheck", host.path, 60.0)
    assert found["findings"] == 0, found
    assert found["cases"].endswith("cases on host")
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    found = gpu_sanitizer.run_tool(str(program), "memcheck", host.path, 0.5)
    assert found["skipped"].startswith("TimeoutExpired")


def test_tools_wait_for_their_turn_and_for_time(monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = SimpleNamespace(capability=lambda: 90, path=Path("x.so"))
    monkeypatch.setattr(gpu_sanitizer, "find_sanitizer", lambda: None)
    found = gpu_sanitizer.sanitize(library, time.monotonic() + 1000)
    assert {e["skipped"] for e in found.values()} == {"compute-sanitizer is not installed"}
    monkeypatch.setattr(gpu_sanitizer, "find_sanitizer", lambda: "tool")
    monkeypatch.setattr(gpu_sanitizer, "run_tool", lambda *a: {"findings": 0, "limit": a[3]})
    found = gpu_sanitizer.sanitize(library, time.monotonic() + 50)
    assert all(e["limit"] <= 50 for e in found.values())
    found = gpu_sanitizer.sanitize(library, time.monotonic())
    assert {e["skipped"] for e in found.values()} == {"no time left"}


def row(kernel: str, name: str, **values: Any) -> dict[str, Any]:
    times = {"kernel": {"warm_p50_us": 50.0, "cold_p50_us": 70.0}}
    start = {"kernel": kernel, "name": name, "copy_fraction": 0.9, "speedup": {}, "failed": {}}
    return {**start, "times": times, **values}


def states(result: dict[str, Any]) -> list[tuple[str, float | None]]:
    return [(t["state"], t["value"]) for t in gpu_report.targets(result).values()]


def test_targets_take_the_worst_row() -> None:
    result: dict[str, Any] = {
        "timings": [
            row("spatial_attention", "K 4000, float16, NCHW"),
            row("spatial_attention", "K 4000, float32, NCHW", copy_fraction=0.7),
            row("roi_align", "K 50, float16, NCHW", speedup={"torchvision": 6.0}),
            row("roi_align", "K 50, int8, NCHW"),
            row("roi_align", "K 1000, float16, NCHW", speedup={"torchvision": 0.9}),
            row("decode_nms", "80 classes, 10000 candidates wanted"),
            row("preprocess", "1920x1080, BGR, batch 1"),
            row("preprocess", "1920x1080, BGR, batch 16", copy_fraction=0.5),
            row("mask_overlay", "1920x1080, 50 masks"),
        ],
        "sanitizer": {"memcheck": {"findings": 0}, "racecheck": {"findings": 0}},
    }
    assert states(result) == [
        ("missed", 0.7),
        ("missed", 0.5),
        ("met", 6.0),
        ("missed", 0.9),
        ("met", 50.0),
        ("met", pytest.approx(0.14)),
        ("met", 0.0),
    ]


@pytest.mark.parametrize(
    ("racecheck", "memcheck", "state"),
    [
        ({"findings": 0}, {"findings": 0}, "met"),
        ({"skipped": "no time left"}, {"findings": 0}, "not measured"),
        ({"skipped": "no time left"}, {"findings": 2}, "missed"),
        ({"failed": "died", "findings": 0}, {"findings": 0}, "not measured"),
    ],
)
def test_nothing_is_clean_that_was_not_looked_at(
    racecheck: dict[str, Any], memcheck: dict[str, Any], state: str
) -> None:
    result = {"sanitizer": {"memcheck": memcheck, "racecheck": racecheck}}
    assert states(result)[-1][0] == state


def test_one_of_two_halves_is_no_figure() -> None:
    result = {"timings": [row("preprocess", "1920x1080, BGR, batch 1")]}
    assert states(result)[5] == ("not measured", None)


def test_the_table_is_short_and_says_what_failed() -> None:
    rows = [row("roi_align", f"K {k}, float16, NCHW") for k in (1, 10, 50, 200, 1000)]
    times = {"cold_p50_us": 9000.0, "warm_p50_us": 4000.0}
    frame = {"model": "lite-v19", "name": "kernels, fp16", "note": "50 detections"}
    result: dict[str, Any] = {
        "rehearsal": False,
        "environment": {"gpu": "X"},
        "tests": {"passed": 7, "failures": ["roi_align: differs"]},
        "timings": rows,
        "frames": [
            {**frame, "times": times, "speedup": {"torch, fp32": 2.0}},
            {**frame, "failed": "OutOfMemoryError: much"},
        ],
        "sanitizer": {"memcheck": {"findings": 2, "cases": None}},
        "targets": {"a": {"state": "met", "value": 0.5}},
        "skipped": ["x: no time left"],
        "errors": {"bandwidth": "RuntimeError: no"},
    }
    text = gpu_report.table(result)
    assert "K 50," in text
    assert "K 10," not in text
    assert "9.00" in text
    assert "4.00 ms" in text
    assert "failed: OutOfMemoryError" in text
    assert "memcheck: 2 findings" in text
    assert "no bandwidth" in text
    assert text.count("FAULT") == 3


class Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return 0.5  # milliseconds


class Graph:
    def replay(self) -> None:
        pass


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """As much of torch.cuda as the timer uses; ``streams`` are those set after a failure."""
    state = SimpleNamespace(streams=[], captured=[])
    stream = SimpleNamespace(wait_stream=lambda other: None)

    @contextmanager
    def capture(graph: Graph) -> Iterator[None]:
        state.captured.append(graph)
        yield

    @contextmanager
    def on(stream: object) -> Iterator[None]:
        yield

    for name, value in {
        "Event": Event,
        "CUDAGraph": Graph,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "set_stream": state.streams.append,
        "synchronize": lambda: None,
        "stream": on,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda n, dtype, device: empty(16, dtype=dtype))
    return state


def test_the_gpu_timer_divides_by_the_runs_in_a_graph(cuda: SimpleNamespace) -> None:
    calls: list[int] = []
    found = compare(GpuTimer(), {"kernel": lambda: calls.append(1)}, 4).times["kernel"]
    assert found.cold_p50_us == 500.0
    assert found.warm_p50_us == found.warm_p95_us == 500.0 / gpu_timing.GRAPH_RUNS
    # Two to warm up, four cold, one before the capture, and those in the graph.
    assert len(calls) == 2 + 4 + 1 + gpu_timing.GRAPH_RUNS
    assert len(cuda.captured) == 1


def test_a_failed_capture_is_a_reason_and_the_stream_comes_back(cuda: SimpleNamespace) -> None:
    def run() -> None:
        if cuda.captured:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    found = compare(GpuTimer(), {"kernel": run}, 2).times["kernel"]
    assert found.warm_p50_us is None
    assert found.why_not_warm is not None
    assert "not permitted when stream is capturing" in found.why_not_warm
    assert len(cuda.streams) == 1


def test_variants_are_timed_in_turns() -> None:
    calls: list[str] = []
    runs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    found = compare(CpuTimer(), runs, 3, waiting=("b",)).times
    assert calls[4:10] == ["a", "b"] * 3
    assert found["a"].warm_p50_us is not None
    assert found["b"].warm_p50_us is None
    assert found["b"].why_not_warm == "it waits for the device"


def test_another_library_may_fail_but_not_the_kernel() -> None:
    def broken() -> None:
        raise KernelError("no")

    found = compare(CpuTimer(), {"kernel": lambda: None, "torch.compile": broken}, 1)
    assert set(found.times) == {"kernel"}
    assert found.failed == {"torch.compile": "KernelError: no"}
    with pytest.raises(KernelError):
        compare(CpuTimer(), {"kernel": broken}, 1)


def test_the_bandwidth_counts_bytes_read_and_written() -> None:
    timer: Any = SimpleNamespace(time_once=lambda run: 10.0)
    assert gpu_timing.copy_bandwidth(timer, "cpu", 1000, 3) == pytest.approx(2 * 1000 / 10e-6)


def test_cuobjdumps_resources_are_read() -> None:
    text = (
        "Fatbin elf code:\n Function cm_roi_align_linear_f32:\n  REG:40 STACK:0 SHARED:0 LOCAL:8 "
        "CONSTANT[0]:1000 TEXTURE:0\n Function other:\n  REG:1 STACK:0 SHARED:0 LOCAL:0\n"
    )
    found = gpu_environment.parse_resources(text)
    assert found == {
        "cm_roi_align_linear_f32": {"registers": 40, "stack": 0, "shared": 0, "local": 8}
    }


def test_a_gpu_newer_than_nvcc_takes_the_build_for_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(architectures: tuple[int, ...] | None = None) -> str:
        if architectures:
            raise KernelError(f"has no architecture {architectures}")
        return "all"

    monkeypatch.setattr(gpu_environment, "find_gpu", lambda: SimpleNamespace(capability=140))
    monkeypatch.setattr(gpu_environment, "load_cuda", load)
    assert str(gpu_environment.load_native()) == "all"
    assert "not built for this GPU alone" in capsys.readouterr().err
    monkeypatch.setattr(gpu_environment, "load_cuda", lambda a=None: a)
    assert tuple(gpu_environment.load_native()) == (140,)  # type: ignore[arg-type]


def test_the_build_for_all_is_left_out_without_time_or_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert gpu_environment.fat_build(5) == {"skipped": "no time left"}
    monkeypatch.setattr(gpu_environment, "prefers_nvrtc", lambda: True)
    assert gpu_environment.fat_build(100) == {"skipped": "there is no nvcc"}


@pytest.mark.skipif(find_nvcc() is None, reason="no nvcc")
def test_a_compiler_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = SimpleNamespace(command=lambda output: [sys.executable, "-c", "raise SystemExit(1)"])
    monkeypatch.setattr(gpu_environment, "cuda_recipe", lambda: recipe)
    assert gpu_environment.fat_build(100)["skipped"].startswith("CalledProcessError")


def test_a_level_is_never_read_more_than_once() -> None:
    few, many = (make_boxes(k, (608, 800), "cpu") for k in (10, 100_000))
    output = 128 * 14 * 14 * 4
    cells = sum((608 >> n) * (800 >> n) for n in (3, 4, 5)) * 128 * 4
    assert gpu_rois._moved(many, (608, 800), 4) == 100_000 * output + cells
    assert gpu_rois._moved(few, (608, 800), 4) < 10 * output + cells


def test_about_as_many_candidates_as_wanted() -> None:
    dense = gpu_decode.make_dense(REHEARSAL, 80, 100)
    found = sum(int((m.sigmoid() > 0.05).sum()) for m in dense.logits)
    assert 95 <= found <= 105
