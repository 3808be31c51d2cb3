"""Build, test and time the CUDA kernels on the GPU of this machine, in one go.

    make gpu                                     (on a machine with a GPU)
    PYTHONPATH=. python3 bench/gpu.py --rehearse --out rehearsal.json      (anywhere)

Needs nvcc, Python, torch and numpy; torchvision is compared with where it is installed. Writes one
JSON to bench/results/ and prints a table. Ends with 1 if a test or a section failed or the
sanitizer found something, with 2 where there is no GPU. A rehearsal runs it on the CPU with tiny
sizes: its figures mean nothing, and it writes only where --out says.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_environment import environment, fat_build, load_native, resources
from gpu_frames import time_frames
from gpu_job import REHEARSAL, Job, Scale
from gpu_jobs import job_groups
from gpu_report import faults, table, targets
from gpu_sanitizer import sanitize
from gpu_timing import CpuTimer, GpuTimer, Timer, compare, copy_bandwidth, first_line

from centermask_edge.errors import KernelError
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.library import Library, load_host
from centermask_edge.kernels.verify import KERNELS, verify
from centermask_edge.model import kernel_ops

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
BUDGET_S = 450.0  # from the start of the script, the build included
Result = dict[str, Any]
# The share of the budget at which each section must have ended; the next one then has its turn.
ENDS = {"tests": 0.25, "bandwidth": 0.3, "frames": 0.45, "timings": 0.7, "sanitizer": 0.95}


class Session:
    """One run: its result so far, on disk after every section, and how much time is left.

    Args:
        path: of the JSON; until the end, its content is in a file beside it.
        start: when the script began, by ``time.monotonic``.
        result: what is known before the first section.
    """

    def __init__(self, path: Path, start: float, result: Result) -> None:
        self.path, self.start, self.result = path, start, result
        self.partial = path.with_name(path.name + ".partial")

    def left(self, section: str) -> float:
        """Seconds until the section must end."""
        return self.start + BUDGET_S * ENDS.get(section, 1.0) - time.monotonic()

    def run(self, section: str, work: Callable[[], None]) -> None:
        """The section's work; if it fails, that is a line of the result and the next goes on."""
        try:
            work()
        except Exception as fault:  # a lost result would cost the whole run
            self.result["errors"][section] = first_line(fault)
        self.result["seconds"] = round(time.monotonic() - self.start, 1)
        self.save()

    def save(self) -> None:
        """The result so far."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.partial.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")

    def publish(self) -> None:
        """The result under its own name."""
        self.save()
        self.partial.replace(self.path)


def run_tests(session: Session, library: Library, every: int) -> None:
    """All cases of all kernels against their numpy references, on the library's device."""
    tests = session.result["tests"]
    for kernel in KERNELS:
        if session.left("tests") <= 0:
            session.result["skipped"].append(f"tests of {kernel}: no time left")
            continue
        for verdict in verify(library, kernel, every):
            tests["passed"] += verdict.cases - len(verdict.failures)
            tests["failures"] += verdict.failures
            tests["rows"].append(dataclasses.asdict(verdict))


def time_job(timer: Timer, job: Job, rounds: int, bandwidth: float) -> Result:
    """One row: times of every variant, the kernel's share of copy bandwidth, its speed-up."""
    done = compare(timer, job.variants, rounds, job.waiting)
    ours = done.times["kernel"]
    others = {n: t for n, t in done.times.items() if n not in ("kernel", "again")}
    cold_rate = job.bytes / (ours.cold_p50_us * 1e-6)
    # Cold: the bytes then come from memory, as copy bandwidth does.
    return {
        "kernel": job.kernel,
        "name": job.name,
        "bytes": job.bytes,
        "note": job.note,
        "bytes_per_s": cold_rate,
        "copy_fraction": cold_rate / bandwidth,
        "speedup": {n: t.cold_p50_us / ours.cold_p50_us for n, t in others.items()},
        "speedup_warm": {
            n: t.warm_p50_us / ours.warm_p50_us
            for n, t in others.items()
            if t.warm_p50_us and ours.warm_p50_us
        },
        "spread": abs(done.times["again"].cold_p50_us / ours.cold_p50_us - 1),
        "failed": done.failed,
        "times": {name: dataclasses.asdict(t) for name, t in done.times.items()},
    }


