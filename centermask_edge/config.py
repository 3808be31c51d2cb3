"""Every setting of the toolkit, typed, with its one default and the presets of the family.

Models are immutable; ``model_copy(update=...)`` makes a changed one. Sources of the numbers:
CenterMask (CVPR 2020) section 3 and table 3 for the Lite sizes; the values no paper states
(thresholds, top-k, pixel statistics) are the ones the official checkpoints were trained with.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from centermask_edge.backbone import Backbone as Backbone
from centermask_edge.errors import ConfigError
from centermask_edge.switches import ChannelAttention, RoiAssignment, RoiRules, Rules

COCO_CLASSES: tuple[str, ...] = tuple(  # the contiguous order of COCO 2017
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,"
    "backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,"
    "baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,"
    "knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,"
    "chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,"
    "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,"
    "hair drier,toothbrush".split(",")
)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PreprocessConfig(_Model):
    """How a picture becomes network input; the same object serves training and every engine.

    Resize to ``short_side`` unless the long side would pass ``long_side``, bilinear with
    antialiasing on uint8; then ``(x - mean) / std``; then zero padding on the right and the
    bottom to a multiple of ``pad_multiple``.
    """

    channel_order: Literal["bgr", "rgb"] = "bgr"
    mean: tuple[float, float, float] = (103.530, 116.280, 123.675)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    short_side: int = Field(600, ge=32, le=4096)
    long_side: int = Field(1000, ge=32, le=8192)
    pad_multiple: Literal[32] = 32

    @model_validator(mode="after")
    def _sides_in_order(self) -> PreprocessConfig:
        if self.long_side < self.short_side:
            raise ValueError(
                f"long_side {self.long_side} is smaller than short_side {self.short_side}"
            )
        return self


class DecodeConfig(_Model):
    """From dense predictions to at most ``max_detections`` boxes (FCOS section 3)."""

    score_threshold: float = Field(0.05, ge=0.0, lt=1.0)
    nms_threshold: float = Field(0.6, gt=0.0, le=1.0)
    pre_nms_topk: int = Field(1000, ge=1)
    max_detections: int = Field(50, ge=1, le=1000)


class ModelConfig(_Model):
    """The architecture, its classes and the numbers that belong to its weights.

    Attributes:
        fpn_channels: of the pyramid and of everything behind it.
        head_convs: convolutions of each tower of the box head.
        mask_convs: convolutions of the mask head.
        mask_iou_convs: convolutions of the mask-IoU head.
        mask_iou_fc: width of its two linear layers.
        channel_attention: behind every block of VoVNet (table 4); other bodies have none.
        residual: whether VoVNet's blocks of equal width add their input (table 4).
        roi_assignment: which equation finds the level of a RoI (table 1).
        roi_levels: lowest and highest level that RoIs are taken from (table 2).
        spatial_attention: whether the mask head has SAM (table 1).
        mask_scoring: whether a mask-IoU head weighs the scores (table 1); without one, mask scores
            are the box scores.
        rules: of inference; ``original`` is for weights of the first release.
    """

    name: str
    backbone: Backbone
    classes: tuple[str, ...] = COCO_CLASSES
    fpn_channels: int = Field(128, multiple_of=32)
    head_convs: int = Field(2, ge=1)
    mask_convs: int = Field(2, ge=1)
    mask_iou_convs: int = Field(2, ge=1)
    mask_iou_fc: int = Field(1024, ge=1)
    channel_attention: ChannelAttention = ChannelAttention.ESE
    residual: bool = True
    roi_assignment: RoiAssignment = RoiAssignment.ADAPTIVE
    roi_levels: tuple[int, int] = (3, 5)
    spatial_attention: bool = True
    mask_scoring: bool = True
    rules: Rules = Rules.CENTERMASK2
    preprocess: PreprocessConfig = PreprocessConfig()
    decode: DecodeConfig = DecodeConfig()

    @property
    def num_classes(self) -> int:
        """Number of object classes; there is no background class."""
        return len(self.classes)

    @property
    def roi_rules(self) -> RoiRules:
        """Where the features of a RoI come from."""
        first, last = self.roi_levels
        return RoiRules(first, last, self.roi_assignment, self.rules is Rules.ORIGINAL)

    @model_validator(mode="after")
    def _switches_fit(self) -> ModelConfig:
        first, last = self.roi_levels
        if not 3 <= first <= last <= 7:
            raise ValueError(f"roi_levels {first}, {last} are no range within 3 to 7")
        plain = self.residual and self.channel_attention is ChannelAttention.ESE
        if not plain and not self.backbone.is_vovnet:
            raise ValueError(
                f"channel_attention and residual are switches of VoVNet; {self.backbone.value} "
                "has neither"
            )
        return self


class TrainConfig(_Model):
    """One training run; the defaults are the paper's Lite recipe.

    The learning rate is stated for a batch of 16 and scaled linearly to ``batch_size``.
    """

    annotations: tuple[Path, ...] = ()
    val_annotations: Path | None = None
    init: Path | None = None  # weights of the backbone
    checkpoint: Path | None = None  # a whole trained network to go on from
    start: Path | None = None  # a trained network of any kind; what fits of it is taken
    output: Path = Path("runs/train")
    steps: int = Field(360_000, ge=1)
    epochs: float = Field(0.0, ge=0)  # passes over the pictures instead of steps; 0: steps count
    batch_size: int = Field(16, ge=1)  # pictures per optimiser step, of all processes
    auto_batch: bool = False  # the largest batch that fits on the GPU instead of batch_size
    accumulate: int = Field(1, ge=1)  # parts that the batch of a step is computed in
    optimizer: Literal["sgd", "adamw"] = "sgd"
    base_lr: float = Field(0.01, gt=0)
    backbone_lr_factor: float = Field(1.0, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    warmup_steps: int = Field(1000, ge=0)
    warmup_factor: float = Field(0.001, ge=0, le=1)
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[float, ...] = (300 / 360, 340 / 360)
    clip_norm: float = Field(0.0, ge=0)
    short_sides: tuple[int, ...] = Field((580, 600), min_length=1)
    long_side: int = Field(1000, ge=32)
    flip: float = Field(0.5, ge=0, le=1)
    jitter: tuple[float, float] | None = None  # range of scales; what grows is cropped
    paste: float = Field(0.0, ge=0, le=1)  # share of pictures that get objects of another
    assigner: Literal["fcos", "atss"] = "fcos"  # which cells learn which object
    pictures: int = Field(0, ge=0)  # learn from so many only, with clear objects; 0: from all
    masked_share: float | None = Field(None, ge=0, le=1)
    rois_per_image: int = Field(128, ge=1)
    train_proposals: int = Field(100, ge=1)
    ema_decay: float = Field(0.0, ge=0, lt=1)
    frozen_stages: int = Field(0, ge=0, le=4)
    batch_norm: bool = False  # learn the backbone's norms: for a start without ImageNet weights
    teacher: Path | None = None  # a trained model that is imitated
    teacher_weight: float = Field(1.0, ge=0)  # of its pyramid features
    teacher_classes: float = Field(1.0, ge=0)  # of its class probabilities
    range_lr_factor: float = Field(100.0, ge=0)  # of the ranges that rounding to 8 bits learns
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = Field(1, ge=1)  # threads that read and change pictures; a GPU wants several
    bf16: bool = False
    fp16: bool = False  # with a scaled loss; on CUDA only
    eval_every: int = Field(0, ge=0)
    patience: int = Field(0, ge=0)  # evaluations without a better mask AP before it stops; 0: never
    stop_at_ap: float = Field(0.0, ge=0, le=100)  # stop when box and mask AP reach it; 0: never
    seconds: float = Field(0.0, ge=0)  # stop with a checkpoint before so many have passed; 0: never
    save_every: int = Field(500, ge=1)
    tensorboard: bool = True
    seed: int = Field(0, ge=0)
    threads: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _values_go_together(self) -> TrainConfig:
        if self.bf16 and self.fp16:
            raise ValueError("bf16 and fp16 exclude each other; choose one")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}"
            )
        if self.jitter is not None and not 0 < self.jitter[0] <= self.jitter[1]:
            raise ValueError(f"jitter {self.jitter} is no range of scales above 0")
        if (self.patience or self.stop_at_ap) and not self.eval_every:
            raise ValueError("patience and stop_at_ap need eval_every, which is 0")
        if sum(p is not None for p in (self.init, self.checkpoint, self.start)) > 1:
            raise ValueError("init, checkpoint and start exclude each other; choose one")
        return self


_LITE = PreprocessConfig()
_FULL_WIDTHS = {"fpn_channels": 256, "head_convs": 4, "mask_convs": 4, "mask_iou_convs": 4}
# Of published ImageNet weights that were not made with the pixels of the official ones.
_TENSORFLOW: dict[str, object] = {
    "channel_order": "rgb",
    "mean": (127.0,) * 3,
    "std": (128.0,) * 3,
}
_IMAGENET: dict[str, object] = {
    "channel_order": "rgb",
    "mean": (123.675, 116.280, 103.530),
    "std": (58.395, 57.120, 57.375),
}
_PIXELS: dict[Backbone, dict[str, object]] = {
    Backbone.X101: {"std": (57.375, 57.120, 58.395)},
    **{b: _TENSORFLOW for b in Backbone if b.value.startswith("efficientnet")},
    **{b: _IMAGENET for b in Backbone if b.value.startswith("hrnet")},
}
_V1 = {"channel_attention": ChannelAttention.NONE, "residual": False}


def _two_sizes(backbone: Backbone, suffix: str = "", **changes: object) -> Iterator[ModelConfig]:
    """The Lite model of a body, and the full one (CenterMask section 2.6)."""
    body, pixels = f"{backbone.value}{suffix}", _PIXELS.get(backbone, {})
    values = {"backbone": backbone, **changes}
    preprocess = _LITE.model_copy(update=pixels)
    yield ModelConfig.model_validate({"name": f"lite-{body}", "preprocess": preprocess, **values})
    preprocess = preprocess.model_copy(update={"short_side": 800, "long_side": 1333})
    values |= {"name": body, "preprocess": preprocess, **_FULL_WIDTHS}
    yield ModelConfig.model_validate(values)


def _family() -> Iterator[ModelConfig]:
    """Both sizes of every body of the paper's tables, VoVNetV1 among them."""
    for backbone in Backbone:
        yield from _two_sizes(backbone)
    for backbone in (Backbone.V39, Backbone.V57, Backbone.V99):
        yield from _two_sizes(backbone, "-v1", **_V1)


