"""The layers of a built engine: types, memory layouts, reformats, and who computes in what.

TensorRT tells in two ways: as JSON from an inspector, where the engine can be deserialised, and as
a block of text at the end of a verbose build log, which needs no GPU. Both become :class:`Layer`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from centermask_edge.engines.tensorrt.manifest import LayerSummary

_DTYPES = {
    "float": "fp32", "fp32": "fp32", "half": "fp16", "fp16": "fp16", "int8": "int8",
    "int32": "int32", "int64": "int64", "bool": "bool", "uint8": "uint8", "bf16": "bf16",
    "bfloat16": "bf16", "fp8": "fp8", "int4": "int4",
}  # fmt: skip
_PARTS = ("Inputs", "Constants", "Outputs")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), (?:Location: \w+, )?Dimensions: \[(?P<shape>[^\]]*)\].*?"
    r"Datatype: (?P<dtype>\w+)(?:, Format: (?P<format>.*?))? ?\}"
)
_GENERATED = re.compile(r"__myl_(?P<words>[A-Za-z]+)_myl\d+_\d+$")
# What a generated kernel may consist of and still compute nothing.
_MOVES = frozenset({"Cast", "Copy", "Move", "Resh", "Tran"})
_CONVOLUTIONS = ("correlation", "conv", "implicitgemm")
_OTHER_PRODUCTS = ("gemm", "matmul", "fusion", "fc", "fully")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input, a constant or an output of a layer.

    Attributes:
        name: in the engine.
        dtype: ``fp32``, ``fp16``, ``int8`` and so on.
        format: memory layout in TensorRT's words.
        shape: -1 where it depends on the input.
    """

    name: str
    dtype: str
    format: str = ""
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer after fusion.

    Attributes:
        name: in the engine.
        type: in TensorRT's words.
        inputs: activations.
        constants: weights, where TensorRT lists them.
        outputs: activations.
        onnx: names of the nodes it was made from.
    """

    name: str
    type: str
    inputs: tuple[Tensor, ...] = ()
    constants: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    onnx: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """In which it computes: that of its first input, else output; empty where it has none."""
        tensors = (*self.inputs, *self.outputs)
        return tensors[0].dtype if tensors else ""

    @property
    def is_reformat(self) -> bool:
        """Whether it only changes type or memory layout."""
        if self.type.lower() == "reformat" or self.name.startswith("Reformatting CopyNode"):
            return True
        match = _GENERATED.match(self.name)
        if match is None:
            return False
        return set(re.findall("[A-Z][a-z]*", match["words"])) <= _MOVES

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution, not a deconvolution."""
        kind = self.type.lower()
        return any(word in kind for word in _CONVOLUTIONS) and "deconv" not in kind


def parse_block(text: str) -> list[Layer]:
    """The layers from the block that a verbose build log ends in."""
    lines = (line for line in text.splitlines() if line.startswith("Name: "))
    return [_from_line(line) for line in lines if ", LayerType: " in line]


def _from_line(line: str) -> Layer:
    head, _, rest = line.partition(", LayerType: ")
    inputs, constants, outputs = (_tensors(_section(rest, part)) for part in _PARTS)
    made_from = tuple(_ONNX_LAYER.findall(rest.rpartition("Metadata:")[2]))
    name, kind = head.removeprefix("Name: "), rest.split(",", 1)[0]
    return Layer(name, kind, inputs, constants, outputs, made_from)


def _section(line: str, name: str) -> str:
    """What lies between ``name: [`` and its closing bracket."""
    start = line.find(f", {name}: [")
    if start < 0:
        return ""
    start += len(name) + 5
    depth = 1
    for index in range(start, len(line)):
        depth += {"[": 1, "]": -1}.get(line[index], 0)
        if depth == 0:
            return line[start:index]
    return line[start:]


def _tensors(text: str) -> tuple[Tensor, ...]:
    found = []
    for match in _TENSOR.finditer(text):
        shape = tuple(int(n) if n.strip("-").isdigit() else -1 for n in _numbers(match["shape"]))
        found.append(Tensor(match["name"], _dtype(match["dtype"]), match["format"] or "", shape))
    return tuple(found)


