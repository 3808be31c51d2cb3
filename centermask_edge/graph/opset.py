"""Our models moved from ONNX opset 17 to 19: what changed of the operators that they use.

From 18 on the axes of a reduction are an input and Split says into how many parts. Functions are
changed along, because a function's opset must be the model's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from centermask_edge.errors import ModelFileError

if TYPE_CHECKING:
    import onnx

_OLDEST, _NEWEST = 17, 19
_REDUCTIONS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"})


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators that a model is written in; 0 where it names none."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def raised(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A copy of a model in a newer opset, at most 19; the model itself where it is there already.

    Raises:
        ModelFileError: the model is older than what this toolkit writes.
    """
    found = opset_of(model)
    if found >= opset:
        return model
    if found < _OLDEST or opset > _NEWEST:
        raise ModelFileError(
            f"the model is in ONNX opset {found}; {_OLDEST} to {_NEWEST} can be moved to {opset}: "
            "export it again with this version"
        )
    result = type(model)()
    result.CopyFrom(model)
    for holder in (result, *result.functions):
        for entry in holder.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = opset
    for holder in (result.graph, *result.functions):
        nodes = list(_moved(holder.node))
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del holder.node[:]
        holder.node.extend(copies)
    result.ir_version = max(result.ir_version, 9)
    return result


def _moved(nodes: Iterable[Any]) -> Iterable[Any]:
    from onnx import helper

    for node in nodes:
        axes = next((a for a in node.attribute if a.name == "axes"), None)
        if node.op_type in _REDUCTIONS and axes is not None:
            name = f"{node.output[0]}/axes"
            yield helper.make_node("Constant", [], [name], name, value_ints=list(axes.ints))
            node.attribute.remove(axes)
            node.input.append(name)
        if node.op_type == "Split" and len(node.input) == 1:
            node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
        yield node
