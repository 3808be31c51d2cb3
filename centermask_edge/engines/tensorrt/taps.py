"""Intermediate tensors of the ONNX file as outputs, and the search for the first that diverges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from centermask_edge.engines.tensorrt.compare import Array, Compared
from centermask_edge.errors import require

if TYPE_CHECKING:
    import onnx

WIDTH = 16  # tensors marked at a time: more would keep the builder from fusing anything

# Rounding, types and places only: the tensor before or after says the same.
_NOT_TAPPED = frozenset(
    {
        *("Cast", "Constant", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity"),
        *("QuantizeLinear", "Reshape", "Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze"),
        "CMDecodeNMS",  # its outputs are the file's own
    }
)
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class Tap:
    """A tensor that can be looked at.

    Attributes:
        name: of the tensor.
        node: that makes it.
        op: its kind.
        per_object: whether it depends on which objects were found, so that its rows are theirs.
        before: the taps it is computed from, directly or not.
    """

    name: str
    node: str
    op: str
    per_object: bool = False
    before: frozenset[str] = frozenset()

    @property
    def output(self) -> str:
        """Name under which :func:`tapped` gives it out."""
        return f"tap/{self.name}"


def find_taps(model: onnx.ModelProto) -> list[Tap]:
    """The activations worth looking at, in the order in which they are computed."""
    objects: set[str] = set()
    before: dict[str, frozenset[str]] = {"image": frozenset()}  # of each live tensor
    taps = []
    for node in model.graph.node:
        if not any(name in before for name in node.input):
            continue
        known = frozenset().union(*(before.get(name, frozenset()) for name in node.input))
        per_object = bool(objects.intersection(node.input))
        if per_object or node.op_type == "CMDecodeNMS":
            objects.update(node.output)
        if node.op_type not in _NOT_TAPPED:
            taps.append(Tap(node.output[0], node.name, node.op_type, per_object, known))
            known |= {node.output[0]}
        before.update(dict.fromkeys(node.output, known))
    return taps


def depth_of(model: onnx.ModelProto) -> int:
    """Convolutions and matrix products on the longest way through the graph."""
    deep: dict[str, int] = {}
    for node in model.graph.node:
        before = max((deep.get(name, 0) for name in node.input), default=0)
        own = before + (node.op_type in _PRODUCTS)
        deep.update(dict.fromkeys(node.output, own))
    return max(deep.values(), default=0)


def tapped(model: onnx.ModelProto, taps: Sequence[Tap], types: dict[str, int]) -> onnx.ModelProto:
    """A copy with those tensors as further outputs, of those ONNX element types.

    The outputs are copies with names of their own: lowering then leaves the tensors themselves
    as they are.
    """
    from onnx import helper

    result = type(model)()
    result.CopyFrom(model)
    for tap in taps:
        node = helper.make_node("Identity", [tap.name], [tap.output], name=tap.output)
        result.graph.node.append(node)
        kind = types[tap.name]
        result.graph.output.append(helper.make_tensor_value_info(tap.output, kind, None))
    return result


def float_types(model: onnx.ModelProto, taps: Sequence[Tap]) -> dict[str, int]:
    """ONNX element types of those tensors that hold numbers of a float type."""
    onnx: Any = require("onnx", extra="tensorrt", why="look into a model")
    inferred = onnx.shape_inference.infer_shapes(model).graph
    wanted = {tap.name for tap in taps}
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    found = {v.name: v.type.tensor_type.elem_type for v in inferred.value_info}
    return {name: kind for name, kind in found.items() if name in wanted and kind in floats}


def first_divergence(
    taps: Sequence[Tap],
    measure: Callable[[list[Tap]], dict[str, Compared]],
    width: int = WIDTH,
) -> tuple[Tap | None, dict[str, Compared]]:
    """The first tensor that diverges, and all that were compared on the way to it.

    Each round looks at ``width`` tensors, evenly apart among those that may still be the one: what
    a tensor that agrees was computed from is taken to agree, and once one diverges, only what it
    was computed from can be to blame. Agreeing objects say nothing of the dense part, most of
    which they do not depend on.

    Args:
        taps: in order.
        measure: compares some; a tensor it cannot compare may be missing in its answer.
        width: tensors a round.
    """
    seen: dict[str, Compared] = {}
    looked: set[str] = set()
    worst: Tap | None = None
    while True:
        settled = looked | _agreeing(taps, seen)
        rest = [t for t in taps if t.name not in settled]
        if worst is not None:
            rest = [t for t in rest if t.name in worst.before]
        if not rest:
            return worst, seen
        chosen = [rest[i] for i in _spread(len(rest), width)]
        seen.update(measure(chosen))
        looked.update(tap.name for tap in chosen)
        worst = next((t for t in chosen if t.name in seen and not seen[t.name].agrees), worst)


def _agreeing(taps: Sequence[Tap], seen: dict[str, Compared]) -> set[str]:
    """What the tensors that agree were computed from.

    One that agrees although something before it diverges (a sigmoid that saturates, say) proves
    nothing.
    """
    wrong = {name for name, row in seen.items() if not row.agrees}
    objects = {tap.name for tap in taps if tap.per_object}
    agreeing: set[str] = set()
    for tap in taps:
        if tap.name in seen and tap.name not in wrong and not wrong & tap.before:
            agreeing |= tap.before & objects if tap.per_object else tap.before
    return agreeing


def _spread(count: int, width: int) -> list[int]:
    """At most ``width`` of the first ``count`` numbers, evenly apart, the last among them."""
    if count <= width:
        return list(range(count))
    return sorted({(i + 1) * count // width - 1 for i in range(width)})


def rows_of(array: Array, rows: Array, slots: int, picture: int = 0) -> Array | None:
    """The rows of a per-object tensor that belong to some objects of one picture.

    Args:
        array: (N * K, ...) or (N, K, ...).
        rows: of the objects, in 0..K.
        slots: K.
        picture: index in the batch.

    Returns:
        None where the tensor has neither of these shapes.
    """
    if array.ndim >= 2 and array.shape[1] == slots and array.shape[0] > picture:
        found: Array = array[picture][rows]
        return found
    if array.ndim >= 1 and array.shape[0] and array.shape[0] % slots == 0:
        found = array[rows + picture * slots]
        return found
    return None