def _numbers(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _dtype(word: str) -> str:
    return _DTYPES.get(word.lower(), word.lower())


def parse_json(text: str) -> list[Layer]:
    """The layers from the inspector's JSON of a whole engine.

    A build without detailed profiling lists names only; such layers have no tensors.
    """
    content = json.loads(text)
    return [_from_json(entry) for entry in content.get("Layers", [])]


def _from_json(entry: str | Mapping[str, Any]) -> Layer:
    if isinstance(entry, str):
        return Layer(entry, "")
    inputs, constants, outputs = (
        tuple(_json_tensor(t) for t in entry.get(part) or ()) for part in _PARTS
    )
    made_from = tuple(_ONNX_LAYER.findall(str(entry.get("Metadata", ""))))
    name, kind = str(entry.get("Name", "")), str(entry.get("LayerType", ""))
    return Layer(name, kind, inputs, constants, outputs, made_from)


def _json_tensor(entry: Mapping[str, Any]) -> Tensor:
    layout = str(entry.get("Format/Datatype") or entry.get("Format") or "")
    named = entry.get("Datatype")
    words = [str(named)] if named else layout.replace("/", " ").split()
    dtype = next((_DTYPES[w.lower()] for w in words if w.lower() in _DTYPES), "")
    shape = tuple(int(n) for n in entry.get("Dimensions") or ())
    return Tensor(str(entry.get("Name", "")), dtype, layout, shape)


def macs_by_dtype(layers: Iterable[Layer], macs: Mapping[str, int]) -> dict[str, int]:
    """Multiply-adds of convolutions by the type they are computed in.

    Args:
        layers: of the engine.
        macs: multiply-adds by name of the ONNX node. A node that no layer names counts as
            ``unknown``: TensorRT may have merged it.
    """
    makers: dict[str, Layer] = {}
    for layer in sorted(layers, key=_rank):
        for name in layer.onnx or (layer.name,):
            makers.setdefault(name, layer)
    found: Counter[str] = Counter()
    for name, count in macs.items():
        maker = makers.get(name)
        found[maker.dtype if maker is not None and _rank(maker) < 2 else "unknown"] += count
    return dict(found)


def _rank(layer: Layer) -> int:
    """0 for convolutions, 1 for what a convolution may have become, 2 for what lies around it."""
    if layer.is_convolution:
        return 0
    return 1 if any(word in layer.type.lower() for word in _OTHER_PRODUCTS) else 2


def summarise(
    layers: Sequence[Layer], macs: Mapping[str, int], memory: tuple[int, int] = (0, 0)
) -> LayerSummary:
    """The layers in figures.

    Args:
        layers: of the engine.
        macs: multiply-adds of the convolutions by name of the ONNX node.
        memory: bytes of activations and of weights that TensorRT reports.
    """
    return LayerSummary(
        count=len(layers),
        reformats=sum(layer.is_reformat for layer in layers),
        by_type=dict(Counter(layer.type for layer in layers)),
        by_dtype=dict(Counter(layer.dtype for layer in layers)),
        conv_macs=macs_by_dtype(layers, macs),
        activation_bytes=memory[0],
        weight_bytes=memory[1],
    )


def to_json(layers: Sequence[Layer]) -> str:
    """The text that is kept beside an engine."""
    return json.dumps([asdict(layer) for layer in layers], indent=1) + "\n"


def from_json(text: str) -> list[Layer]:
    """What :func:`to_json` wrote."""

    def tensors(entries: list[dict[str, Any]]) -> tuple[Tensor, ...]:
        return tuple(Tensor(e["name"], e["dtype"], e["format"], tuple(e["shape"])) for e in entries)

    return [
        Layer(
            e["name"], e["type"], tensors(e["inputs"]), tensors(e["constants"]),
            tensors(e["outputs"]), tuple(e["onnx"]),
        )
        for e in json.loads(text)
    ]  # fmt: skip
