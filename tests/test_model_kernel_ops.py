from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from centermask_edge.config import preset
from centermask_edge.errors import KernelError
from centermask_edge.kernels.library import Library
from centermask_edge.model import kernel_ops
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.decode import detect, detect_with_kernel
from centermask_edge.model.fcos import DensePredictions
from centermask_edge.model.fixed import FixedCenterMask
from centermask_edge.model.kernel_arguments import check_attention
from centermask_edge.model.mask_heads import SpatialAttention
from centermask_edge.model.predict import run
from centermask_edge.model.roi import pyramid_roi_align, roi_align_with_kernel

pytestmark = pytest.mark.usefixtures("host", "one_thread")
ops = torch.ops.centermask


def pyramid(channels: int = 8, images: int = 2) -> list[Tensor]:
    return [torch.randn(images, channels, 32 >> n, 40 >> n) for n in range(3)]


BOXES = [
    torch.tensor([[3.0, 4, 60, 50], [0, 0, 320, 256], [10, 10, 230, 250]]),
    torch.tensor([[-30.0, 5, 90, 77]]),
]
SIZES = [(250, 310), (256, 320)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_roi_align(layout: torch.memory_format, dtype: torch.dtype) -> None:
    levels = [p.to(dtype).contiguous(memory_format=layout) for p in pyramid()]
    found = roi_align_with_kernel(levels, BOXES, SIZES)
    want = pyramid_roi_align([p.float() for p in levels], BOXES, SIZES)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(
        found.float(), want, atol=2e-3 if dtype.itemsize == 2 else 2e-5, rtol=2e-3
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_spatial_attention(layout: torch.memory_format, dtype: torch.dtype) -> None:
    module = SpatialAttention()
    x = torch.randn(3, 32, 14, 14).to(dtype).contiguous(memory_format=layout)
    found = ops.spatial_attention(x, module.conv.weight.to(dtype))
    assert found.stride() == x.stride()
    torch.testing.assert_close(found.float(), module(x.float()), atol=3e-3, rtol=3e-3)


def dense(images: int = 2, classes: int = 3) -> DensePredictions:
    shapes = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]
    return DensePredictions(
        [torch.randn(images, classes, *s) * 2 - 1 for s in shapes],
        [torch.rand(images, 4, *s) * 5 for s in shapes],
        [torch.randn(images, 1, *s) for s in shapes],
    )


def test_decoding() -> None:
    maps, config = dense(), preset("lite-v19").decode
    for found, want in zip(detect_with_kernel(maps, config), detect(maps, config), strict=True):
        torch.testing.assert_close(found.boxes, want.boxes)
        torch.testing.assert_close(found.scores, want.scores, atol=1e-6, rtol=1e-6)
        assert torch.equal(found.classes, want.classes)


def test_beyond_the_kernels_limits_the_model_decodes_in_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_ops, "usable", lambda _: True)
    maps, config = dense(), preset("lite-v19").decode
    wide = config.model_copy(update={"pre_nms_topk": 3000})
    for found, want in zip(detect(maps, wide), detect(maps, config), strict=True):
        torch.testing.assert_close(found.scores, want.scores, atol=1e-6, rtol=1e-6)


def test_nothing_found_is_no_error() -> None:
    none = [torch.zeros(0, 4), torch.zeros(0, 4)]
    assert roi_align_with_kernel(pyramid(), none, SIZES).shape == (0, 8, 14, 14)
    assert ops.spatial_attention(torch.zeros(0, 8, 14, 14), torch.zeros(1, 2, 3, 3)).numel() == 0


@pytest.mark.filterwarnings("ignore")  # torch's own, from its compiler
def test_the_operators_are_well_formed() -> None:
    levels, boxes = pyramid(), torch.cat(BOXES)
    owner, sizes = torch.tensor([0, 0, 0, 1]), torch.tensor(SIZES, dtype=torch.float32)
    maps = dense()
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (ops.pyramid_roi_align.default, (*levels, boxes, owner, sizes, 14)),
        (ops.spatial_attention.default, (torch.randn(2, 8, 5, 6), torch.randn(1, 2, 3, 3))),
        (
            ops.decode_nms.default,
            (maps.logits, maps.reg, maps.centerness, 0.05, 0.6, 1000, 50),
        ),
    ]
    for operator, arguments in calls:
        torch.library.opcheck(operator, arguments)