def _person(name: str, backbone: Backbone) -> ModelConfig:
    """One class at a small size, with the pixel statistics of EfficientNet's ImageNet weights."""
    return ModelConfig(
        name=name,
        backbone=backbone,
        classes=("person",),
        mask_iou_fc=256,
        preprocess=PreprocessConfig(
            channel_order="rgb",
            mean=(127.0,) * 3,
            std=(128.0,) * 3,
            short_side=352,
            long_side=640,
        ),
    )


# Names: [lite-]BODY[-v1]; BODY is a value of Backbone, -v1 is VoVNet without eSE and residuals.
PRESETS: dict[str, ModelConfig] = {
    preset.name: preset
    for preset in (
        *_family(),
        _person("person-efficientnet-lite0", Backbone.EFFICIENTNET_LITE0),
        _person("person-v19-slim", Backbone.V19_SLIM),
    )
}


def preset(name: str) -> ModelConfig:
    """The preset of that name.

    Raises:
        ConfigError: no preset has that name.

    >>> preset("lite-v19").fpn_channels, preset("v19").fpn_channels
    (128, 256)
    """
    try:
        return PRESETS[name]
    except KeyError:
        near = difflib.get_close_matches(name, PRESETS, 4, 0.0)
        raise ConfigError(
            f"unknown preset {name!r}; nearest are {', '.join(near)}; "
            "centermask-edge models lists all"
        ) from None


def with_original_rules(config: ModelConfig) -> ModelConfig:
    """The model as the first release of CenterMask ran it, with that release's pixel mean."""
    pixels = {"channel_order": "bgr", "mean": (102.9801, 115.9465, 122.7717), "std": (1.0,) * 3}
    return config.model_copy(
        update={
            "name": f"{config.name}-original",
            "rules": Rules.ORIGINAL,
            "preprocess": config.preprocess.model_copy(update=pixels),
            "decode": config.decode.model_copy(update={"score_threshold": 0.03}),
        }
    )
