"""A model in fp16 by casts: the precision is in the file, engines only follow it.

Every float tensor becomes fp16 except islands that stay fp32:

* box decoding, its outputs, and whatever is computed from them (``image_size``, boxes, scores);
* statistics over many values: the normalisations and means;
* the graph's own inputs and outputs, so that a caller sees no difference.

Convolutions behind QuantizeLinear and DequantizeLinear stay as they are; the scales become fp16,
which ONNX allows from opset 19 on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from centermask_edge.errors import ModelFileError
from centermask_edge.graph.opset import raised
from centermask_edge.graph.scales import fp16_scales
from centermask_edge.graph.variants import ANY_ROI_ALIGN, DECODERS

if TYPE_CHECKING:
    import onnx

FP16_MAX = float(np.finfo(np.float16).max)
QDQ_OPSET = 19

STATISTICS = frozenset(
    {
        "GlobalAveragePool",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "ReduceMean",
        "ReduceSum",
    }
)
# Float inputs by index that have a type of their own, whatever the others are.
_OWN_TYPE: Mapping[str, frozenset[int]] = {
    "Resize": frozenset({1, 2}),
    "CMPyramidRoIAlign": frozenset({3, 5}),
    ANY_ROI_ALIGN: frozenset({0, 2}),
}
_NO_FLOATS_OUT = frozenset(
    {"Cast", "Shape", "Size", "Less", "Greater", "Equal", "QuantizeLinear", "Range", "NonZero"}
)


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether the model computes anything in 8 bits."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that can be changed without changing the first."""
    result = type(model)()
    result.CopyFrom(model)
    return result