def time_jobs(session: Session, timer: Timer, scale: Scale, library: Library, rounds: int) -> None:
    """Every job for which there is time; one that fails is named, and the next goes on."""
    for kernel, jobs in job_groups(scale, library).items():
        try:
            for job in jobs:
                _time_or_skip(session, timer, job, rounds)
        except Exception as fault:  # the next job could not be made; the next kernel's may be
            session.result["errors"][f"jobs of {kernel}"] = first_line(fault)


def _time_or_skip(session: Session, timer: Timer, job: Job, rounds: int) -> None:
    result, name = session.result, f"{job.kernel}: {job.name}"
    if session.left("timings") <= 0:
        result["skipped"].append(f"{name}: no time left")
        return
    try:
        result["timings"].append(time_job(timer, job, rounds, result["copy_bytes_per_s"]))
    except (KernelError, RuntimeError) as fault:
        result["errors"][name] = first_line(fault)


def time_backbones(session: Session, timer: Timer, scale: Scale, rounds: int) -> None:
    """Whole frames of each network."""
    for backbone in scale.backbones:
        if session.left("frames") <= 0:
            session.result["skipped"].append(f"frames of {backbone.value}: no time left")
            continue
        session.result["frames"] += time_frames(timer, scale, backbone, rounds)


def measure(session: Session, library: Library, scale: Scale) -> None:
    """Everything, section by section, until the time is up."""
    result, rehearsal = session.result, session.result["rehearsal"]
    rounds = 1 if rehearsal else 30

    def tests() -> None:
        run_tests(session, library, 9 if rehearsal else 1)

    def bandwidth() -> None:
        size = 1 << 20 if rehearsal else min(2 << 30, torch.cuda.mem_get_info()[0] // 8)
        timer: Timer = CpuTimer() if rehearsal else GpuTimer()
        result["copy_bytes_per_s"] = copy_bandwidth(timer, scale.device, size, rounds)

    def frames() -> None:
        time_backbones(session, CpuTimer() if rehearsal else GpuTimer(), scale, rounds)

    def timings() -> None:
        timer: Timer = CpuTimer() if rehearsal else GpuTimer()
        time_jobs(session, timer, scale, library, rounds)

    def watched() -> None:
        result["sanitizer"] = sanitize(library, time.monotonic() + session.left("sanitizer"))

    def build() -> None:
        result["resources"] = resources(library.path)
        result["fat_build"] = (
            {"skipped": "a rehearsal"} if rehearsal else fat_build(session.left("build"))
        )

    sections = (tests, bandwidth, frames, timings, watched, build)
    for name, work in zip((*ENDS, "build"), sections, strict=True):
        session.run(name, work)
    result["targets"] = targets(result)


def default_path(gpu: str, date: str) -> Path:
    """bench/results/<GPU>-<date>.json."""
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    return RESULTS / f"{slug}-{date}.json"


def blank(rehearsal: bool, facts: Result) -> Result:
    """A result in which nothing was measured yet."""
    return {
        "rehearsal": rehearsal,
        "date": datetime.date.today().isoformat(),
        "environment": facts,
        "tests": {"passed": 0, "failures": [], "rows": []},
        "timings": [],
        "frames": [],
        "sanitizer": {},
        "targets": {},
        "skipped": [],
        "errors": {},
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's text."""
    start = time.monotonic()
    parser = argparse.ArgumentParser(description="Build, test and time the CUDA kernels.")
    parser.add_argument("--out", type=Path, help="JSON file; bench/results/<GPU>-<date>.json")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, tiny, no figures")
    options = parser.parse_args(arguments)
    if options.rehearse and options.out is None:
        parser.error("--rehearse needs --out: a rehearsal is not a result")
    if not options.rehearse and (find_gpu() is None or not torch.cuda.is_available()):
        sys.stderr.write("error: no GPU found that torch can use; try --rehearse --out FILE\n")
        return 2
    try:
        library = load_host() if options.rehearse else load_native()
    except KernelError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if not options.rehearse:
        kernel_ops.use_library(library)
    result = blank(options.rehearse, environment(library, time.monotonic() - start))
    path = options.out or default_path(result["environment"]["gpu"], result["date"])
    session = Session(path, start, result)
    measure(session, library, REHEARSAL if options.rehearse else Scale("cuda"))
    session.publish()
    sys.stdout.write(table(result) + f"\nwritten: {path}\n")
    return 1 if faults(result) else 0


if __name__ == "__main__":
    sys.exit(main())
