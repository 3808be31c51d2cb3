"""Networks with other switches in fp16 and in 8 bits: the same figures up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_switches import VARIANTS, noisy, pictures

from centermask_edge.config import ModelConfig
from centermask_edge.engines import EngineName, open_engine
from centermask_edge.errors import ModelFileError
from centermask_edge.graph.export import build
from centermask_edge.graph.precision import to_fp16
from centermask_edge.model.predict import run
from centermask_edge.quantize import max_int8
from centermask_edge.resources import CACHE_VARIABLE

pytestmark = pytest.mark.usefixtures("one_thread")


def in_int8(model: onnx.ModelProto, config: ModelConfig) -> onnx.ModelProto:
    """With the ranges of the pictures themselves."""
    mean = np.array(config.preprocess.mean)
    seen = [(p.transpose(1, 2, 0) + mean).clip(0, 255).astype(np.uint8) for p in pictures()[0]]
    return max_int8(model, seen, "openvino")


def in_fp16(model: onnx.ModelProto, config: ModelConfig) -> onnx.ModelProto:
    return to_fp16(model)


def test_positions_of_deformable_layers_do_not_fit_fp16() -> None:
    node = onnx.helper.make_node("GridSample", ["x", "grid"], ["y"])
    values = [onnx.helper.make_tensor_value_info(n, 1, [1, 2, 3, 2]) for n in ("x", "grid", "y")]
    graph = onnx.helper.make_graph([node], "deformable", values[:2], values[2:])
    with pytest.raises(ModelFileError, match="deformable layers, whose positions fp16"):
        to_fp16(onnx.helper.make_model(graph))


CASES = [*((name, in_fp16, 0.02) for name in VARIANTS), (list(VARIANTS)[1], in_int8, 0.2)]


@pytest.mark.parametrize(("name", "convert", "share"), CASES)
def test_lower_precision_finds_the_same(
    name: str,
    convert: Callable[[onnx.ModelProto, ModelConfig], onnx.ModelProto],
    share: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    model = noisy(VARIANTS[name])
    onnx.save(convert(build(model, {}), model.config), str(tmp_path / "low.onnx"))
    images, sizes = pictures()
    wanted = run(model, images, sizes)
    found = open_engine(tmp_path / "low.onnx", EngineName.ONNXRUNTIME).run(images, sizes)
    assert found.count.tolist() == wanted.count.tolist()
    np.testing.assert_allclose(found.scores.mean(1), wanted.scores.mean(1), rtol=share)
    if convert is in_fp16:  # random masks are too faint for 8 bits, under any rules
        assert found.masks.std() == pytest.approx(wanted.masks.std(), rel=share)
    if not model.config.mask_scoring:
        np.testing.assert_allclose(found.mask_scores, found.scores, rtol=1e-6)
