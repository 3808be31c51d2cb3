"""For which GPUs an engine is built: the one that is here, or for TensorRT-RTX a list of others."""

from __future__ import annotations

import re
from dataclasses import dataclass

from centermask_edge.engines.tensorrt.api import Api, Flavor
from centermask_edge.errors import ConfigError
from centermask_edge.kernels.device import find_gpu

_NAME = re.compile(r"(?:sm_?)?(\d{2,3})$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """What an engine is built for.

    Attributes:
        capabilities: compute capabilities, 10 * major + minor, ascending.
        gpu: name of this machine's GPU where it is built for that; else empty.
        driver: newest CUDA version of its driver; else empty.
    """

    capabilities: tuple[int, ...]
    gpu: str = ""
    driver: str = ""

    @property
    def on_this_gpu(self) -> bool:
        """Whether it is built for the GPU that is here."""
        return bool(self.gpu)


def parse_targets(text: str | None) -> tuple[int, ...]:
    """Compute capabilities from ``sm86,sm89,sm120``; none for None or ``this``.

    Raises:
        ConfigError: a word that is no architecture.

    >>> parse_targets("sm86, 89,SM_120")
    (86, 89, 120)
    """
    if text is None or text.strip().lower() == "this":
        return ()
    found = []
    for word in text.split(","):
        match = _NAME.match(word.strip())
        if match is None:
            raise ConfigError(
                f"--target {word.strip() or text!r}: wanted 'this' or architectures such as "
                "sm86,sm89,sm120"
            )
        found.append(int(match[1]))
    return tuple(sorted(set(found)))


def ahead_of_time(api: Api) -> tuple[int, ...]:
    """Compute capabilities that this TensorRT builds for without having the GPU."""
    if api.flavor is not Flavor.RTX:
        return ()
    names = re.findall(r"\bSM(\d+)\b", " ".join(dir(api.trt.ComputeCapability)))
    return tuple(sorted(int(name) for name in names))


def choose_target(api: Api, wanted: tuple[int, ...]) -> Target:
    """What to build for.

    Args:
        api: that builds.
        wanted: compute capabilities; none means this GPU.

    Raises:
        ConfigError: there is no GPU, or this TensorRT cannot build for what is wanted.
    """
    gpu = find_gpu()
    here = None if gpu is None else Target((gpu.capability,), gpu.name, gpu.driver)
    known = ahead_of_time(api)
    if not wanted:
        return _here(api, here, known)
    if here is not None and wanted == here.capabilities and api.flavor is Flavor.TENSORRT:
        return here
    if api.flavor is Flavor.TENSORRT:
        raise ConfigError(
            f"{api.name} builds for the GPU of this machine only "
            f"({'there is none' if gpu is None else f'sm_{gpu.capability}'}); leave --target away "
            "on the device itself, or use --flavor rtx for desktop GPUs"
        )
    unknown = [f"sm{c}" for c in wanted if c not in known]
    if unknown:
        raise ConfigError(
            f"{api.name} cannot build for {', '.join(unknown)}; it knows "
            f"{', '.join(f'sm{c}' for c in known)}. Engines for Jetson and data-centre GPUs are "
            "built on the device with TensorRT"
        )
    return Target(wanted)


def _here(api: Api, here: Target | None, known: tuple[int, ...]) -> Target:
    if here is None:
        way = f"--target {','.join(f'sm{c}' for c in known)}" if known else "--flavor rtx --target"
        raise ConfigError(
            f"no GPU with a driver was found, and {api.name} was to build for it; build on the "
            f"device, or ahead of time for desktop GPUs with {way}"
        )
    if known and here.capabilities[0] not in known:
        raise ConfigError(
            f"{api.name} does not run on {here.gpu} (sm_{here.capabilities[0]}); "
            "use TensorRT: --flavor tensorrt"
        )
    return here