def small_model() -> CenterMask:
    torch.manual_seed(0)
    model = CenterMask(preset("lite-v19-slim")).eval()
    # Untrained, nothing passes the threshold; so raise the classes' bias until a few do.
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)
    return model


def test_the_fixed_network_gives_what_the_reference_gives() -> None:
    model = small_model()
    images, sizes = torch.randn(2, 3, 96, 128), torch.tensor([[90.0, 120.0], [96.0, 128.0]])
    found = FixedCenterMask(model)(images, sizes)
    want = run(model, images.numpy(), sizes.numpy())
    assert found.count.min() > 3
    for name in ("count", "classes"):
        assert (getattr(found, name).numpy() == getattr(want, name)).all(), name
    for name in ("boxes", "scores", "mask_scores", "masks"):
        got = getattr(found, name)
        torch.testing.assert_close(got, torch.from_numpy(getattr(want, name)), atol=1e-3, rtol=1e-4)


def test_on_a_cpu_the_model_stays_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kernel_ops.usable(torch.zeros(1))
    monkeypatch.setattr(ops, "spatial_attention", None)
    assert SpatialAttention()(torch.zeros(1, 2, 4, 4)).shape == (1, 2, 4, 4)


def test_a_machine_without_a_compiler_warns_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> Library:
        raise KernelError("no nvcc was found")

    kernel_ops._cuda.cache_clear()
    monkeypatch.setattr(kernel_ops, "load_cuda", missing)
    with pytest.warns(RuntimeWarning, match="without the CUDA kernels: no nvcc"):
        assert kernel_ops._cuda() is None
    assert kernel_ops._cuda() is None  # silent the second time
    kernel_ops._cuda.cache_clear()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(KernelError, match="takes float32 or float16 tensors; this one is torch"):
        ops.spatial_attention(torch.zeros(1, 2, 3, 3, dtype=dtype), torch.zeros(1, 2, 3, 3))


def rois_call(**changed: Any) -> Tensor:
    p3, p4, p5 = pyramid(images=1)
    arguments: dict[str, Any] = {
        "p3": p3,
        "p4": p4,
        "p5": p5,
        "rois": BOXES[0],
        "roi_image": torch.zeros(3, dtype=torch.int64),
        "image_size": torch.tensor([[256.0, 320.0]]),
        "side": 14,
    }
    return ops.pyramid_roi_align(**(arguments | changed))  # type: ignore[no-any-return]


# Each of these would make the kernel read or write beyond a tensor.
@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"p4": torch.zeros(1, 8, 16, 20).half()}, "maps of one type; these are torch.float16, "),
        ({"p5": torch.zeros(1, 4, 8, 10)}, r"p5 of shape \(1, 8, H, W\); this one has \(1, 4"),
        ({"p3": torch.zeros(8, 32, 40)}, r"p3 of shape \(N, C, H, W\)"),
        ({"rois": torch.zeros(3, 5)}, r"rois of shape \(R, 4\); this one has \(3, 5\)"),
        ({"roi_image": torch.zeros(2, dtype=torch.int64)}, r"roi_image of shape \(3,\)"),
        ({"roi_image": torch.zeros(3)}, "whole numbers as roi_image; these are torch.float32"),
        ({"image_size": torch.ones(2)}, r"image_size of shape \(1, 2\)"),
        ({"side": 0}, "side of at least 1"),
    ],
)
def test_rois_that_do_not_fit_are_refused(changed: dict[str, Any], text: str) -> None:
    assert rois_call().shape == (3, 8, 14, 14)
    with pytest.raises(KernelError, match=f"pyramid_roi_align takes .*{text}"):
        rois_call(**changed)


