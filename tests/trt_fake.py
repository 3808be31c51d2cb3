"""A ``tensorrt`` module with the names of a real version's bindings and nothing behind them.

Whatever our code touches that the version does not have raises AttributeError, as it would there.
The names were recorded from the real bindings by ``tests/golden/tensorrt_api.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ("10.3.0", "10.16.1.11", "11.4.0.106")


def recorded(version: str) -> dict[str, Any]:
    """The recorded names of a version."""
    return dict(json.loads((GOLDEN / f"tensorrt-{version}.json").read_text(encoding="utf-8")))


@dataclass
class World:
    """What happened to the fake, and what its calls shall answer.

    Attributes:
        calls: ``Class.name`` with the arguments, in order.
        set: the last value given to ``Class.attribute``.
        answers: what a call of ``Class.name`` returns; None where it says nothing.
    """

    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    set: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)

    def called(self, name: str) -> list[tuple[Any, ...]]:
        """Arguments of every call of that name."""
        return [arguments for called, arguments in self.calls if called == name]


class Thing:
    """An object of one of the classes; knows the names that the class has and no other."""

    def __init__(self, kind: str, names: set[str], world: World) -> None:
        object.__setattr__(self, "_fake", (kind, names, world))

    def __getattr__(self, name: str) -> Any:
        kind, names, world = object.__getattribute__(self, "_fake")
        if name not in names:
            raise AttributeError(f"{kind} has no {name}")
        full = f"{kind}.{name}"
        if full in world.set:
            return world.set[full]
        if full in world.answers and not callable(world.answers[full]):
            return world.answers[full]

        def call(*arguments: Any) -> Any:
            world.calls.append((full, arguments))
            answer = world.answers.get(full)
            return answer(*arguments) if callable(answer) else answer

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        kind, names, world = object.__getattribute__(self, "_fake")
        if name not in names:
            raise AttributeError(f"{kind} has no {name}")
        world.set[f"{kind}.{name}"] = value


class Flag(int):
    """A member of an enumeration."""

    name: str


def _enumeration(kind: str, names: list[str]) -> type:
    members: dict[str, Any] = {}
    for number, name in enumerate(n for n in names if n not in ("name", "value")):
        members[name] = Flag(number)
        members[name].name = f"{kind}.{name}"
    return type(kind, (), members)


def _base(kind: str) -> type:
    """A class to derive from, as ILogger and IProgressMonitor are."""
    return type(kind, (), {"__init__": lambda self: None})


_DERIVED_FROM = ("ILogger", "IProgressMonitor")


def fake_tensorrt(version: str) -> tuple[ModuleType, World]:
    """The module of a version, and the record of what is done with it."""
    content, world = recorded(version), World()
    module = ModuleType("tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    for kind, names in content["classes"].items():
        made: Any
        if kind in _DERIVED_FROM:
            made = _base(kind)
        elif {"name", "value"} <= set(names):
            made = _enumeration(kind, names)
        else:
            made = _maker(kind, set(names), world)
        setattr(module, kind, made)
    registry = Thing("IPluginRegistry", set(content["classes"]["IPluginRegistry"]), world)
    module.get_plugin_registry = lambda: registry  # type: ignore[attr-defined]
    _answers(content["classes"], world)
    return module, world


def _maker(kind: str, names: set[str], world: World) -> Any:
    def make(*arguments: Any) -> Thing:
        world.calls.append((kind, arguments))
        return Thing(kind, names, world)

    return make


def _answers(classes: dict[str, list[str]], world: World) -> None:
    def thing(kind: str) -> Any:
        return lambda *arguments: Thing(kind, set(classes[kind]), world)

    world.answers.update(
        {
            "Builder.create_network": thing("INetworkDefinition"),
            "Builder.create_builder_config": thing("IBuilderConfig"),
            "Builder.create_optimization_profile": thing("IOptimizationProfile"),
            "Builder.build_serialized_network": b"an engine",
            "OnnxParser.parse": lambda content: True,
            "IBuilderConfig.create_timing_cache": thing("ITimingCache"),
            "IBuilderConfig.get_timing_cache": thing("ITimingCache"),
            "IBuilderConfig.set_timing_cache": lambda *a: True,
            "ITimingCache.serialize": lambda: b"timings",
            "IPluginRegistry.load_library": lambda path: object(),
            "Runtime.deserialize_cuda_engine": thing("ICudaEngine"),
            "ICudaEngine.create_engine_inspector": thing("EngineInspector"),
            "EngineInspector.get_engine_information": lambda kind: '{"Layers": ["a", "b"]}',
        }
    )
    world.answers["Builder.build_serialized_network"] = lambda *a: b"an engine"
