"""The network's own code, recorded by torch.fx and run again with rounding in its place.

The operations of the ONNX file and those of the recorded graph come from the same lines of code:
a module's path, which of its runs, the kind of operation and its number in that run name one of
each. Frozen norms behind a convolution go into its weight before that is rounded, as they do on
export. All parameters stay the network's own.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from centermask_edge.errors import ConfigError
from centermask_edge.model.layers import FrozenBatchNorm2d
from centermask_edge.model.mask_heads import SpatialAttention
from centermask_edge.train.fake_quant import FakeQuantSpec, Operation, rounded_weight

_MODULES: dict[type[nn.Module], str] = {
    nn.Conv2d: "Conv",
    nn.ConvTranspose2d: "ConvTranspose",
    nn.Linear: "Gemm",
    nn.ReLU: "Relu",
    nn.ReLU6: "Clip",
    SpatialAttention: "CMSpatialAttention",
}
_FUNCTIONS: dict[Any, str] = {
    torch.cat: "Concat",
    operator.add: "Add",
    operator.mul: "Mul",
    F.max_pool2d: "MaxPool",
    F.interpolate: "Resize",
    F.relu: "Relu",
    F.hardsigmoid: "HardSigmoid",
}
_METHODS = {"mean": "ReduceMean", "flatten": "Flatten"}
TENSOR = "tensor"  # where a rounding node keeps the name of what it rounds
Quantizers = Mapping[str, nn.Module]
Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


class _Recorder(fx.Tracer):
    """Records a method; what is one operation in the ONNX file is one here."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        whole = isinstance(module, FrozenBatchNorm2d | SpatialAttention)
        return whole or super().is_leaf_module(module, name)


class RoundedLayer:
    """A convolution or linear layer with an int8 weight, and the frozen norm behind it if any."""

    __name__ = "rounded_layer"  # torch.fx asks for one where it tells of an error

    def __init__(self, layer: Layer, kept: tuple[int, ...], norm: FrozenBatchNorm2d | None) -> None:
        self.layer, self.kept, self.norm = layer, kept, norm

    def weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """The rounded weight and the bias as the INT8 file holds them."""
        weight: Tensor = self.layer.weight
        bias: Tensor | None = self.layer.bias
        if self.norm is not None:
            # The exporter's order of operations, so that weights agree to the last bit.
            norm = self.norm
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight = weight * factor.view(-1, 1, 1, 1)
            start = -norm.running_mean if bias is None else bias - norm.running_mean
            bias = start * factor + norm.bias
        return rounded_weight(weight, self.kept), bias

    def __call__(self, x: Tensor) -> Tensor:
        """What the layer gives for a float32 input."""
        weight, bias = self.weight_and_bias()
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, bias)
        stride, padding, groups = self.layer.stride, self.layer.padding, self.layer.groups
        assert not isinstance(padding, str) and set(self.layer.dilation) == {1}
        if isinstance(self.layer, nn.ConvTranspose2d):
            more = self.layer.output_padding
            return F.conv_transpose2d(x, weight, bias, stride, padding, more, groups)
        return F.conv2d(x, weight, bias, stride, padding, 1, groups)


def record(root: nn.Module, method: str = "forward") -> fx.Graph:
    """The operations of a method of a module, with paths relative to it."""
    recorder = _Recorder()
    recorder.traced_func_name = method
    return recorder.trace(root)


def operations(
    root: nn.Module, graph: fx.Graph, prefix: str
) -> Iterator[tuple[Operation, fx.Node]]:
    """Every operation that has a name in the ONNX file, with its node.

    Args:
        root: that the graph was recorded of.
        graph: recorded.
        prefix: the root's own path, with a dot behind; empty for the network.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for node in graph.nodes:
        kind = _kind(root, node)
        if kind is not None:
            stack = list(node.meta.get("nn_module_stack", {}))
            scope = stack[-1] if stack else ""
            path, _, run = scope.partition("@")
            module = f"{prefix}{path}" if path else prefix.removesuffix(".")
            index = counts[scope, kind]
            counts[scope, kind] += 1
            yield Operation(module, int(run or 0), kind, index), node


def _kind(root: nn.Module, node: fx.Node) -> str | None:
    if node.op == "call_module":
        return _MODULES.get(type(root.get_submodule(str(node.target))))
    if node.op == "call_method":
        return _METHODS.get(str(node.target))
    return _FUNCTIONS.get(node.target) if node.op == "call_function" else None


def insert_rounding(
    graph: fx.Graph,
    root: nn.Module,
    spec: FakeQuantSpec,
    quantizers: Quantizers,
    prefix: str = "",
) -> set[Operation]:
    """Put the rounding of a spec into a recorded graph; the operations that were found.

    Raises:
        ConfigError: an input that the operation does not have.
    """
    nodes = dict(operations(root, graph, prefix))
    rounded: dict[tuple[fx.Node, str], fx.Node] = {}
    for site in spec.activations:
        reader = nodes.get(site.operation)
        if reader is None:
            continue
        source = _input(reader, site.operation, site.input)
        key = source, site.group
        if key not in rounded:
            with graph.inserting_after(source):
                rounded[key] = _call(graph, quantizers[site.group], (source,))
                rounded[key].meta[TENSOR] = site.tensor
        _set_input(reader, site.operation, site.input, rounded[key])
    for weight in spec.weights:
        if weight.operation in nodes:
            _round_weight(graph, root, nodes[weight.operation], weight.kept)
    return spec.operations() & nodes.keys()


def _call(graph: fx.Graph, target: Callable[..., Any], args: tuple[Any, ...]) -> fx.Node:
    return graph.create_node("call_function", target, args, name="rounded")


def _inputs(node: fx.Node, kind: str) -> list[Any]:
    found = node.args[0] if kind == "Concat" else node.args
    assert isinstance(found, list | tuple)
    return list(found)


def _input(node: fx.Node, operation: Operation, index: int) -> fx.Node:
    inputs = _inputs(node, operation.kind)
    source = inputs[index] if index < len(inputs) else None
    if not isinstance(source, fx.Node):
        raise ConfigError(
            f"the quantization plan reads input {index} of {operation} through 8 bits, which "
            "training cannot: keep that node in float"
        )
    return source


def _set_input(node: fx.Node, operation: Operation, index: int, source: fx.Node) -> None:
    inputs = _inputs(node, operation.kind)
    inputs[index] = source
    rest = node.args[1:]
    node.args = (inputs, *rest) if operation.kind == "Concat" else tuple(inputs)


def _round_weight(graph: fx.Graph, root: nn.Module, node: fx.Node, kept: tuple[int, ...]) -> None:
    layer = root.get_submodule(str(node.target))
    assert isinstance(layer, Layer)
    behind, norm = _frozen_norm(root, node)
    with graph.inserting_after(node):
        merged = _call(graph, RoundedLayer(layer, kept, norm), node.args)
    for old in (behind, node):
        if old is not None:
            old.replace_all_uses_with(merged)
            graph.erase_node(old)


def _frozen_norm(
    root: nn.Module, node: fx.Node
) -> tuple[fx.Node, FrozenBatchNorm2d] | tuple[None, None]:
    """The frozen norm that alone reads a layer, if there is one."""
    users = [user for user in node.users if user.op == "call_module"]
    if len(node.users) == len(users) == 1:
        module = root.get_submodule(str(users[0].target))
        if isinstance(module, FrozenBatchNorm2d):
            return users[0], module
    return None, None
