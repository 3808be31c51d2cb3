"""How the tensors of an ONNX graph hang together: who makes and reads them, what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

# Outputs of these are never below zero; of the second group only where no input is.
_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax"})
_KEEPS_SIGN = frozenset(
    {
        "Add", "AveragePool", "CMSpatialAttention", "Concat", "Flatten", "GatherElements",
        "GlobalAveragePool", "MaxPool", "Mul", "ReduceMean", "Reshape", "Resize", "Squeeze",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wiring:
    """Look-ups over one graph; the model must not change while they are used.

    Attributes:
        nodes: in their order, by name.
        producer: name of the node that makes a tensor.
        consumers: node name and input index of every reader of a tensor, in graph order.
        initializers: by name.
        floats: tensors known to be float32.
    """

    nodes: dict[str, onnx.NodeProto]
    producer: dict[str, str]
    consumers: dict[str, list[tuple[str, int]]]
    initializers: dict[str, onnx.TensorProto]
    floats: frozenset[str]

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for inputs and initializers."""
        name = self.producer.get(tensor)
        return None if name is None else self.nodes[name]

    def is_activation(self, tensor: str) -> bool:
        """True for a float tensor that depends on the picture."""
        maker = self.maker(tensor)
        constant = tensor in self.initializers or (
            maker is not None and maker.op_type == "Constant"
        )
        return tensor in self.floats and not constant

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """Value of an initializer or a ``Constant`` node, else None."""
        from onnx import helper, numpy_helper

        if tensor in self.initializers:
            return numpy_helper.to_array(self.initializers[tensor])
        maker = self.maker(tensor)
        if maker is None or maker.op_type != "Constant":
            return None
        value = helper.get_attribute_value(maker.attribute[0])
        return numpy_helper.to_array(value) if hasattr(value, "dims") else np.asarray(value)

    def never_negative(self) -> frozenset[str]:
        """Float tensors that cannot hold a value below zero, whatever the picture."""
        found = set()
        for node in self.nodes.values():
            if node.op_type == "Clip":
                low = self.constant(node.input[1]) if len(node.input) > 1 else None
                sure = low is not None and float(low) >= 0
            elif node.op_type in _KEEPS_SIGN:
                data = [i for i in node.input if i in self.floats and self.is_activation(i)]
                fixed = [i for i in node.input if i in self.floats and not self.is_activation(i)]
                data += [] if node.op_type == "CMSpatialAttention" else fixed
                sure = bool(data) and all(i in found for i in data)
            else:
                sure = node.op_type in _NEVER_NEGATIVE
            if sure:
                found.add(node.output[0])
        return frozenset(found)

    def downstream(self, op_type: str) -> frozenset[str]:
        """Tensors made by nodes of that kind, and everything computed from them."""
        found: set[str] = set()
        for node in self.nodes.values():
            if node.op_type == op_type or any(i in found for i in node.input):
                found.update(node.output)
        return frozenset(found)


def read_wiring(model: onnx.ModelProto) -> Wiring:
    """The look-ups of a model's main graph."""
    graph = model.graph
    consumers: dict[str, list[tuple[str, int]]] = {}
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            consumers.setdefault(tensor, []).append((node.name, index))
    return Wiring(
        {node.name: node for node in graph.node},
        {tensor: node.name for node in graph.node for tensor in node.output},
        consumers,
        {tensor.name: tensor for tensor in graph.initializer},
        frozenset(_float_tensors(model)),
    )


def _float_tensors(model: onnx.ModelProto) -> Iterator[str]:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            yield value.name
    yield from (t.name for t in inferred.initializer if t.data_type == onnx.TensorProto.FLOAT)


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)
