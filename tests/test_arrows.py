"""The rooms of docs/architecture.md: each imports only rooms below it, and torch stays upstairs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "centermask_edge"

# From the bottom up. A module lying directly in the package is in the core.
ROOMS = (
    "core",
    "kernels",
    "data",
    "model",
    "evaluate",
    "train",
    "graph",
    "engines",
    "measure",
    "quantize",
    "live",
    "cli",
)
TORCH_ROOMS = {"model", "train"}
# Export traces the torch modules; evaluation of a checkpoint reports torch's version and threads.
TORCH_MODULES = {"centermask_edge.graph.trace", "centermask_edge.cli.evaluate"}
OPTIONAL = {
    *("av", "cv2", "faster_coco_eval", "onnx", "onnxruntime", "onnxsim", "openvino", "PIL"),
    *("cuda", "pycuda", "tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"),
    *("gi", "paho", "prometheus_client"),
}
LIGHT_ROOMS = {"core", "engines", "measure", "live", "cli"}
Found = tuple[str, bool]


def imports(source: str, module: str) -> Iterator[Found]:
    """Each imported dotted name with whether it is imported as the module itself is.

    ``require("torch", ...)`` counts as an import inside a function. A name imported only for
    type checkers counts as one, too: an arrow upwards is an arrow upwards.
    """
    tree = ast.parse(source)
    at_once = {id(node) for node in _statements_at_import(tree)}
    for node in ast.walk(tree):
        top = id(node) in at_once
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base]).rstrip(".")
            yield from ((f"{base}.{alias.name}", top) for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in {"require", "import_module"}:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, False


def _statements_at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _statements_at_import(child)


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def room(module: str) -> str:
    """The room of a dotted module name of this package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "core"


def upward(source: str, module: str) -> list[str]:
    """Imports of a module that point to a room above its own."""
    own = ROOMS.index(room(module))
    return [
        f"{module} ({room(module)}) imports {name} ({room(name)})"
        for name, _ in imports(source, module)
        if name.split(".")[0] == "centermask_edge" and ROOMS.index(room(name)) > own
    ]


def brings_torch(source: str, module: str) -> bool:
    """Whether a module imports torch, at once or later."""
    return any(name.split(".")[0] == "torch" for name, _ in imports(source, module))


def heavy(source: str, module: str) -> list[str]:
    """Optional packages that importing the module would bring."""
    found = (name.split(".")[0] for name, top in imports(source, module) if top)
    return [f"{module} imports {name}" for name in found if name in OPTIONAL]


def modules() -> list[tuple[str, str]]:
    """Dotted name and source of every module of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["centermask_edge", *path.relative_to(PACKAGE).with_suffix("").parts]
        found.append((".".join(parts), path.read_text(encoding="utf-8")))
    return found


# The package's own __init__ offers the library's shortest way in, and so reaches into any room.
ENTRANCES = {"centermask_edge.__init__", "centermask_edge.__main__"}


def test_every_folder_is_a_known_room() -> None:
    folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert len(folders) > 3
    assert folders <= set(ROOMS)


def test_rooms_import_only_rooms_below_them() -> None:
    wrong = [
        line for name, text in modules() if name not in ENTRANCES for line in upward(text, name)
    ]
    assert wrong == []


def test_torch_is_imported_only_where_it_is_allowed() -> None:
    wrong = [
        name
        for name, text in modules()
        if room(name) not in TORCH_ROOMS and name not in TORCH_MODULES and brings_torch(text, name)
    ]
    assert wrong == []


def test_the_run_time_rooms_import_optional_packages_late() -> None:
    wrong = [
        line for name, text in modules() if room(name) in LIGHT_ROOMS for line in heavy(text, name)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("from centermask_edge.live import draw", 1),
        ("def late():\n    import centermask_edge.cli.run", 1),
        ("from ..live.draw import paint", 1),
        ("from .base import Detections", 0),
        ("from centermask_edge import boxes", 0),
        ("from centermask_edge.graph.metadata import ModelMetadata", 0),
    ],
)
def test_an_upward_import_is_seen(source: str, count: int) -> None:
    assert len(upward(source, "centermask_edge.engines.openvino")) == count


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "def late():\n    from torch.nn import functional",
        "def late():\n    return require('torch', extra='train', why='train')",
    ],
)
def test_torch_is_seen_wherever_it_is_imported(source: str) -> None:
    assert brings_torch(source, "centermask_edge.live.pipeline")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx_bindings", "cuda.bindings", "pycuda"])
def test_gpu_packages_are_optional(name: str) -> None:
    assert heavy(f"import {name}", "centermask_edge.engines.tensorrt.api") != []


def test_an_optional_package_is_seen_only_at_import() -> None:
    late = "def late():\n    import cv2\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import openvino\n"
    assert heavy(late + typed, "centermask_edge.live.outputs.draw") == []
    assert heavy("try:\n    import cv2\nexcept ImportError:\n    pass", "centermask_edge.a") != []
