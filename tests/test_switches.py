"""The paper's switches: each against its formula, and the ONNX file against torch with each."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.parser
import pytest
import torch
from numpy.typing import NDArray
from plain import shake
from pydantic import ValidationError
from test_graph_export import assert_same
from torch import Tensor, nn

from centermask_edge.config import PRESETS, Backbone, ModelConfig, with_original_rules
from centermask_edge.engines import EngineName, open_engine
from centermask_edge.errors import ConfigError, ModelFileError
from centermask_edge.graph.export import build, export
from centermask_edge.graph.sizes import tensor_shapes
from centermask_edge.graph.tensorrt import InputShape, lower_for_tensorrt
from centermask_edge.graph.variants import roi_align_text
from centermask_edge.model import checkpoint, convert
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.deformable import DeformableConvNorm
from centermask_edge.model.fixed import FixedCenterMask
from centermask_edge.model.predict import run
from centermask_edge.model.roi import levels_by, pyramid_roi_align, roi_align
from centermask_edge.model.vovnet import OSABlock, SqueezeExcite
from centermask_edge.resources import CACHE_VARIABLE
from centermask_edge.switches import ChannelAttention, RoiAssignment, RoiRules, Rules

pytestmark = pytest.mark.usefixtures("one_thread")
CANONICAL = RoiAssignment.CANONICAL
SMALL = PRESETS["lite-v19-slim-dw"].model_copy(
    update={"name": "small", "fpn_channels": 32, "classes": ("a", "b", "c"), "mask_iou_fc": 16}
)


def changed(**values: object) -> ModelConfig:
    return ModelConfig.model_validate({**SMALL.model_dump(), **values})


# --- blocks -----------------------------------------------------------------------------------


def test_squeeze_and_excitation_is_its_formula() -> None:
    torch.manual_seed(0)
    block, x = SqueezeExcite(16), torch.randn(2, 16, 3, 4)
    mean = x.mean((2, 3))
    assert block.reduce.bias is not None and block.expand.bias is not None
    hidden = (mean @ block.reduce.weight[:, :, 0, 0].T + block.reduce.bias).clamp(min=0)
    gate = (hidden @ block.expand.weight[:, :, 0, 0].T + block.expand.bias).sigmoid()
    assert hidden.shape == (2, 4)
    torch.testing.assert_close(block(x), x * gate[:, :, None, None])


@pytest.mark.parametrize("attention", ChannelAttention)
@pytest.mark.parametrize("residual", [False, True])
def test_blocks_have_what_they_are_told(attention: ChannelAttention, residual: bool) -> None:
    torch.manual_seed(0)
    block = OSABlock(16, 8, 16, 2, residual=residual, attention=attention)
    shake(block)
    x = torch.randn(1, 16, 5, 5)
    first = block.layers[0](x)
    out = block.concat(torch.cat((x, first, block.layers[1](first)), 1))
    parts = [part for part in (block.ese, block.se) if part is not None]
    assert len(parts) == (attention is not ChannelAttention.NONE)
    for part in parts:
        out = part(out)
    torch.testing.assert_close(block(x), out + x if residual else out)


def test_residuals_are_switched_in_the_whole_body() -> None:
    for residual in (True, False):
        with torch.device("meta"):
            config = PRESETS["lite-v39"].model_copy(update={"residual": residual})
            blocks = [m for m in CenterMask(config).modules() if isinstance(m, OSABlock)]
        assert [b.residual for b in blocks] == [False, False, *(False, residual) * 2]


def plain_deformable(
    x: NDArray[np.float64], moves: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Modulated deformable convolution of one picture, sample by sample."""
    channels, height, width = x.shape
    padded = np.zeros((channels, height + 2, width + 2))
    padded[:, 1:-1, 1:-1] = x

    def at(y: float, z: float) -> NDArray[np.float64]:
        if not (-1 < y < height and -1 < z < width):
            return np.zeros(channels)
        low_y, low_x = int(np.floor(y)), int(np.floor(z))
        fy, fx = y - low_y, z - low_x
        corners = padded[:, low_y + 1 : low_y + 3, low_x + 1 : low_x + 3]
        shares = np.outer((1 - fy, fy), (1 - fx, fx))
        return np.asarray((corners * shares).sum((1, 2)))

    out = np.zeros((weight.shape[0], height, width))
    for i, j, tap in np.ndindex(height, width, 9):
        y = i - 1 + tap // 3 + moves[2 * tap, i, j]
        z = j - 1 + tap % 3 + moves[2 * tap + 1, i, j]
        mask = 1 / (1 + np.exp(-moves[18 + tap, i, j]))
        out[:, i, j] += weight[:, :, tap // 3, tap % 3] @ at(y, z) * mask
    return out


@torch.no_grad()
def test_deformable_layers_are_their_formula() -> None:
    torch.manual_seed(0)
    layer = DeformableConvNorm(4, 5)
    nn.init.normal_(layer.offset.weight, std=0.5)
    layer.norm = nn.Identity()
    x = torch.randn(2, 4, 5, 7)
    moves = layer.offset(x).double().numpy()
    assert np.abs(moves[:, :18]).max() > 2  # some samples lie beyond the border
    found = layer(x).numpy()
    weight = layer.conv.weight.double().numpy()
    for n in range(2):
        wanted = plain_deformable(x[n].double().numpy(), moves[n], weight).clip(min=0)
        np.testing.assert_allclose(found[n], wanted, atol=1e-4)


@torch.no_grad()
def test_deformable_layers_run_in_onnxruntime() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    layer, buffer = DeformableConvNorm(4, 5).eval(), io.BytesIO()
    nn.init.normal_(layer.offset.weight, std=0.5)
    shake(layer)
    axes = {"x": {0: "N", 2: "H", 3: "W"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            layer, (torch.zeros(1, 4, 4, 4),), buffer, input_names=["x"],  # type: ignore[arg-type]
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    x = torch.randn(2, 4, 6, 5)
    (found,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found, layer(x).numpy(), atol=1e-4)


# --- RoIs -------------------------------------------------------------------------------------


def rois(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * 300
    size = 2 ** (torch.rand(count, 2, generator=generator) * 7 + 2.5)
    return torch.cat((corner, corner + size), 1)


@pytest.mark.parametrize("levels", [(3, 5), (3, 7), (4, 6), (4, 4), (3, 4)])
@pytest.mark.parametrize("assignment", RoiAssignment)
def test_levels_by_both_equations(levels: tuple[int, int], assignment: RoiAssignment) -> None:
    boxes, image = rois(400), 600.0 * 800.0
    first, last = levels
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).double().numpy()
    if assignment is CANONICAL:
        wanted = np.floor(4 + np.log2(np.sqrt(area) / 224))
    else:
        wanted = np.ceil(last - np.log2(image / area))
    found = levels_by(RoiRules(first, last, assignment), boxes, torch.full((400,), image))
    assert found.tolist() == wanted.clip(first, last).tolist()
    assert len(set(found.tolist())) > 1 or first == last


@pytest.mark.parametrize(("side", "level"), [(223.9, 3), (224.0, 4), (447.9, 4), (448.0, 5)])
def test_equation_1_puts_224_pixels_on_level_4(side: float, level: int) -> None:
    box = torch.tensor([[0.0, 0.0, side, side]])
    found = levels_by(RoiRules(3, 5, CANONICAL), box, torch.tensor([1e6]))
    assert found.tolist() == [level]


def test_features_come_from_the_level_of_the_rules() -> None:
    torch.manual_seed(0)
    pyramid = [torch.randn(1, 2, 64 >> n, 64 >> n) for n in range(5)]
    rules = RoiRules(4, 7, CANONICAL)
    boxes = torch.tensor([[0.0, 0, 100, 90], [5, 5, 500, 480], [0, 0, 2000, 1800]])
    found = pyramid_roi_align(pyramid, [boxes], [(512, 512)], 7, rules)
    for k, level in enumerate((4, 5, 7)):
        wanted = roi_align(pyramid[level - 3][0], boxes[k : k + 1], 1 / 2**level, 7)
        torch.testing.assert_close(found[k : k + 1], wanted)


def op_model(rules: RoiRules) -> onnx.ModelProto:
    """The op of these rules alone."""
    function = onnx.parser.parse_function(roi_align_text(rules))
    kinds: dict[str, tuple[int, list[str | int]]]
    kinds = {"rois": (1, ["R", 4]), "roi_image": (7, ["R"]), "image_size": (1, ["N", 2])}
    kinds |= {f"p{level}": (1, ["N", 2, f"H{level}", f"W{level}"]) for level in rules.levels}
    made = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node(
        function.name, list(kinds), ["features"], domain="centermask", output_size=7,
        plugin_namespace="centermask", plugin_version="1",
    )  # fmt: skip
    graph = onnx.helper.make_graph(
        [node],
        "op",
        [made(name, *kind) for name, kind in kinds.items()],
        [made("features", 1, ["R", 2, 7, 7])],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("centermask", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)


RULES = [
    RoiRules(3, 7, CANONICAL),
    RoiRules(3, 7),
    RoiRules(4, 4),
    RoiRules(4, 6),
    RoiRules(original=True),
    RoiRules(3, 6, CANONICAL, original=True),
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_the_op_gives_torchs_features_on_both_engines(rules: RoiRules) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    pyramid = [torch.randn(2, 2, 80 >> n, 96 >> n) for n in range(5)]
    sizes = [(630, 760), (640, 700)]
    boxes = [rois(40) - 60, rois(30) * 4]
    odd = torch.tensor([[50.0, 60, 50, 90], [0, 0, 0, 0], [900, 900, 990, 990]])  # empty, outside
    boxes[0] = torch.cat((boxes[0], odd))
    wanted = pyramid_roi_align(pyramid, boxes, sizes, 7, rules).numpy()
    areas = torch.tensor([float(h * w) for h, w in sizes])
    owner = torch.repeat_interleave(torch.arange(2), torch.tensor([43, 30]))
    levels = levels_by(rules, torch.cat(boxes), areas[owner])
    assert set(levels.tolist()) == set(rules.levels)
    feed = {
        "rois": torch.cat(boxes).numpy(),
        "roi_image": owner.numpy(),
        "image_size": np.array(sizes, np.float32),
        **{f"p{level}": pyramid[level - 3].numpy() for level in rules.levels},
    }
    content = op_model(rules).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feed)
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    inlined = onnx.inliner.inline_local_functions(op_model(rules))
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(inlined.SerializeToString(), b""), "CPU")
    np.testing.assert_allclose(compiled(feed)["features"], wanted, atol=2e-5)


# --- the whole network ------------------------------------------------------------------------


def noisy(config: ModelConfig) -> CenterMask:
    """Random weights that find things."""
    torch.manual_seed(0)
    model = CenterMask(config).eval()
    with torch.no_grad():
        assert model.head.cls_logits.bias is not None and model.head.box_pred.bias is not None
        model.head.cls_logits.weight.mul_(30)
        model.head.cls_logits.bias.fill_(-3.2)
        original = config.rules is Rules.ORIGINAL
        model.head.box_pred.weight.mul_(30 if original else 5)
        model.head.box_pred.bias.fill_(4.0 if original else 3.0)
        model.mask_head.predictor.weight.mul_(1e6)
        if model.mask_iou_head is not None:
            model.mask_iou_head.predictor.weight.mul_(10)
    return model


def pictures() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(7)
    images = 2 * rng.standard_normal((2, 3, 160, 192)).astype(np.float32)
    return images, np.array([[150, 190], [160, 170]], np.float32)


VARIANTS = {
    "equation 1, P3 to P7": changed(roi_assignment=CANONICAL, roi_levels=(3, 7)),
    "equation 2, P4, no SAM, no scores": changed(
        roi_levels=(4, 4), spatial_attention=False, mask_scoring=False, channel_attention="none"
    ),
    "the first release": with_original_rules(changed(channel_attention="se")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("switches")


@pytest.mark.parametrize("name", VARIANTS)
def test_engines_agree_with_torch(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(folder / "cache"))
    model = noisy(VARIANTS[name])
    path = export(model, folder / f"{len(name)}.onnx", {})
    images, sizes = pictures()
    wanted = run(model, images, sizes)
    assert wanted.count.min() > 3 and wanted.masks.std() > 0.1
    for engine in (EngineName.ONNXRUNTIME, EngineName.OPENVINO):
        assert_same(open_engine(path, engine).run(images, sizes), wanted)
    if model.mask_iou_head is None:
        np.testing.assert_array_equal(wanted.mask_scores, wanted.scores)
    with pytest.raises(ModelFileError, match=r"the model has CM\w+.* plugins do not know"):
        lower_for_tensorrt(onnx.load(str(path)), InputShape(1, 160, 192))


@pytest.mark.parametrize("name", VARIANTS)
def test_costs_of_layers_are_known_under_any_rules(name: str) -> None:
    shapes = tensor_shapes(build(CenterMask(VARIANTS[name]), {}), (2, 160, 192))
    assert shapes["roi_features"] == (100, 32, 14, 14)  # 50 RoIs a picture


def test_a_model_of_the_default_rules_keeps_its_ops() -> None:
    proto = build(CenterMask(changed(mask_scoring=False, channel_attention="se")), {})
    ours = {n.op_type for n in proto.graph.node if n.domain == "centermask"}
    assert ours == {"CMDecodeNMS", "CMPyramidRoIAlign", "CMSpatialAttention"}
    assert {f.name for f in proto.functions} == ours


@pytest.mark.parametrize("name", ["equation 1, P3 to P7", "the first release"])
def test_the_kernels_refuse_what_they_do_not_know(name: str) -> None:
    with pytest.raises(ConfigError, match="kernels know the RoIs of equation 2 on P3 to P5"):
        FixedCenterMask(CenterMask(VARIANTS[name]))


# --- configurations and files -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"roi_levels": (2, 5)}, "no range within 3 to 7"),
        ({"roi_levels": (5, 4)}, "no range within 3 to 7"),
        ({"backbone": "r50", "residual": False}, "switches of VoVNet; r50 has neither"),
        ({"backbone": "r50", "channel_attention": "se"}, "switches of VoVNet"),
        ({"channel_attention": "cbam"}, "Input should be 'ese', 'se' or 'none'"),
    ],
)
def test_switches_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        changed(**values)


NEW = ("channel_attention", "residual", "roi_assignment", "roi_levels", "spatial_attention")


def test_a_file_from_before_the_switches_is_read_as_it_was(tmp_path: Path) -> None:
    model, path = CenterMask(SMALL), tmp_path / "old.safetensors"
    checkpoint.save(path, model.state_dict(), SMALL)
    old = json.loads(SMALL.model_dump_json())
    for name in (*NEW, "mask_scoring", "rules"):
        del old[name]
    content = path.read_bytes()
    new = json.dumps(SMALL.model_dump_json())[1:-1].encode()
    text = json.dumps(json.dumps(old))[1:-1].encode()
    assert content.count(new) == 1
    # The header's length stands in its first eight bytes.
    header = int.from_bytes(content[:8], "little")
    body = content[8 : 8 + header].replace(new, text).ljust(header, b" ")
    path.write_bytes(content[:8] + body + content[8 + header :])
    found = checkpoint.load(path)
    assert found.config == SMALL
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in found.state_dict().items())


@pytest.mark.parametrize("name", VARIANTS)
def test_a_checkpoint_carries_its_switches(name: str, tmp_path: Path) -> None:
    model = CenterMask(VARIANTS[name])
    checkpoint.save(tmp_path / "a.safetensors", model.state_dict(), model.config)
    assert checkpoint.load(tmp_path / "a.safetensors").config == VARIANTS[name]


def test_what_the_official_code_never_had(tmp_path: Path) -> None:
    config = changed(channel_attention="se", backbone=Backbone.V19_SLIM_DW)
    checkpoint.save(tmp_path / "a.safetensors", CenterMask(config).state_dict(), config)
    with pytest.raises(ModelFileError, match="has SE blocks, which the official code never had"):
        convert.to_official_file(tmp_path / "a.safetensors", tmp_path / "a.pth")