def test_an_attention_weight_of_another_shape_is_refused() -> None:
    with pytest.raises(KernelError, match=r"weight of shape \(1, 2, 3, 3\); this one has \(1, 1"):
        ops.spatial_attention(torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"reg": [torch.zeros(1, 4, 8, 2)]}, r"reg of shape \(1, 4, 8, 8\)"),
        ({"centerness": [torch.zeros(1, 1, 8, 7)]}, r"centerness of shape \(1, 1, 8, 8\)"),
        ({"centerness": []}, "1 to 5 levels, .* these are 1, 1, 0"),
        ({"logits": [], "reg": [], "centerness": []}, "1 to 5 levels"),
        ({"max_detections": 0}, "max_detections of at least 1"),
    ],
)
def test_maps_that_do_not_fit_are_refused(changed: dict[str, Any], text: str) -> None:
    arguments: dict[str, Any] = {
        "logits": [torch.zeros(1, 3, 8, 8)],
        "reg": [torch.zeros(1, 4, 8, 8)],
        "centerness": [torch.zeros(1, 1, 8, 8)],
        "score_threshold": 0.05,
        "nms_threshold": 0.6,
        "pre_nms_topk": 100,
        "max_detections": 5,
    }
    assert ops.decode_nms(**arguments)[0].shape == (1, 5, 4)
    with pytest.raises(KernelError, match=f"decode_nms takes .*{text}"):
        ops.decode_nms(**(arguments | changed))


def test_a_device_without_kernels_is_refused() -> None:
    with pytest.raises(KernelError, match="runs on cpu and cuda; these are on meta"):
        check_attention(
            torch.zeros(1, 2, 3, 3, device="meta"), torch.zeros(1, 2, 3, 3, device="meta")
        )


def test_a_gradient_is_refused_where_it_would_be_wrong() -> None:
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    out = ops.spatial_attention(x, torch.zeros(1, 2, 3, 3))
    with pytest.raises(RuntimeError, match="autograd"):
        out.sum().backward()


@pytest.mark.filterwarnings("ignore")  # torch's own, from its compiler
def test_the_fixed_network_compiles_in_one_graph() -> None:
    fixed = FixedCenterMask(small_model())
    images, sizes = torch.randn(1, 3, 64, 64), torch.tensor([[60.0, 64.0]])
    compiled = torch.compile(fixed, backend="eager", fullgraph=True)
    found, want = compiled(images, sizes), fixed(images, sizes)
    assert want.count.min() > 0
    torch.testing.assert_close(found.masks, want.masks)


@pytest.mark.filterwarnings("ignore")
def test_torchs_compiler_does_not_trace_the_building(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_ops, "_cuda", lambda: object())

    def run(x: Tensor) -> Tensor:
        return x + 1 if kernel_ops._available() else x

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(1)).item() == 1.0


def test_a_chosen_library_is_taken_for_gpus(host: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_ops, "_chosen", [])
    kernel_ops.use_library(host)
    assert kernel_ops._load_cuda() is host
    assert kernel_ops._available()
    kernel_ops._cuda.cache_clear()


def test_a_side_beyond_the_limit_is_refused() -> None:
    with pytest.raises(KernelError, match="limit"):
        rois_call(side=40)


BLOCKED = (
    "pydantic",
    "typer",
    "rich",
    "onnx",
    "onnxruntime",
    "openvino",
    "cv2",
    "PIL",
    "av",
    "pytest",
)


def test_the_network_and_the_kernels_need_nothing_but_torch_and_numpy() -> None:
    model = "centermask decode fcos roi mask_heads vovnet fpn layers mobile fixed kernel_ops"
    modules = [f"centermask_edge.model.{n}" for n in model.split()]
    modules += [f"centermask_edge.kernels.{n}" for n in ("library", "nvrtc", "device")]
    names = ("roi_align", "spatial_attention", "decode_nms", "preprocess", "mask_overlay")
    modules += [f"centermask_edge.kernels.cases.{n}" for n in names]
    code = (
        f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\nimport {', '.join(modules)}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
