"""The plugins, driven as TensorRT drives them, compute what numpy says: every type and layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plugin_driver
import pytest
from plugin_driver import PluginLibrary, layout_of

from centermask_edge.kernels.build import build
from centermask_edge.kernels.cases import decode_nms, roi_align, spatial_attention
from centermask_edge.kernels.cases.compare import expect_equal
from centermask_edge.kernels.decode_nms import decode_nms as launch
from centermask_edge.kernels.device import find_gpu
from centermask_edge.kernels.library import FLOAT16, FLOAT32, INT8
from centermask_edge.kernels.plugin import plugin_recipe
from centermask_edge.kernels.reference.decode_nms import decode_nms as reference
from centermask_edge.kernels.toolchain import find_host_compiler, find_nvcc

pytestmark = pytest.mark.skipif(find_host_compiler() is None, reason="no C++ compiler")

_GPU = find_gpu() if find_nvcc() else None


@pytest.fixture(scope="module", params=["host", "cuda"] if _GPU else ["host"])
def plugins(request: pytest.FixtureRequest) -> PluginLibrary:
    """The host build, and on a machine with a GPU the CUDA build."""
    if request.param == "host":
        return PluginLibrary(build(plugin_recipe(host=True)))
    assert _GPU is not None
    return PluginLibrary(build(plugin_recipe(architectures=(_GPU.capability,))))


def _attention_cases() -> list[spatial_attention.Case]:
    found = spatial_attention.cases()
    return [c for c in found if layout_of(c.kind, c.pack, c.channels) is not None]


def _align_cases() -> list[roi_align.Case]:
    # A plugin is told the picture of each RoI, and has no count.
    found = [replace(c, index=c.index or np.int64, count=False) for c in roi_align.cases()]
    return [c for c in found if layout_of(c.kind, c.pack, c.channels) is not None]


def _decode_cases() -> list[decode_nms.Case]:
    found = [replace(c, index=np.int64) for c in decode_nms.cases()]
    return [c for c in found if len(c.shapes) == 5]


@pytest.mark.parametrize("case", _attention_cases(), ids=str)
def test_spatial_attention(plugins: PluginLibrary, case: spatial_attention.Case) -> None:
    spatial_attention.check(plugins, case)


@pytest.mark.parametrize("case", _align_cases(), ids=str)
def test_pyramid_roi_align(plugins: PluginLibrary, case: roi_align.Case) -> None:
    roi_align.check(plugins, case)


@pytest.mark.parametrize("case", _decode_cases(), ids=str)
def test_decode_nms(plugins: PluginLibrary, case: decode_nms.Case) -> None:
    inputs = decode_nms.make_inputs(case)
    got = launch(plugins, *inputs, decode_nms.STRIDES, case.options, case.index)
    want = reference(*inputs, decode_nms.STRIDES, case.options, case.index)
    for field in ("count", "classes", "scores", "boxes"):  # a plugin gives no indices
        expect_equal(field, getattr(got, field), getattr(want, field))


def test_every_type_and_layout_is_among_the_cases() -> None:
    both = {(c.kind, c.pack if c.kind == INT8 else c.pack > 1) for c in _attention_cases()}
    assert both == {(c.kind, c.pack if c.kind == INT8 else c.pack > 1) for c in _align_cases()}
    whole = {(FLOAT32, False), (FLOAT16, False), (FLOAT16, True)}
    assert both == whole | {(INT8, 1), (INT8, 4), (INT8, 32)}
    assert {c.kind for c in _decode_cases()} == {FLOAT32, FLOAT16}


def test_the_harness_names_the_step_that_fails(plugins: PluginLibrary) -> None:
    x = plugin_driver.tensor((1, 8, 2, 2))
    weight = plugin_driver.tensor((1, 2, 3, 3))
    wrong = {
        "types": plugin_driver.tensor((1, 8, 2, 2), FLOAT16),
        "shapes": plugin_driver.tensor((1, 8, 2, 3)),
        "enqueue": x,  # no memory behind it
    }
    for step, y in wrong.items():
        outcome = plugin_driver.drive(plugins.path, "CMSpatialAttention", {}, [x, weight], [y])
        assert outcome.step == step
