"""Rounding in training: ONNX Runtime's values forward, the straight-through gradients backward."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from centermask_edge.config import TrainConfig
from centermask_edge.quantize.weights import rounded, spread, weight_steps
from centermask_edge.train.fake_quant import (
    SIGNED,
    UNSIGNED,
    ActivationQuantizer,
    Range,
    rounded_weight,
    step_of,
)
from centermask_edge.train.optim import make_optimizer


def quantizer(largest: float, *, unsigned: bool) -> ActivationQuantizer:
    return ActivationQuantizer(Range(largest, unsigned))


def through_onnx(x: NDArray[np.float32], step: float, *, unsigned: bool) -> NDArray[np.float32]:
    """QuantizeLinear and DequantizeLinear as ONNX Runtime computes them."""
    helper, kind = onnx.helper, np.uint8 if unsigned else np.int8
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N"])],
        [
            numpy_helper.from_array(np.asarray(step, np.float32), "s"),
            numpy_helper.from_array(np.zeros((), kind), "z"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    return np.asarray(found, np.float32)


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("largest", [1.27, 127.0, 6.0, 0.0317])
def test_values_are_those_of_quantize_linear(largest: float, unsigned: bool) -> None:
    rounding = quantizer(largest, unsigned=unsigned)
    levels = 255 if unsigned else 127
    assert rounding.largest == pytest.approx(largest, rel=1e-6)
    step = np.float32(rounding.largest / levels)  # as insert_qdq writes it
    assert float(step_of(rounding.log2_range.detach(), levels)) == step
    rng = np.random.default_rng(0)
    ties = (np.arange(-140, 300) + 0.5).astype(np.float32) * step
    x = np.concatenate([rng.normal(0, largest, 4000).astype(np.float32), ties])
    found = rounding(torch.from_numpy(x)).detach().numpy()
    assert np.array_equal(found, through_onnx(x, float(step), unsigned=unsigned))
    codes = np.unique(np.rint(found / step))
    assert (codes[0], codes[-1]) == (UNSIGNED if unsigned else SIGNED)


@pytest.mark.parametrize(("axis", "kept"), [(0, (0,)), (1, (1,)), (None, ())])
def test_weights_are_those_of_the_file(axis: int | None, kept: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).standard_normal((6, 5, 3, 3)).astype(np.float32)
    weight[2] = 0
    steps = weight_steps(weight, axis)
    wanted = rounded(weight, steps, axis) * spread(steps, 4, axis)
    found = rounded_weight(torch.from_numpy(weight), kept).numpy()
    assert np.array_equal(found, wanted)
    assert not np.array_equal(found, weight)


def test_a_weight_gets_the_gradient_of_its_rounded_self() -> None:
    weight = torch.randn(3, 4, requires_grad=True)
    upstream = torch.randn(3, 4)
    (rounded_weight(weight, (0,)) * upstream).sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, upstream)


@pytest.mark.parametrize("unsigned", [False, True])
def test_gradients_are_those_of_the_papers(unsigned: bool) -> None:
    rounding = quantizer(2.0, unsigned=unsigned)
    low, high = UNSIGNED if unsigned else SIGNED
    step = float(step_of(rounding.log2_range.detach(), high))
    x = torch.tensor([-3.0, -0.7, -0.001, 0.0, 0.013, 0.5, 1.99, 2.5, 40.0], requires_grad=True)
    upstream = torch.linspace(-1, 2, len(x))
    (rounding(x) * upstream).sum().backward()
    passed, total = [], 0.0
    for value, grad in zip(x.tolist(), upstream.tolist(), strict=True):
        code = value / step
        inside = low <= code <= high
        passed.append(grad if inside else 0.0)
        # LSQ equation 3, then the chain rule for a range of 2 ** log2_range.
        total += grad * (round(code) - code if inside else min(max(code, low), high))
    wanted = total * step * math.log(2) / math.sqrt(len(x) * high)
    assert x.grad is not None and rounding.log2_range.grad is not None
    assert x.grad.tolist() == pytest.approx(passed)
    assert float(rounding.log2_range.grad) == pytest.approx(wanted, rel=1e-4)


def test_a_range_shrinks_where_an_outlier_matters_least() -> None:
    # Many small values and a large one that nothing depends on: finer steps serve the many.
    # While the step is coarser than they are, its gradient says nothing: it starts within reach.
    x = torch.cat([torch.linspace(-0.1, 0.1, 999), torch.tensor([100.0])])
    rounding = quantizer(5.0, unsigned=False)
    optimizer = torch.optim.Adam(rounding.parameters(), lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        (rounding(x) - x)[:-1].square().sum().backward()
        optimizer.step()
    assert rounding.largest < 1
    # And does not collapse: values that matter stay inside.
    assert rounding.largest > 0.08


def test_ranges_are_not_decayed_and_have_a_rate_of_their_own() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), quantizer(1.0, unsigned=False))
    config = TrainConfig(optimizer="adamw", weight_decay=0.1, range_lr_factor=30)
    groups = make_optimizer(model, config).param_groups
    found = {len(g["params"]): (g["weight_decay"], g["lr_factor"]) for g in groups}
    assert found == {2: (0.1, 1.0), 1: (0.0, 30.0)}
