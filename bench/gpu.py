"""Build, test and time the CUDA kernels on the GPU of this machine, in one go.

    make gpu                                     (on a machine with a GPU)
    PYTHONPATH=. python3 bench/gpu.py --rehearse --out rehearsal.json      (anywhere)

Needs nvcc, Python, torch and numpy; torchvision is compared with where it is installed. Writes one
JSON to bench/results/ and prints a table. Ends with 1 if a test failed or the sanitizer found
something, with 2 where there is no GPU. A rehearsal runs every line of it on the CPU with tiny
sizes: its figures mean nothing, and it writes only where --out says.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_frames import frame_runs
from gpu_jobs import REHEARSAL, Job, Scale, all_jobs
from gpu_report import table, targets
from gpu_sanitize import findings
from gpu_timing import CpuTimer, GpuTimer, Timer, compare, copy_bandwidth

from centermask_edge.errors import KernelError
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.library import Library, load_cuda, load_host
from centermask_edge.kernels.verify import KERNELS, verify

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
BUDGET_S = 450.0
Result = dict[str, Any]


def environment(library: Library, built_s: float) -> Result:
    """What the figures belong to."""
    gpu = find_gpu()
    return {
        "gpu": library.device_name(),
        "capability": library.capability(),
        "driver_cuda": gpu.driver if gpu else None,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "kernels": library.path.name,
        "kernels_build_s": round(built_s, 1),
    }


def run_tests(library: Library, every: int) -> Result:
    """All cases of all kernels against their numpy references, on the library's device."""
    verdicts = [verdict for kernel in KERNELS for verdict in verify(library, kernel, every)]
    failures = [line for verdict in verdicts for line in verdict.failures]
    return {
        "passed": sum(verdict.cases for verdict in verdicts) - len(failures),
        "failures": failures,
        "rows": [dataclasses.asdict(verdict) for verdict in verdicts],
    }


def sanitize(library: Library, deadline: float) -> Result:
    """Each tool of compute-sanitizer over some cases: findings, or why it did not run."""
    found: Result = {}
    program = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        left = deadline - time.monotonic()
        if program is None or library.capability() == 0 or left < 10:
            why = "compute-sanitizer is not installed" if program is None else "no time left"
            found[tool] = {"skipped": "no GPU" if library.capability() == 0 else why}
            continue
        found[tool] = _run_tool(program, tool, library.path, min(left, 100.0))
    return found


def _run_tool(program: str, tool: str, library: Path, limit_s: float) -> Result:
    script = [sys.executable, str(ROOT / "bench" / "gpu_sanitize.py"), str(library), "3"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [program, "--tool", tool, *script],
            capture_output=True,
            text=True,
            timeout=limit_s,
            env=variables,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"not done within {limit_s:.0f} s"}
    output = done.stdout + done.stderr
    number = findings(output)
    if number is None or "cases on" not in output:
        return {"skipped": "it gave no summary: " + " ".join(output.split())[-400:]}
    entry: Result = {"findings": number, "exit_code": done.returncode}
    if number:
        entry["output"] = output[-4000:]
    return entry


def time_job(timer: Timer, job: Job, rounds: int, bandwidth: float) -> Result:
    """One row: times of every variant, the kernel's share of copy bandwidth, its speed-up."""
    times = compare(timer, job.variants, rounds, job.waiting)
    ours = times["kernel"]
    best = ours.warm_p50_us or ours.cold_p50_us
    others = {n: t for n, t in times.items() if n not in ("kernel", "again")}
    # Cold: the bytes then come from memory, as copy bandwidth does.
    return {
        "kernel": job.kernel,
        "name": job.name,
        "bytes": job.bytes,
        "note": job.note,
        "copy_fraction": job.bytes / (ours.cold_p50_us * 1e-6) / bandwidth,
        "bytes_per_s_warm": job.bytes / (best * 1e-6),
        "speedup": {n: t.cold_p50_us / ours.cold_p50_us for n, t in others.items()},
        "spread": abs(times["again"].cold_p50_us / ours.cold_p50_us - 1),
        "times": {name: dataclasses.asdict(t) for name, t in times.items()},
    }


def time_frames(timer: Timer, scale: Scale, rounds: int) -> list[Result]:
    """Whole frames of each network; those of a fixed size also as CUDA graphs."""
    rows = []
    for backbone in scale.backbones:
        runs = list(frame_runs(scale, backbone))
        waiting = [name for name, _, _ in runs if "fixed size" not in name]
        times = compare(timer, {name: run for name, run, _ in runs}, rounds, waiting)
        for name, _, note in runs:
            row = {"model": f"lite-{backbone.value}", "name": name, "note": note}
            rows.append({**row, "times": dataclasses.asdict(times[name])})
    return rows


def measure(library: Library, scale: Scale, built_s: float, rehearsal: bool) -> Result:
    """Everything, section by section, until the time is up."""
    start = time.monotonic()
    rounds = 1 if rehearsal else 30
    timer: Timer = CpuTimer() if rehearsal else GpuTimer()
    result: Result = {
        "rehearsal": rehearsal,
        "date": datetime.date.today().isoformat(),
        "environment": environment(library, built_s),
        "tests": run_tests(library, 9 if rehearsal else 1),
        "timings": [],
        "frames": [],
        "skipped": [],
    }
    size = 1 << 20 if rehearsal else 2 << 30
    bandwidth = copy_bandwidth(timer, scale.device, size, rounds)
    result["copy_bytes_per_s"] = bandwidth
    result["frames"] = time_frames(timer, scale, rounds)
    for job in all_jobs(scale, library):
        if time.monotonic() - start > BUDGET_S * 0.55:
            result["skipped"].append(f"{job.kernel}: {job.name}: no time left")
            continue
        result["timings"].append(time_job(timer, job, rounds, bandwidth))
    result["sanitizer"] = sanitize(library, start + BUDGET_S)
    result["targets"] = targets(result)
    result["seconds"] = round(time.monotonic() - start, 1)
    return result


def default_path(result: Result) -> Path:
    """bench/results/<GPU>-<date>.json."""
    slug = re.sub(r"[^a-z0-9]+", "-", result["environment"]["gpu"].lower()).strip("-")
    return RESULTS / f"{slug}-{result['date']}.json"


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(description="Build, test and time the CUDA kernels.")
    parser.add_argument("--out", type=Path, help="JSON file; bench/results/<GPU>-<date>.json")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, tiny, no figures")
    options = parser.parse_args(arguments)
    if options.rehearse and options.out is None:
        parser.error("--rehearse needs --out: a rehearsal is not a result")
    if not options.rehearse and (find_gpu() is None or not torch.cuda.is_available()):
        sys.stderr.write("error: no GPU found that torch can use; try --rehearse --out FILE\n")
        return 2
    start = time.monotonic()
    try:
        library = load_host() if options.rehearse else load_cuda()
    except KernelError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    scale = REHEARSAL if options.rehearse else Scale("cuda")
    result = measure(library, scale, time.monotonic() - start, options.rehearse)
    path = options.out or default_path(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    sys.stdout.write(table(result) + f"\nwritten: {path}\n")
    found = [entry.get("findings", 0) for entry in result["sanitizer"].values()]
    return 1 if result["tests"]["failures"] or any(found) else 0


if __name__ == "__main__":
    sys.exit(main())
