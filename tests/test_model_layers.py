"""Norms, convolutions and attention against their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from plain import shake
from torch import Tensor, nn

from centermask_edge.model.layers import ConvNorm, FrozenBatchNorm2d, SeparableConvNorm
from centermask_edge.model.mask_heads import SpatialAttention
from centermask_edge.model.vovnet import EffectiveSE

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# --- norm and convolution ---------------------------------------------------------------------


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_frozen_norm_is_its_formula_in_both_forms(eps: float) -> None:
    norm = FrozenBatchNorm2d(6, eps)
    shake(norm)
    x = torch.randn(2, 6, 5, 4)
    mean, var, weight, bias = (
        getattr(norm, name).double().view(1, -1, 1, 1)
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    wanted = (x.double() - mean) / (var + eps).sqrt() * weight + bias
    folded = norm(x)
    with torch.no_grad():
        fused = norm(x)
    for found in (folded, fused):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_frozen_norm_has_nothing_to_train() -> None:
    norm = FrozenBatchNorm2d(3)
    assert not list(norm.parameters())
    assert set(norm.state_dict()) == {"weight", "bias", "running_mean", "running_var"}


CASES = [
    {"kernel": 3},
    {"kernel": 1},
    {"kernel": 3, "stride": 2},
    {"kernel": 3, "groups": 8},
    {"kernel": 5, "groups": 8, "stride": 2, "same_padding": True},
    {"kernel": 3, "groups": 8, "stride": 2},
]


def gradients(layer: ConvNorm, x: Tensor, bf16: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and gradients of its square sum by input and weight."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        out = layer(x)
    out.float().square().sum().backward()
    assert x.grad is not None and layer.conv.weight.grad is not None
    return out.detach(), x.grad, layer.conv.weight.grad.clone()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bfloat16_training_folds_the_norm_and_stays_near(case: dict[str, Any]) -> None:
    layer = ConvNorm(8, 8, activation=nn.ReLU6(), **case)
    shake(layer)
    x = torch.randn(2, 8, 16, 12)
    exact, rough = gradients(layer, x, False), gradients(layer, x, True)
    assert rough[0].dtype == torch.bfloat16
    assert rough[1].dtype == rough[2].dtype == torch.float32
    for ours, wanted in zip(rough, exact, strict=True):
        assert ours.shape == wanted.shape
        error = (ours.float() - wanted).norm() / wanted.norm()
        assert 0 < float(error) < 0.05
    # Evaluation, with or without autocast, takes the plain way.
    with torch.no_grad():
        np.testing.assert_allclose(layer(x), exact[0], rtol=1e-4, atol=1e-5)


def plain_same(x: NDArray[np.float64], weight: NDArray[np.float64], stride: int) -> Any:
    """Depthwise TensorFlow SAME convolution of (C, H, W) by (C, k, k), in loops."""
    channels, height, width = x.shape
    kernel = weight.shape[1]
    rows, columns = -(-height // stride), -(-width // stride)
    over_y = max((rows - 1) * stride + kernel - height, 0)
    over_x = max((columns - 1) * stride + kernel - width, 0)
    out = np.zeros((channels, rows, columns))
    for i, j in np.ndindex(rows, columns):
        for u, v in np.ndindex(kernel, kernel):
            y, z = i * stride + u - over_y // 2, j * stride + v - over_x // 2
            if 0 <= y < height and 0 <= z < width:
                out[:, i, j] += x[:, y, z] * weight[:, u, v]
    return out


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_is_tensorflows(kernel: int, stride: int) -> None:
    layer = ConvNorm(2, 2, kernel, stride=stride, groups=2, eps=0.0, same_padding=True)
    x = torch.randn(1, 2, 8, 6)
    wanted = plain_same(
        x[0].double().numpy(), layer.conv.weight.detach()[:, 0].double().numpy(), stride
    )
    np.testing.assert_allclose(layer(x)[0].detach(), wanted, rtol=1e-4, atol=1e-5)


def test_separable_layer_has_nothing_between_its_convolutions() -> None:
    layer = SeparableConvNorm(4, 6, stride=2)
    shake(layer)
    x = torch.randn(1, 4, 8, 8)
    depthwise = F.conv2d(x, layer.depthwise.weight, None, 2, 1, groups=4)
    wanted = F.relu(layer.norm(F.conv2d(depthwise, layer.pointwise.weight)))
    torch.testing.assert_close(layer(x), wanted)
    assert layer(x).shape == (1, 6, 4, 4)


# --- attention --------------------------------------------------------------------------------


def test_effective_se_is_its_formula() -> None:
    block = EffectiveSE(5)
    x = torch.randn(3, 5, 4, 6) * 20
    values = x.double().numpy()
    weight = block.fc.weight.detach()[:, :, 0, 0].double().numpy()
    assert block.fc.bias is not None
    z = values.mean((2, 3)) @ weight.T + block.fc.bias.detach().double().numpy()
    gate = np.clip(z + 3, 0, 6) / 6
    assert len(np.unique(gate.round(3))) > 5  # not all at one end
    np.testing.assert_allclose(block(x).detach(), values * gate[:, :, None, None], atol=1e-4)


@pytest.mark.parametrize(("bias", "gate"), [(-3.0, 0.0), (-9.0, 0.0), (3.0, 1.0), (0.0, 0.5)])
def test_effective_se_is_gated_by_a_hard_sigmoid(bias: float, gate: float) -> None:
    block = EffectiveSE(2)
    assert block.fc.bias is not None
    nn.init.zeros_(block.fc.weight)
    nn.init.constant_(block.fc.bias, bias)
    x = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(block(x).detach(), x * gate)


def test_spatial_attention_is_its_formula() -> None:
    block = SpatialAttention()
    x = torch.randn(2, 7, 5, 4)
    values = np.pad(x.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight = block.conv.weight.detach()[0].double().numpy()
    logits = np.zeros((2, 5, 4))
    for i, j in np.ndindex(5, 4):
        window = values[:, :, i : i + 3, j : j + 3]
        inside = np.zeros((3, 3), bool)
        inside[max(1 - i, 0) : 6 - i, max(1 - j, 0) : 5 - j] = True
        logits[:, i, j] = (window.mean(1) * weight[0] * inside).sum((1, 2))
        logits[:, i, j] += (window.max(1) * weight[1] * inside).sum((1, 2))
    wanted = x.double().numpy() / (1 + np.exp(-logits))[:, None]
    np.testing.assert_allclose(block(x).detach(), wanted, rtol=1e-4, atol=1e-5)
    assert block.conv.bias is None
