"""The frozen batch norm and the convolution units that all backbones are built from.

Shape legend: B batch, C channels, H W rows and columns.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and fixed affine: ``(x - mean) / sqrt(var + eps) * w + b``.

    All four tensors are buffers. While gradients are recorded the statistics are folded into one
    scale and one bias, else the library's fused form is used: the official networks do the same,
    and the two forms round differently (up to 2e-4 in a mask loss through ReLU gates).
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise float (B, C, H, W)."""
        if torch.is_grad_enabled():
            scale = self.weight * (self.running_var + self.eps).rsqrt()
            bias = self.bias - self.running_mean * scale
            return x * scale.to(x.dtype).view(1, -1, 1, 1) + bias.to(x.dtype).view(1, -1, 1, 1)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class LearnedBatchNorm2d(nn.Module):
    """Ordinary batch norm under the frozen one's names, for training without ImageNet weights.

    Statistics are of the batch in training and of the running average in evaluation; a state dict
    of it is one of :class:`FrozenBatchNorm2d`, which is what is saved and exported.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise float (B, C, H, W)."""
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )


def learn_norms(module: nn.Module) -> None:
    """Replace every frozen norm below ``module`` by a learned one with the same values."""
    for name, child in module.named_children():
        if isinstance(child, FrozenBatchNorm2d):
            norm = LearnedBatchNorm2d(len(child.weight), child.eps)
            norm.load_state_dict(child.state_dict())
            setattr(module, name, norm)
        else:
            learn_norms(child)


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution in bfloat16 whose slow gradients are computed in float32.

    oneDNN's bfloat16 weight gradient of a depthwise convolution is 4 to 9 times slower than its
    float32 one on AVX-512 CPUs, and so is the data gradient at stride 2; forward and the other
    data gradients are faster in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        stride, padding = [ctx.stride] * 2, [ctx.padding] * 2

        def gradients(dtype: torch.dtype, mask: list[bool]) -> Any:
            return torch.ops.aten.convolution_backward(
                grad.to(dtype), x.to(dtype), weight.to(dtype), None, stride, padding, [1, 1],
                False, [0, 0], x.shape[1], mask,
            )  # fmt: skip

        grad_x = grad_w = None
        if ctx.needs_input_grad[0]:
            dtype = x.dtype if ctx.stride == 1 else torch.float32
            grad_x = gradients(dtype, [True, False, False])[0].to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_w = gradients(torch.float32, [False, True, False])[1].to(weight.dtype)
        return grad_x, grad_w, None, None


class ConvNorm(nn.Module):
    """Convolution without bias, frozen batch norm, optional ReLU or ReLU6."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
        eps: float = 1e-5,
        same_padding: bool = False,
    ) -> None:
        super().__init__()
        # TensorFlow's SAME padding of an even size at stride 2 puts the odd pixel at the end.
        total = kernel - stride if same_padding and stride > 1 else 0
        self.pad = (total // 2, total - total // 2) * 2 if total else None
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            0 if self.pad else kernel // 2,
            groups=groups,
            bias=False,
        )
        self.norm: nn.Module = FrozenBatchNorm2d(out_channels, eps)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        if self.pad:
            x = F.pad(x, self.pad)
        norm = self.norm
        folds = isinstance(norm, FrozenBatchNorm2d) and torch.is_autocast_enabled("cpu")
        folds = folds and torch.is_grad_enabled()
        x = self._folded(x) if folds else self.norm(self.conv(x))
        return x if self.activation is None else self.activation(x)

    def _folded(self, x: Tensor) -> Tensor:
        """The same in bfloat16 training on a CPU: the norm's scale goes into the weights.

        Saves two passes over the activations in each direction.
        """
        conv, norm = self.conv, self.norm
        assert isinstance(norm, FrozenBatchNorm2d)
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias = norm.bias - norm.running_mean * scale
        weight = (conv.weight * scale.view(-1, 1, 1, 1)).to(torch.bfloat16)
        x = x.to(torch.bfloat16)
        stride, padding = conv.stride[0], int(conv.padding[0])
        if conv.groups == 1:
            return F.conv2d(x, weight, bias.to(x.dtype), stride, padding)
        out: Tensor = _Depthwise.apply(x, weight, stride, padding)  # type: ignore[no-untyped-call]
        return out + bias.to(x.dtype).view(1, -1, 1, 1)


class SeparableConvNorm(nn.Module):
    """Depthwise 3x3, pointwise 1x1, frozen batch norm, ReLU; nothing between the convolutions."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = FrozenBatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        return F.relu(self.norm(self.pointwise(self.depthwise(x))))