def with_plain_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no weight is stored as fp16 behind a Cast to fp32."""
    from onnx import TensorProto, numpy_helper

    result = copied(model)
    graph = result.graph
    half = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    kept = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in half and _to(node) == TensorProto.FLOAT:
            array = numpy_helper.to_array(half[node.input[0]]).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        else:
            kept.append(node)
    replace_nodes(graph, kept)
    drop_unread_constants(graph)
    return result


def to_fp16(
    model: onnx.ModelProto, keep: Callable[[onnx.NodeProto], bool] = lambda node: False
) -> onnx.ModelProto:
    """The model with fp16 arithmetic; inputs, outputs, functions and metadata stay.

    Args:
        model: float32, with or without Q/DQ.
        keep: further nodes that shall compute in fp32.

    Raises:
        ModelFileError: a weight or scale does not fit fp16, and is named; or layers are deformable.
    """
    if any(node.op_type == "GridSample" for node in model.graph.node):
        raise ModelFileError(
            "the model has deformable layers, whose positions fp16 is too coarse for; use fp32, or "
            "the same body without -dcn"
        )
    plain = with_plain_weights(model)
    check_weights(plain)
    if is_quantized(plain):
        fp16_scales(plain)
        plain = raised(plain, QDQ_OPSET)
    _Lowering(plain, keep).run()
    drop_unread_constants(plain.graph)
    return plain


def check_weights(model: onnx.ModelProto) -> None:
    """Nothing, if every weight is a finite number in fp16.

    Raises:
        ModelFileError: one is not; it is named with its value.
    """
    for name, array in _float_constants(model.graph):
        largest = float(np.abs(array).max(initial=0))
        if not largest <= FP16_MAX:  # NaN, too
            raise ModelFileError(
                f"weight {name} reaches {largest:g} and fp16 ends at {FP16_MAX:g}; "
                "build with --precision fp32, or train with weight decay"
            )


def check_activations(maxima: Mapping[str, float]) -> None:
    """Nothing, if every activation seen fits fp16.

    Args:
        maxima: largest magnitude seen, by tensor.

    Raises:
        ModelFileError: some do not; the largest is named.
    """
    beyond = {name: value for name, value in maxima.items() if not value <= FP16_MAX}
    if beyond:
        worst = max(beyond, key=lambda name: beyond[name])
        raise ModelFileError(
            f"{len(beyond)} activations leave the range of fp16 ({FP16_MAX:g}); the largest is "
            f"{worst} with {beyond[worst]:g}: build with --precision fp32"
        )


def _float_constants(graph: onnx.GraphProto) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    from onnx import TensorProto, numpy_helper

    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        value = constant_value(node)
        if value is not None and value.dtype == np.float32:
            yield node.output[0], value


class _Lowering:
    """Rewrites one graph in place, node by node in order.

    ``half`` maps each activation to whether it is fp16 now. Of those that are not, ``soft`` ones
    do not ask their readers to be fp32, too. Constants are made in the type each reader wants.
    """

    def __init__(self, model: onnx.ModelProto, keep: Callable[[onnx.NodeProto], bool]) -> None:
        self.graph = model.graph
        self.keep = keep
        self.constants = dict(_float_constants(self.graph))
        self.floats = _float_tensors(model)
        self.half: dict[str, bool] = {}
        self.soft: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[tuple[str, bool], str] = {}

    def run(self) -> None:
        outputs = {o.name for o in self.graph.output if o.name in self.floats}
        for value in self.graph.input:
            if value.name in self.floats:
                self.half[value.name] = False
                if _rank(value) == 4:  # the picture; sizes stay exact
                    self.soft.add(value.name)
        for node in list(self.graph.node):
            self._lower(node, outputs)
        del self.graph.value_info[:]
        replace_nodes(self.graph, self.nodes)

    def _lower(self, node: onnx.NodeProto, outputs: set[str]) -> None:
        value = constant_value(node)
        if value is not None and value.dtype == np.float32:
            self.nodes.append(node)  # dropped at the end where nobody reads it
            return
        half = self._wants_half(node)
        own = _OWN_TYPE.get(node.op_type, frozenset())
        for index, name in enumerate(node.input):
            if index in own:
                node.input[index] = self._as(name, False)
            else:
                node.input[index] = self._as(name, half)
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            if name in self.floats and node.op_type not in _NO_FLOATS_OUT:
                self._output(node, index, name, half and name in outputs)
                self.half[name] = half and name not in outputs
                if node.op_type in STATISTICS or (half and name in outputs) or self.keep(node):
                    self.soft.add(name)

    def _output(self, node: onnx.NodeProto, index: int, name: str, widen: bool) -> None:
        if not widen:
            return
        node.output[index] = f"{name}/fp16"
        self.half[node.output[index]] = True
        self._cast(node.output[index], name, False)

    def _wants_half(self, node: onnx.NodeProto) -> bool:
        if node.op_type in DECODERS or node.op_type in STATISTICS or self.keep(node):
            return False
        own = _OWN_TYPE.get(node.op_type, frozenset())
        activations = [n for i, n in enumerate(node.input) if n in self.half and i not in own]
        return all(self.half[n] or n in self.soft for n in activations)

    def _as(self, name: str, half: bool) -> str:
        """The tensor in the wanted type, cast or made once for all readers."""
        from onnx import numpy_helper

        if (name, half) in self.made:
            return self.made[name, half]
        if name in self.constants:
            if not half:
                return name
            made = f"{name}/fp16"
            array = np.asarray(self.constants[name].astype(np.float16))
            self.graph.initializer.append(numpy_helper.from_array(array, made))
        elif name in self.half and self.half[name] != half:
            made = f"{name}/{'fp16' if half else 'fp32'}"
            self._cast(name, made, half)
        else:
            return name
        self.made[name, half] = made
        return made

    def _cast(self, source: str, target: str, half: bool) -> None:
        from onnx import TensorProto, helper

        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.nodes.append(helper.make_node("Cast", [source], [target], f"cast/{target}", to=kind))


def _float_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the float32 tensors of the main graph."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return frozenset(
        v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    )


def _rank(value: onnx.ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim)


def _to(node: onnx.NodeProto) -> int:
    return next(int(a.i) for a in node.attribute if a.name == "to")


def constant_value(node: onnx.NodeProto) -> np.ndarray[Any, Any] | None:
    """The value of a ``Constant`` node, None for any other."""
    from onnx import AttributeProto, helper, numpy_helper

    if node.op_type != "Constant" or not node.attribute:
        return None
    attribute = node.attribute[0]
    if attribute.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(attribute.t)
    kinds = {AttributeProto.FLOAT: np.float32, AttributeProto.FLOATS: np.float32}
    return np.asarray(helper.get_attribute_value(attribute), kinds.get(attribute.type, np.int64))


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Makes ``nodes``, some of which may be the graph's own, all of its nodes."""
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Removes nodes and constants that no output needs."""
    needed = {o.name for o in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            needed.update(node.input)
            kept.append(node)
    if len(kept) != len(graph.node):
        replace_nodes(graph, kept[::-1])
    drop_unread_constants(graph)


def drop_unread_constants(graph: onnx.GraphProto) -> None:
    """Removes weights and constants that nothing reads; other lowerings may still want the rest."""
    read = {name for node in graph.node for name in node.input}
    kept = [n for n in graph.node if n.op_type != "Constant" or n.output[0] in read]
    if len(kept) != len(graph.node):
        replace_nodes(graph, kept)
    used = [t for t in graph.initializer if t.name in read]
    if len(used) != len(graph.initializer):
        copies = [type(t).FromString(t.SerializeToString()) for t in used]
        del graph.initializer[:]
        graph.initializer.extend(copies)
