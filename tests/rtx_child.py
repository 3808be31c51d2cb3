"""Run in a process of its own: loads the plugin library into TensorRT-RTX and builds engines.

    python rtx_child.py LIBRARY ALIAS MODEL.onnx...

Prints one JSON object: what the registry has, and for each model the engine's size, the outputs as
the network has them, the layers that the build logged, and the errors.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

trt: Any = importlib.import_module("tensorrt_rtx_bindings")

TARGETS = ("SM86", "SM89", "SM120")


class Log(trt.ILogger):  # type: ignore[misc, unused-ignore]
    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []
        self.layers: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if int(severity) <= int(trt.ILogger.ERROR):
            self.errors.append(message)
        elif "LayerType" in message:
            self.layers += [line for line in message.splitlines() if "LayerType" in line]


def registered(library: str) -> dict[str, Any]:
    """Every creator of ours, with its fields; and whether plugins can be made of them."""
    registry = trt.get_plugin_registry()
    handle = registry.load_library(library)
    assert handle is not None
    ours = [c for c in registry.all_creators if c.plugin_namespace == "centermask"]
    names = {f"{c.name} {c.plugin_version}": [f.name for f in c.field_names] for c in ours}
    creator = registry.get_creator("CMPyramidRoIAlign", "1", "centermask")
    made = {}
    for name, value in (("output_size", 14), ("output_size", 33), ("outputsize", 14)):
        field = trt.PluginField(name, np.array([value], np.int32), trt.PluginFieldType.INT32)
        fields = trt.PluginFieldCollection([field])
        plugin = creator.create_plugin("made", fields, trt.TensorRTPhase.BUILD)
        kinds = (trt.PluginCapabilityType.CORE, trt.PluginCapabilityType.BUILD)
        made[f"{name}={value}"] = plugin is not None and all(
            plugin.get_capability_interface(kind) is not None for kind in kinds
        )
    return {"creators": names, "made": made}


def built(builder: Any, log: Log, model: Path) -> dict[str, Any]:
    """One engine for three GPUs, none of which is here."""
    log.errors, log.layers = [], []
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    answer: dict[str, Any] = {"size": 0, "outputs": {}, "parsed": parser.parse(model.read_bytes())}
    if answer["parsed"]:
        found = [network.get_output(i) for i in range(network.num_outputs)]
        answer["outputs"] = {t.name: [t.dtype.name, list(t.shape)] for t in found}
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.num_compute_capabilities = len(TARGETS)
        for index, target in enumerate(TARGETS):
            config.set_compute_capability(getattr(trt.ComputeCapability, target), index)
        config.add_optimization_profile(profile(builder, network))
        engine = builder.build_serialized_network(network, config)
        answer["size"] = 0 if engine is None else engine.nbytes
    return {**answer, "errors": log.errors, "layers": log.layers}


def profile(builder: Any, network: Any) -> Any:
    made = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        shape = network.get_input(index).shape
        if -1 in shape:
            sizes = ([n if k < 0 else k for k in shape] for n in (1, 2, 4))
            made.set_shape(network.get_input(index).name, *sizes)
    return made


def main(library: str, alias: str, *models: str) -> None:
    ctypes.CDLL(alias, mode=ctypes.RTLD_GLOBAL)
    log = Log()
    builder = trt.Builder(log)
    answer = registered(library)
    answer["registry_errors"] = list(log.errors)
    answer["models"] = {Path(m).stem: built(builder, log, Path(m)) for m in models}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
