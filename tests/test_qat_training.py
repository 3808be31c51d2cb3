"""Training with rounding: it wins back what a hard layer lost, resumes bit by bit, says no."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import quantize_models as models
import torch
from numpy.typing import NDArray
from scenes import write_scenes
from torch import Tensor

from centermask_edge.cli import main
from centermask_edge.config import PRESETS, TrainConfig
from centermask_edge.data.sampling import BatchSampler
from centermask_edge.errors import ConfigError, ModelFileError
from centermask_edge.graph.export import build
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.quantize import Plan, QuantizationError, load_plan, max_int8, prepared
from centermask_edge.quantize.build import int8_record
from centermask_edge.quantize.qat import Start, start_from, trained_model
from centermask_edge.train.batches import Batch, batches
from centermask_edge.train.loop import Progress, train
from centermask_edge.train.qat import (
    QUANTIZED_FILE,
    QuantizedCenterMask,
    load_quantized,
    ranges_of,
)
from centermask_edge.train.setup import build_model, read_samples
from centermask_edge.train.state import STATE_FILE

pytestmark = pytest.mark.usefixtures("one_thread")

PERSON = PRESETS["person-efficientnet-lite0"].model_copy(update={"fpn_channels": 32})
HARD = 200.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A trained network with a layer that 8 bits are bad at, its INT8 file, and its data."""

    folder: Path
    data: Path
    checkpoint: Path
    network: CenterMask
    int8: onnx.ModelProto

    @property
    def start(self) -> Start:
        return start_from(self.int8, self.network, "int8.onnx")


def config(data: Path, output: Path, **values: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "annotations": (data,),
            "output": output,
            "steps": 4,
            "batch_size": 2,
            "optimizer": "adamw",
            "base_lr": 0.01,
            "schedule": "cosine",
            "warmup_steps": 1,
            "short_sides": (64,),
            "long_side": 96,
            "rois_per_image": 4,
            "ema_decay": 0.9,
            "teacher_classes": 0.0,
            "tensorboard": False,
            "save_every": 2,
            **values,
        }
    )


def make_hard(network: CenterMask) -> None:
    """One channel of the features at stride 8 gets large, and nothing reads it.

    The largest value seen, which PTQ takes for the range, leaves the other 39 few codes; that it
    need not be held is something only training can find out.
    """
    stages: Any = network.backbone.stages
    for block in stages[2]:
        for tensor in (block.project.norm.weight, block.project.norm.bias):
            tensor[0] *= HARD
    readers: list[Any] = [stages[2][1].expand.conv, stages[3][0].expand.conv]
    for conv in (*readers, network.fpn.lateral[0]):
        conv.weight.data[:, 0] = 0


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Scene:
    folder = tmp_path_factory.mktemp("qat")
    data = write_scenes(folder / "scenes")
    path = train(PERSON, config(data, folder / "float", steps=12, batch_norm=True))
    network = checkpoint.load(path)
    make_hard(network)
    hard = folder / "hard.safetensors"
    checkpoint.save(hard, network.state_dict(), network.config)
    pictures = [first_picture(s) for s in read_samples(config(data, folder), ("person",))[:3]]
    int8 = max_int8(build(network, {}), pictures)
    return Scene(folder, data, hard, network, int8)


def first_picture(sample: Any) -> NDArray[np.uint8]:
    from centermask_edge.data.augment import read_bgr

    return read_bgr(sample)


def batch_of(chosen: TrainConfig) -> Batch:
    samples = read_samples(chosen, PERSON.classes)
    stream = batches(samples, BatchSampler(samples, 4, None, 0), PERSON.preprocess, chosen)
    found = next(stream)
    stream.close()  # type: ignore[attr-defined]
    return found


