"""The process that builds one engine, so that TensorRT's crashes and appetite stay in it.

    python -m centermask_edge.engines.tensorrt.builder_process < request.json

Answers with lines of JSON on its standard output: ``progress`` while it works, then ``done`` or
``error``. Whatever native code prints there goes to standard error instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import IO, Any

from centermask_edge.engines.tensorrt.api import (
    Api,
    Flavor,
    find_api,
    load_plugins,
    make_logger,
)
from centermask_edge.engines.tensorrt.layers import Layer, parse_block, parse_json, to_json
from centermask_edge.engines.tensorrt.request import Request
from centermask_edge.errors import CenterMaskError, ModelFileError

_BLOCK = "Layers:\n"
_SIZES = {"Total Activation Memory: ": "activation_bytes", "Total Weights Memory: ": "weight_bytes"}
_QUIET_FOR_S = 0.05  # between two reports of progress


class Journal:
    """Keeps every message of TensorRT in a file and what is needed of them in memory.

    Attributes:
        errors: texts of errors, oldest first.
        block: the layers, as the log tells them.
        sizes: bytes of memory, as the log tells them.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", errors="replace")
        self.errors: list[str] = []
        self.block = ""
        self.sizes: dict[str, int] = {}

    def __call__(self, severity: str, text: str) -> None:
        """A sink for :func:`centermask_edge.engines.tensorrt.api.make_logger`."""
        self._file.write(f"[{severity}] {text}\n")
        if severity != "verbose":
            self._file.flush()  # a crash must not take the reason with it
        if severity in ("error", "internal_error"):
            self.errors.append(" ".join(text.split()))
        if text.startswith(_BLOCK):
            self.block = text
        for start, name in _SIZES.items():
            if text.startswith(start):
                self.sizes[name] = int(text.removeprefix(start).split()[0])

    def close(self) -> None:
        """Forces the file to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class Answers:
    """Lines of JSON to the parent; what cannot be said any more is not said."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._last = 0.0

    def say(self, **content: Any) -> None:
        """Sends one line."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(json.dumps(content) + "\n")
            self._stream.flush()

    def progress(self, phase: str, step: int, steps: int) -> None:
        """Reports progress, but not more often than anyone looks."""
        now = time.monotonic()
        if step >= steps or now - self._last > _QUIET_FOR_S:
            self._last = now
            self.say(event="progress", phase=phase, step=step, steps=steps)


def build(request: Request, journal: Journal, answers: Answers) -> None:
    """Writes the engine and its layers.

    Raises:
        ModelFileError: TensorRT refuses the model; its first error is named.
        CenterMaskError: TensorRT is missing or refuses the plugins.
    """
    api = find_api(request.flavor)
    logger = make_logger(api, journal)
    builder = api.trt.Builder(logger)
    if builder is None:
        raise ModelFileError(_reason(api, journal, "cannot start"))
    load_plugins(api, Path(request.plugins))
    network = builder.create_network(_network_flags(api))
    _parse(api, network, logger, journal, request)
    config = _configured(api, builder, request, answers)
    _profile(builder, config, request)
    # TensorRT-RTX times nothing while it builds, and warns of the calls.
    timed = api.flavor is Flavor.TENSORRT and _use_timing_cache(config, Path(request.timing_cache))
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise ModelFileError(_reason(api, journal, "cannot build this model"))
    _write(Path(request.engine), serialized)
    if timed:
        _save_timing_cache(config, Path(request.timing_cache))
    layers = _layers(api, logger, serialized, journal)
    _write(Path(request.layers), to_json(layers).encode())


def _reason(api: Api, journal: Journal, what: str) -> str:
    first = journal.errors[0] if journal.errors else "it gave no reason"
    return f"{api.name} {what}: {first}"


def _network_flags(api: Api) -> int:
    """Strongly typed: a flag up to TensorRT 10, the only way from 11 on."""
    flags = api.trt.NetworkDefinitionCreationFlag
    typed = getattr(flags, "STRONGLY_TYPED", None)
    return 0 if typed is None else 1 << int(typed)


def _parse(api: Api, network: Any, logger: Any, journal: Journal, request: Request) -> None:
    parser = api.trt.OnnxParser(network, logger)
    if parser.parse(Path(request.model).read_bytes()):
        return
    texts = [parser.get_error(i).desc() for i in range(parser.num_errors)]
    journal.errors[:0] = [" ".join(text.split()) for text in texts]
    raise ModelFileError(_reason(api, journal, "does not take this model"))


def _configured(api: Api, builder: Any, request: Request, answers: Answers) -> Any:
    trt, config = api.trt, builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.workspace_mib is not None:
        size = request.workspace_mib << 20
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    if hasattr(trt.BuilderFlag, "TF32"):  # 10 bits of mantissa are not fp32
        config.clear_flag(trt.BuilderFlag.TF32)
    if request.capabilities and hasattr(config, "num_compute_capabilities"):
        config.num_compute_capabilities = len(request.capabilities)
        for index, capability in enumerate(request.capabilities):
            kind = getattr(trt.ComputeCapability, f"SM{capability}")
            config.set_compute_capability(kind, index)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, answers)
    return config


def _monitor(trt: Any, answers: Answers) -> Any:
    base: Any = trt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            answers.progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            answers.progress(phase_name, step + 1, self.steps.get(phase_name, step + 1))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self.steps.pop(phase_name, 1)
            answers.progress(phase_name, steps, steps)

    return Monitor()


def _profile(builder: Any, config: Any, request: Request) -> None:
    if request.fixed:
        return
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *(request.shape(i) for i in range(3)))
    profile.set_shape("image_size", *((request.batch[i], 2) for i in range(3)))
    config.add_optimization_profile(profile)


def _use_timing_cache(config: Any, path: Path) -> bool:
    content = b""
    with contextlib.suppress(OSError):
        content = path.read_bytes()
    # False: a cache of another device or version is refused, not silently used.
    if config.set_timing_cache(config.create_timing_cache(content), False):
        return True
    return bool(config.set_timing_cache(config.create_timing_cache(b""), False))


def _save_timing_cache(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is None:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        _write(partial, cache.serialize())
        partial.replace(path)


def _layers(api: Api, logger: Any, serialized: Any, journal: Journal) -> list[Layer]:
    """By the inspector where there is a GPU and it answers, else from the log."""
    if api.flavor is Flavor.TENSORRT:
        with contextlib.suppress(Exception):  # the layers are worth no failed build
            engine = api.trt.Runtime(logger).deserialize_cuda_engine(serialized)
            inspector = engine.create_engine_inspector()
            found = inspector.get_engine_information(api.trt.LayerInformationFormat.JSON)
            return parse_json(found)
    return parse_block(journal.block)


def _write(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def main() -> int:
    """Reads the request, builds, answers; 0 if there is an engine, 2 after an error it explained.

    A crash has any other code.
    """
    answers = Answers(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    request = Request.from_json(sys.stdin.read())
    journal = Journal(Path(request.log))
    start = time.monotonic()
    try:
        build(request, journal, answers)
    except CenterMaskError as error:
        answers.say(event="error", kind=type(error).__name__, message=str(error))
        return 2
    except OSError as error:
        text = f"cannot write {error.filename}: {error.strerror}"
        answers.say(event="error", kind="ModelFileError", message=text)
        return 2
    except Exception as error:  # a version of TensorRT that differs from those we know
        journal("error", traceback.format_exc())
        text = f"the builder failed with {type(error).__name__}: {error}; please report this"
        answers.say(event="error", kind="ModelFileError", message=text)
        return 3
    finally:
        journal.close()
    answers.say(event="done", seconds=time.monotonic() - start, **journal.sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
