"""How much memory a build will take, estimated before it starts, against what is free.

An estimate, not a bound: what TensorRT's tactics take differs from version to version. It is meant
to catch the build that cannot work, before a board without swap stops answering.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from centermask_edge.engines.tensorrt.api import Flavor
from centermask_edge.errors import ConfigError
from centermask_edge.graph.sizes import Footprint

MIB = 1 << 20
# TensorRT-RTX: resident size of the process that built the shipped model ahead of time for three
# architectures, 465 to 527 MiB, less its weights. TensorRT brings kernels and a CUDA context on
# top; not measured by this project.
BASE_MIB = {Flavor.RTX: 450, Flavor.TENSORRT: 1500}
# The ONNX file, the network made of it, the engine, and the engine once more as it is written.
_WEIGHT_COPIES = 4
# Tactics are timed on tensors of their own.
_ACTIVATION_COPIES = 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory of a build in MiB, part by part."""

    base: int
    weights: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.base + self.weights + self.activations + self.workspace


def estimate(flavor: Flavor, cost: Footprint, workspace_mib: int | None) -> Estimate:
    """What a build will take.

    Args:
        flavor: who builds.
        cost: of the model at its largest input.
        workspace_mib: that layers may use; where None, TensorRT limits itself to what is there.
    """
    return Estimate(
        BASE_MIB[flavor],
        -(-cost.weights * _WEIGHT_COPIES // MIB),
        -(-cost.activations * _ACTIVATION_COPIES // MIB),
        workspace_mib or 0,
    )


def check(needed: Estimate, free_mib: int | None) -> None:
    """Nothing, if the estimate fits what is free, or nobody knows what is.

    Raises:
        ConfigError: it does not; the largest part that can be lowered is named.
    """
    if free_mib is None or needed.total <= free_mib:
        return
    advice = {
        "--batch and --size": needed.activations,
        "--workspace": needed.workspace,
    }
    lower = max(advice, key=lambda name: advice[name])
    raise ConfigError(
        f"the build needs about {needed.total} MiB (TensorRT {needed.base}, weights "
        f"{needed.weights}, activations {needed.activations}, workspace {needed.workspace}) and "
        f"{free_mib} MiB are free: close other programs, add swap, lower {lower}, or build anyway "
        "with --ignore-memory"
    )


def free_memory_mib() -> int | None:
    """Memory of this computer that programs may still take, in MiB; None where it is not told.

    On a Jetson this is the GPU's memory, too. A container's limit counts.
    """
    available = _meminfo()
    limit = _container_limit()
    known = [value for value in (available, limit) if value is not None]
    return min(known) if known else None


def _meminfo(path: Path = Path("/proc/meminfo")) -> int | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = fields.get("MemAvailable")
    if found is None:
        return None
    swap = fields.get("SwapFree", "0 kB")
    return (int(found.split()[0]) + int(swap.split()[0])) // 1024


def _container_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        limit = (root / "memory.max").read_text(encoding="utf-8").strip()
        used = int((root / "memory.current").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return None if not limit.isdigit() else max(0, int(limit) - used) // MIB
