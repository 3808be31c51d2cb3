from __future__ import annotations

import numpy as np
import pytest

from centermask_edge.model.golden_weights import digest, golden_tensor, golden_weights
from centermask_edge.model.reference import Reference

# sha256 of the weights the official code was run with.
DIGESTS = {
    "lite_V_19": "f8bd5377a27e9b21e68810cbe89576ce930ffe31c54b46bbc32cd9d0d3e46f62",
    "lite_V_39": "18814926be3320be659bc00122050c77e4b2854c909dcfb3c0263ff3fed939ce",
    "lite_V_19_slim": "c13b1411970ab4b642288b61d370c295a27c3b16042e8b703942b727c3b520c1",
    "lite_V_19_slim_dw": "edb5eb4727e1e22acb2fdf5b94ca971d47fda02d01b10a5964e1ee25d954e625",
    "lite_Mv2": "0b82307d19b3b8b15f900d502568f1752c077ba01a68f6c3d6c9c0707478ad08",
    "lite_V_19_dw": "f7e39a53fc8b4c39e487e8c614a9ac70356040b01439fa8809e32269f7c9128f",
}


@pytest.mark.parametrize("config", DIGESTS)
def test_weights_are_those_of_the_official_runs_bit_for_bit(config: str) -> None:
    assert digest(Reference.open(None).weights(config)) == DIGESTS[config]


def test_seed_and_name_decide() -> None:
    first = golden_tensor(0, "a.norm.bias", (4,))
    assert not np.array_equal(first, golden_tensor(1, "a.norm.bias", (4,)))
    assert not np.array_equal(first, golden_tensor(0, "b.norm.bias", (4,)))
    np.testing.assert_array_equal(first, golden_tensor(0, "a.norm.bias", (2, 2)).ravel())


def test_a_constant_offset_on_all_channels_leaves_balanced_layers_alone() -> None:
    weight = golden_tensor(0, "proposal_generator.fcos_head.cls_logits.weight", (3, 5, 3, 3))
    np.testing.assert_allclose(weight.sum(1), 0, atol=1e-6)
    assert not weight[:, 4].any() and weight[:, :4].all()


def test_digest_sees_names_shapes_and_values() -> None:
    state = golden_weights({"a.bias": (4,), "b.bias": (2,)})
    renamed = {"a.bias": state["a.bias"], "c.bias": state["b.bias"]}
    reshaped = {**state, "a.bias": state["a.bias"].reshape(2, 2)}
    nudged = {**state, "a.bias": np.nextafter(state["a.bias"], np.float32(1))}
    assert len({digest(s) for s in (state, renamed, reshaped, nudged)}) == 4
    assert digest(dict(reversed(state.items()))) == digest(state)


def test_an_unknown_kind_of_tensor_is_an_error() -> None:
    with pytest.raises(KeyError, match="no rule"):
        golden_tensor(0, "a.counter", (1,))