def run(model: onnx.ModelProto, batch: Batch, names: list[str]) -> dict[str, NDArray[np.float32]]:
    """Tensors of an ONNX file through ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options)
    feed = {"image": batch.images.numpy(), "image_size": np.array(batch.image_sizes, np.float32)}
    return dict(zip(names, session.run(names, feed), strict=True))


def sqnr(exact: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    noise = float(np.square(exact - found).sum())
    return 10 * math.log10(float(np.square(exact).sum()) / noise)


def test_training_wins_back_what_a_hard_layer_lost(scene: Scene) -> None:
    start, seen = scene.start, list[float]()
    chosen = config(
        scene.data,
        scene.folder / "won",
        steps=16,
        # Plain descent: the ranges that matter have gradients 20 times those of the others.
        optimizer="sgd",
        momentum=0.0,
        schedule="step",
        warmup_steps=0,
        base_lr=0.001,
        range_lr_factor=7e6,
        checkpoint=scene.checkpoint,
        teacher=scene.checkpoint,
        teacher_weight=100.0,
        ema_decay=0.0,
        save_every=100,
    )
    train(PERSON, chosen, lambda p: seen.append(p.losses["loss_teacher"]), spec=start.spec)
    int8 = trained_model(*load_quantized(chosen.output, PERSON), start, {})
    batch, names = batch_of(chosen), ["p3", "logits_3"]
    exact, before, after = (
        run(model, batch, names) for model in (build(scene.network, {}), scene.int8, int8)
    )
    assert seen[-1] < 0.3 * seen[0]
    gains = [sqnr(exact[n], after[n]) - sqnr(exact[n], before[n]) for n in names]
    assert gains[0] > 6 and gains[1] > 3, gains
    group = scene.start.spec.ranges
    ranges = load_quantized(chosen.output, PERSON)[1]
    narrower = [g for g, largest in ranges.items() if largest < group[g].largest / 1.5]
    assert any("stages.2.1/Add" in name for name in narrower)
    record = int8_record(int8)
    assert record is not None and record["ranges"] == "trained"
    assert Plan.model_validate(record["plan"]) == load_plan("tensorrt")


def same_tree(a: object, b: object) -> bool:
    """Whether two states are equal, bit by bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_tree(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_tree, a, b))
    return a == b


class Stopped(Exception):
    """Stands for a machine that goes away."""


def stop_after_third(progress: Progress) -> None:
    if progress.step == 3:
        raise Stopped


def test_a_stopped_and_resumed_run_gives_the_same_bits(scene: Scene, tmp_path: Path) -> None:
    spec = scene.start.spec
    seen: dict[str, list[Progress]] = {"straight": [], "resumed": []}

    def go(name: str, on_step: Callable[[Progress], None]) -> None:
        chosen = config(scene.data, tmp_path / name, checkpoint=scene.checkpoint)
        train(PERSON, chosen, on_step, spec=spec)

    go("straight", seen["straight"].append)
    with pytest.raises(Stopped):
        go("resumed", stop_after_third)
    go("resumed", seen["resumed"].append)
    assert [p.step for p in seen["resumed"]] == [3, 4]
    for ours, wanted in zip(seen["resumed"], seen["straight"][2:], strict=True):
        assert (ours.losses, ours.grad_norm) == (wanted.losses, wanted.grad_norm)
    folders = [tmp_path / name for name in seen]
    states = [torch.load(f / STATE_FILE, weights_only=True) for f in folders]
    assert same_tree(*states)
    for name in ("last.safetensors", QUANTIZED_FILE):
        assert same_tree(*(checkpoint.read_safetensors(f / name)[0] for f in folders))
    # The comparison is worth something: ranges moved, and the average is not the present.
    first = {g: r.largest for g, r in spec.ranges.items()}
    averaged = ranges_of(checkpoint.read_safetensors(folders[0] / QUANTIZED_FILE)[0])
    assert averaged.keys() == first.keys()
    moved = [g for g in first if averaged[g] != pytest.approx(first[g], rel=1e-4)]
    assert len(moved) > 0.5 * len(first)
    assert averaged != ranges_of(states[0]["model"])


def test_what_is_saved_is_an_ordinary_checkpoint_and_a_whole(scene: Scene, tmp_path: Path) -> None:
    chosen = config(scene.data, tmp_path, steps=1, checkpoint=scene.checkpoint)
    path = train(PERSON, chosen, spec=scene.start.spec)
    plain = checkpoint.load(path)
    network, ranges = load_quantized(tmp_path, PERSON)
    assert same_tree(dict(plain.state_dict()), dict(network.state_dict()))
    assert ranges.keys() == scene.start.spec.ranges.keys()
    with pytest.raises(ModelFileError, match="checkpoint not found"):
        load_quantized(tmp_path / "elsewhere", PERSON)


# What does not fit is refused


def test_files_of_other_weights_are_refused(scene: Scene) -> None:
    other = CenterMask(PERSON)
    with pytest.raises(QuantizationError, match=r"made from other weights: weights_sha256 is \w"):
        start_from(scene.int8, other, "int8.onnx")
    with pytest.raises(QuantizationError, match="is not an INT8 file"):
        start_from(build(scene.network, {}), scene.network, "float.onnx")


