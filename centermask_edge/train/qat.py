"""CenterMask that rounds where an INT8 file does, for training against what 8 bits lose.

It is the network itself, with the same parameters under the same names; the learnt ranges come
on top. Its weights without them are an ordinary checkpoint. Rounding is in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, fx, nn

from centermask_edge.config import ModelConfig, TrainConfig
from centermask_edge.errors import ConfigError, ModelFileError
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.fcos import DensePredictions
from centermask_edge.train.fake_quant import ActivationQuantizer, FakeQuantSpec, Operation
from centermask_edge.train.rewiring import insert_rounding, record

QUANTIZED_FILE = "quantized.safetensors"  # weights and ranges: what an INT8 file is made from
_PREFIX, _SUFFIX = "ranges.", ".log2_range"
_DOT = "|"  # stands for the dot, which torch does not allow in names of modules


class _Rewired(nn.Module):
    """A part of the network that rounds, with the names of the one it stands for."""

    def __init__(self, part: nn.Module, prefix: str, whole: QuantizedCenterMask) -> None:
        super().__init__()
        for name, child in part.named_children():
            self.add_module(name, child)
        graph = record(part)
        self.found = whole.insert(graph, part, prefix)
        self.program = fx.Interpreter(part, graph=graph)

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the part computes, with rounding."""
        return self.program.run(*inputs)  # type: ignore[no-any-return]


class QuantizedCenterMask(CenterMask):
    """The network with rounding at the places of a spec.

    Args:
        model: whose parameters it takes over; its norms must be frozen ones.
        spec: where to round, and the initial ranges.

    Raises:
        ConfigError: the spec names an operation that the network does not have.
    """

    def __init__(self, model: CenterMask, spec: FakeQuantSpec) -> None:
        nn.Module.__init__(self)
        self.config, self.spec = model.config, spec
        self.backbone, self.fpn, self.head = model.backbone, model.fpn, model.head
        quantizers = {g.replace(".", _DOT): ActivationQuantizer(r) for g, r in spec.ranges.items()}
        graph = record(model, "dense")
        self.ranges = nn.ModuleDict()  # the order of the state: parameters first
        self.ranges.update(quantizers)
        found = self.insert(graph, model, "")
        self.program = fx.Interpreter(model, graph=graph)
        heads = {
            n: _Rewired(getattr(model, n), f"{n}.", self)
            for n in ("mask_head", "mask_iou_head")
            if getattr(model, n) is not None  # without mask scoring there is but one
        }
        self.mask_head = heads["mask_head"]  # type: ignore[assignment]
        self.mask_iou_head = heads.get("mask_iou_head")  # type: ignore[assignment]
        _check_all_found(spec, found.union(*(head.found for head in heads.values())))
        self._freeze_ranges()

    def insert(self, graph: fx.Graph, root: nn.Module, prefix: str) -> set[Operation]:
        """Round in a recorded graph; the spec's operations that are in it."""
        quantizers = {g: self.ranges[g.replace(".", _DOT)] for g in self.spec.ranges}
        return insert_rounding(graph, root, self.spec, quantizers, prefix)

    def dense(self, images: Tensor) -> tuple[list[Tensor], DensePredictions]:
        """See :meth:`CenterMask.dense`."""
        pyramid, dense = self.program.run(images)
        return list(pyramid), dense

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """P3..P7 from normalised, padded float (B, 3, H, W)."""
        return self.dense(images)[0]

    def twin(self, state: Mapping[str, Tensor]) -> QuantizedCenterMask:
        """Another of its kind with a state of its own, in evaluation mode."""
        other = QuantizedCenterMask(CenterMask(self.config), self.spec)
        other.load_state_dict(dict(state))
        return other.eval()

    def _freeze_ranges(self) -> None:
        """Ranges that only frozen parts read stay as they are, or gradients would have to go there.

        A part without parameters, such as pooling, is taken with the module that calls it.
        """
        readers: dict[str, list[str]] = {}
        for site in self.spec.activations:
            readers.setdefault(site.group, []).append(site.operation.module)
        frozen = {m for ms in readers.values() for m in ms if self._is_frozen(m)}
        for group, modules in readers.items():
            if frozen.issuperset(modules):
                self.ranges[group.replace(".", _DOT)].requires_grad_(False)

    def _is_frozen(self, path: str) -> bool:
        parameters = list(self.get_submodule(path).parameters())
        return bool(parameters) and not any(p.requires_grad for p in parameters)


def _check_all_found(spec: FakeQuantSpec, found: set[Operation]) -> None:
    lost = sorted(spec.operations() - found, key=str)
    if lost:
        raise ConfigError(
            f"the quantization plan rounds at {lost[0]}, which training does not know"
            f"{f' (and {len(lost) - 1} more)' if len(lost) > 1 else ''}; "
            "keep it in float, or quantize without training"
        )


def check_settings(config: TrainConfig) -> None:
    """Nothing, if a run with rounding can be made of these settings.

    Raises:
        ConfigError: names the setting that does not fit.
    """
    if config.checkpoint is None:
        raise ConfigError("training with rounding goes on from a trained checkpoint; give one")
    for name in ("bf16", "batch_norm"):
        if getattr(config, name):
            raise ConfigError(
                f"{name} does not go with rounding to 8 bits: "
                "the INT8 file has float32 scales and folded norms; set it to false"
            )


def network_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of the network without the ranges."""
    return {k: v for k, v in state.items() if not k.startswith(_PREFIX)}


def ranges_of(state: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest magnitude by group of tensors."""
    return {
        k[len(_PREFIX) : -len(_SUFFIX)].replace(_DOT, "."): float(2.0 ** float(v))
        for k, v in state.items()
        if k.startswith(_PREFIX)
    }


def save_quantized(folder: Path, state: Mapping[str, Tensor], model: CenterMask) -> None:
    """Write weights and ranges into one file, so that they cannot come apart.

    Raises:
        ModelFileError: the file cannot be written.
    """
    checkpoint.save(folder / QUANTIZED_FILE, state, model.config)


def load_quantized(folder: Path, config: ModelConfig) -> tuple[CenterMask, dict[str, float]]:
    """The trained network in evaluation mode, and its ranges by group.

    Args:
        folder: output of a run.
        config: of the network.

    Raises:
        ModelFileError: no such file, or one of another architecture.
    """
    path = folder / QUANTIZED_FILE
    state, _ = checkpoint.read_safetensors(path)
    ranges = ranges_of(state)
    if not ranges:
        raise ModelFileError(
            f"{path} holds no ranges; it was not written by training with rounding"
        )
    model = CenterMask(config)
    checkpoint.load_state(model, network_state(state), path)
    return model.eval(), ranges
