"""Rounding to 8 bits in training: the values of QuantizeLinear forward, straight through backward.

Sources: straight-through estimator (Bengio et al., 2013); gradient of the step size and its scale
(Esser et al., "Learned Step Size Quantization", ICLR 2020, equations 3 and section 2.2); ranges
learnt as logarithms, so that one learning rate suits all of them (Jain et al., "Trained
Quantization Thresholds", MLSys 2020, section 3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Of a weight: symmetric, without -128. An activation saturates where QuantizeLinear does.
WEIGHT_LEVELS = 127
SIGNED, UNSIGNED = (-128, 127), (0, 255)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the network, by where its code is.

    Attributes:
        module: path of the module that runs it, ``head.box_tower.0.conv``.
        run: which of the module's runs in one forward, from 0: the head runs once per level.
        kind: ONNX operator.
        index: which operation of that kind in that run, from 0.
    """

    module: str
    run: int
    kind: str
    index: int

    def __str__(self) -> str:
        """Short enough for an error message."""
        return f"{self.kind} {self.index} of run {self.run} of {self.module}"


@dataclass(frozen=True, slots=True)
class ActivationSite:
    """An operation's input that is read through 8 bits.

    Attributes:
        operation: the reader.
        input: position among its inputs.
        tensor: name of what it reads; sites of one name read one tensor.
        group: name of the range it is on, see ``FakeQuantSpec.ranges``.
    """

    operation: Operation
    input: int
    tensor: str
    group: str


@dataclass(frozen=True, slots=True)
class WeightSite:
    """An operation whose weight is int8.

    Attributes:
        operation: the reader.
        kept: dimensions of torch's weight along which steps differ; none for one step.
    """

    operation: Operation
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Where the values of a group of tensors end.

    Attributes:
        largest: magnitude that is still represented, above zero.
        unsigned: uint8 instead of int8.
    """

    largest: float
    unsigned: bool


@dataclass(frozen=True, slots=True)
class FakeQuantSpec:
    """What is read through 8 bits in a network, as plain data.

    Attributes:
        activations: inputs.
        weights: of operations.
        ranges: initial ones, by group.
    """

    activations: tuple[ActivationSite, ...]
    weights: tuple[WeightSite, ...]
    ranges: dict[str, Range]

    def operations(self) -> set[Operation]:
        """All that read something through 8 bits."""
        found = {site.operation for site in self.activations}
        return found | {site.operation for site in self.weights}


class _RoundActivation(torch.autograd.Function):
    """``clip(round(x / step)) * step`` with a gradient for ``x`` and for log2 of the range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, log2_range: Tensor, low: int, high: int) -> Tensor:
        step = step_of(log2_range, high)
        ctx.save_for_backward(x, step)
        ctx.low, ctx.high = low, high
        return (x / step).round_().clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, step = ctx.saved_tensors
        (grad,) = grads
        scaled = x / step
        inside = (scaled >= ctx.low) & (scaled <= ctx.high)
        grad_range = None
        if ctx.needs_input_grad[1]:
            # d(step * code) / d step: the rounding error inside, the last code outside.
            error = scaled.round().clamp_(ctx.low, ctx.high)
            error = torch.where(inside, error - scaled, error)
            damping = 1 / math.sqrt(x.numel() * ctx.high)
            grad_range = (grad * error).sum() * step * math.log(2) * damping
        return grad * inside, grad_range, None, None


class _RoundWeight(torch.autograd.Function):
    """A weight on its int8 grid; the gradient passes as it is, for nothing is clipped."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, kept: tuple[int, ...]) -> Tensor:
        steps = weight_steps(weight, kept)
        return (weight / steps).round_().clamp_(-WEIGHT_LEVELS, WEIGHT_LEVELS).mul_(steps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def step_of(log2_range: Tensor, high: int) -> Tensor:
    """Size of one step, float32: rounded once, as it is when it is written into a file."""
    return (log2_range.double().exp2() / high).float()


def weight_steps(weight: Tensor, kept: tuple[int, ...]) -> Tensor:
    """Size of one int8 step along the kept dimensions, in a shape that broadcasts.

    The rule of the INT8 file: the largest magnitude is code 127, and zeros get the step 1.
    """
    others = [d for d in range(weight.ndim) if d not in kept]
    largest = weight.abs().amax(others, keepdim=True)
    return torch.where(largest > 0, largest / WEIGHT_LEVELS, torch.ones_like(largest))


def rounded_weight(weight: Tensor, kept: tuple[int, ...]) -> Tensor:
    """The float32 weight that an INT8 file stores; differentiable.

    Args:
        weight: float32, of any shape.
        kept: dimensions along which steps differ.
    """
    return _RoundWeight.apply(weight, kept)  # type: ignore[no-any-return, no-untyped-call]


class ActivationQuantizer(nn.Module):
    """Reads a tensor through 8 bits; its range is learnt.

    Args:
        start: the initial range.
    """

    __name__ = "rounded"  # torch.fx asks for one where it tells of an error

    def __init__(self, start: Range) -> None:
        super().__init__()
        self.low, self.high = UNSIGNED if start.unsigned else SIGNED
        self.log2_range = nn.Parameter(torch.tensor(math.log2(start.largest)))

    @property
    def largest(self) -> float:
        """Magnitude that is still represented."""
        return float(2.0 ** float(self.log2_range.detach()))

    def forward(self, x: Tensor) -> Tensor:
        """The float32 tensor as 8 bits hold it."""
        return _RoundActivation.apply(x, self.log2_range, self.low, self.high)  # type: ignore[no-any-return, no-untyped-call]