def test_an_equalised_file_is_refused() -> None:
    torch.manual_seed(0)
    network = CenterMask(models.config(models.VOVNET))
    assert network.head.cls_logits.bias is not None
    network.head.cls_logits.bias.data.zero_()  # finds something
    for conv in network.mask_head.convs:
        torch.nn.init.uniform_(conv.get_parameter("bias"), 0.01, 0.05)
    equalised = max_int8(prepared(build(network, {}), equalise=True), models.pictures())
    with pytest.raises(QuantizationError, match="made with --equalise"):
        start_from(equalised, network, "int8.onnx")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"checkpoint": None}, "goes on from a trained checkpoint"),
        ({"bf16": True}, "bf16 does not go with rounding"),
        ({"batch_norm": True}, "batch_norm does not go with rounding"),
    ],
)
def test_settings_that_do_not_go_with_rounding(
    scene: Scene, tmp_path: Path, values: dict[str, object], message: str
) -> None:
    chosen = config(scene.data, tmp_path, **{"checkpoint": scene.checkpoint, **values})
    with pytest.raises(ConfigError, match=message):
        build_model(PERSON, chosen, scene.start.spec)


def test_a_checkpoint_of_another_model_is_refused(scene: Scene, tmp_path: Path) -> None:
    other = PERSON.model_copy(update={"classes": ("dog",)})
    with pytest.raises(ConfigError, match="of other classes or settings"):
        build_model(other, config(scene.data, tmp_path, checkpoint=scene.checkpoint))


def test_a_place_that_the_network_does_not_have_is_refused(scene: Scene) -> None:
    spec = scene.start.spec
    site = spec.weights[0]
    lost = replace(site, operation=replace(site.operation, module="backbone.tail"))
    with pytest.raises(ConfigError, match=r"rounds at Conv 0 of run 0 of backbone\.tail, which"):
        QuantizedCenterMask(CenterMask(PERSON), replace(spec, weights=(lost,)))


def test_ranges_of_frozen_stages_stay(scene: Scene, tmp_path: Path) -> None:
    chosen = config(scene.data, tmp_path, checkpoint=scene.checkpoint, frozen_stages=3)
    model = build_model(PERSON, chosen, scene.start.spec)
    assert isinstance(model, QuantizedCenterMask)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    ranges = {n for n in frozen if n.startswith("ranges.")}
    # What the stem and the first two stages read, and nothing of the others.
    assert any("image" in n for n in ranges)
    assert all("image" in n or "/stem/" in n or "stages|0" in n or "stages|1" in n for n in ranges)
    assert 8 <= len(ranges) < 16


def test_the_average_is_evaluated_with_rounding(scene: Scene, tmp_path: Path) -> None:
    chosen = config(scene.data, tmp_path, checkpoint=scene.checkpoint)
    model = build_model(PERSON, chosen, scene.start.spec)
    assert isinstance(model, QuantizedCenterMask)
    twin = model.twin({k: v.clone() for k, v in model.state_dict().items()})
    images = batch_of(chosen).images
    with torch.no_grad():
        ours, theirs = (m.eval().pyramid(images)[0] for m in (model, twin))
        exact = scene.network.pyramid(images)[0]
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, exact)
    assert not twin.training and model.state_dict().keys() == twin.state_dict().keys()


# The command


def test_the_command_writes_a_trained_int8_file(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ptq.onnx"
    onnx.save(scene.int8, path)
    words = ["qat", str(path), str(scene.data), "--checkpoint", str(scene.checkpoint)]
    words += ["--output", str(tmp_path / "run"), "--recipe", str(recipe(tmp_path))]
    assert main([*words, "--steps", "1", "--out", str(path)]) == 2
    assert "is the file to start from" in capsys.readouterr().err
    assert main([*words, "--steps", "1"]) == 0
    assert "accuracy was not measured" in capsys.readouterr().err
    written = onnx.load(tmp_path / "run" / "int8.onnx")
    record = int8_record(written)
    assert record is not None and record["ranges"] == "trained"
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())["train"]
    assert settings["teacher"] == settings["checkpoint"] == str(scene.checkpoint)
    # The sizes of the network's own preprocessing, where the recipe names none.
    assert settings["short_sides"] == [352] and settings["long_side"] == 96
    # Its own INT8 file is of other weights than the checkpoint's, and says so.
    words[1] = str(tmp_path / "run" / "int8.onnx")
    assert main([*words, "--steps", "1", "--out", str(tmp_path / "again.onnx")]) == 2
    assert "made from other weights" in capsys.readouterr().err


def recipe(folder: Path) -> Path:
    path = folder / "recipe.json"
    path.write_text(json.dumps({"train": {"batch_size": 2, "long_side": 96, "bf16": False}}))
    return path
