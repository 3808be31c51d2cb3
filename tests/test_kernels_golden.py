"""The network with our kernels in it against outputs of the official code.

The kernels run in their host build here, through the very branches that the network takes on a GPU.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from centermask_edge.model import kernel_ops
from centermask_edge.model.parity import build_golden, compare
from centermask_edge.model.reference import Reference

GOLDEN = Reference.open(None)


@pytest.mark.usefixtures("host", "one_thread")
@pytest.mark.parametrize("name", ["lite_V_19", "lite_V_19_slim_dw"])
def test_the_network_with_kernels_agrees_with_the_official_code(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def usable(x: Tensor) -> bool:
        asked.append(x.shape)
        return not torch.is_grad_enabled()

    monkeypatch.setattr(kernel_ops, "usable", usable)
    case, masks = GOLDEN.case(f"small.{name}.s0"), GOLDEN.masks(name, "small")
    result = compare(build_golden(GOLDEN, name), name, 1e-4, case, GOLDEN.small_input(), masks)
    assert len(asked) >= 3  # decoding, RoIAlign, attention
    for check in (*result.dense, *result.detections, *result.masks):
        assert check.passed, check.cells
