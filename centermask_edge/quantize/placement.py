"""From a plan to places: which inputs of which nodes of one model get Q/DQ, on which scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from centermask_edge.errors import ConfigError
from centermask_edge.quantize.plan import Granularity, Plan, Quantize
from centermask_edge.quantize.wiring import Wiring, attribute, read_wiring

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Edge:
    """One input of one node, to be read through 8 bits."""

    node: str
    index: int
    tensor: str


@dataclass(frozen=True, slots=True)
class WeightSite:
    """A weight to be stored as int8: one tensor, however many nodes use it.

    Attributes:
        name: of the initializer.
        axis: of the output channels, each with its own scale; None for one scale.
        nodes: that read it.
    """

    name: str
    axis: int | None
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sites:
    """All places of one model.

    Attributes:
        edges: in graph order.
        weights: by first use.
        groups: the tensor that stands for a tensor's scale group; itself where it is alone.
        unsigned: tensors to be held as uint8.
    """

    edges: tuple[Edge, ...]
    weights: tuple[WeightSite, ...]
    groups: dict[str, str]
    unsigned: frozenset[str]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors with Q/DQ, each once, in graph order."""
        return tuple(dict.fromkeys(edge.tensor for edge in self.edges))

    def members(self) -> dict[str, tuple[str, ...]]:
        """Tensors with Q/DQ by group."""
        found: dict[str, list[str]] = {}
        for tensor in self.tensors:
            found.setdefault(self.groups[tensor], []).append(tensor)
        return {group: tuple(tensors) for group, tensors in found.items()}


def place(model: onnx.ModelProto, plan: Plan) -> Sites:
    """The places that a plan chooses in a model with float32 weights.

    Raises:
        ConfigError: the plan quantizes nothing, or keeps in float what the model does not have.
    """
    wiring = read_wiring(model)
    _check_names(plan, wiring)
    edges = tuple(_edges(wiring, plan))
    if not edges:
        raise ConfigError(
            f"the quantization plan {plan.name!r} chooses no operation of this model; "
            "its rules name no operator the model has, or keep_float holds everything"
        )
    groups = _groups(wiring, plan, [edge.tensor for edge in edges])
    unsigned = _unsigned(wiring, edges, groups) if plan.unsigned else frozenset()
    return Sites(edges, tuple(_weights(wiring, plan)), groups, unsigned)


def _check_names(plan: Plan, wiring: Wiring) -> None:
    from centermask_edge.quantize.plan import named

    plain = [p for p in plan.keep_float if not any(c in p for c in "*?[")]
    lost = [p for p in plain if not any(named(p, name) for name in wiring.nodes)]
    if lost:
        raise ConfigError(
            f"keep_float of the quantization plan {plan.name!r} names {lost[0]!r}, "
            "which is no node and no block of this model"
        )


def _edges(wiring: Wiring, plan: Plan) -> Iterator[Edge]:
    for node in wiring.nodes.values():
        kind = plan.quantize(node.op_type, node.name)
        for index in _indices(wiring, node, kind):
            tensor = node.input[index]
            if wiring.is_activation(tensor):
                yield Edge(node.name, index, tensor)


def _indices(wiring: Wiring, node: onnx.NodeProto, kind: Quantize) -> list[int]:
    if kind is Quantize.NONE:
        return []
    if kind is Quantize.DATA:
        return [0]
    if kind is Quantize.WEIGHTED:
        return [0] if _weight(wiring, node) else []
    data = [i for i, t in enumerate(node.input) if wiring.is_activation(t)]
    if kind is Quantize.RESIDUAL:
        # With a constant there is no branch that would have to be read from memory.
        return [] if len(data) < 2 else [i for i in data if i != _main(wiring, node, data)]
    return data


def _weight(wiring: Wiring, node: onnx.NodeProto) -> str | None:
    name = node.input[1] if len(node.input) > 1 else ""
    return name if name in wiring.initializers and name in wiring.floats else None


def _main(wiring: Wiring, node: onnx.NodeProto, indices: list[int]) -> int:
    """The input that is added where it is made: a convolution's only use, else the latest."""
    order = {name: i for i, name in enumerate(wiring.nodes)}

    def rank(index: int) -> tuple[bool, int]:
        tensor = node.input[index]
        maker = wiring.maker(tensor)
        alone = len(wiring.consumers[tensor]) == 1
        convolution = maker is not None and maker.op_type == "Conv" and alone
        return convolution, -1 if maker is None else order[maker.name]

    return max(indices, key=rank)


def _weights(wiring: Wiring, plan: Plan) -> Iterator[WeightSite]:
    users: dict[tuple[str, int | None], list[str]] = {}
    for node in wiring.nodes.values():
        if plan.quantize(node.op_type, node.name) is not Quantize.WEIGHTED:
            continue
        name = _weight(wiring, node)
        if name and wiring.is_activation(node.input[0]):
            axis = None if plan.weights is Granularity.TENSOR else _output_axis(node)
            users.setdefault((name, axis), []).append(node.name)
    for (name, axis), nodes in users.items():
        yield WeightSite(name, axis, tuple(nodes))


def _output_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "ConvTranspose":
        return 1
    return 0 if node.op_type != "Gemm" or attribute(node, "transB", 0) else 1


def _groups(wiring: Wiring, plan: Plan, tensors: list[str]) -> dict[str, str]:
    """The first tensor of its group for every tensor; union-find over the sharing nodes."""
    parent: dict[str, str] = {}

    def root(tensor: str) -> str:
        while parent.setdefault(tensor, tensor) != tensor:
            tensor = parent[tensor]
        return tensor

    for node in wiring.nodes.values():
        if plan.shares(node.op_type, node.name):
            ends = [t for t in (*node.input, *node.output) if t and wiring.is_activation(t)]
            for other in ends[1:]:
                parent[root(other)] = root(ends[0])
    names: dict[str, str] = {}
    return {t: names.setdefault(root(t), t) for t in tensors}


def _unsigned(wiring: Wiring, edges: tuple[Edge, ...], groups: dict[str, str]) -> frozenset[str]:
    positive = wiring.never_negative()
    mixed = {groups[e.tensor] for e in edges if e.tensor not in positive}
    return frozenset(e.tensor for e in edges if groups[e.tensor] not in mixed)
