"""Frames of several cameras through one engine, in batches of equal size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.base import Detections, Engine, Floats, FrameEngine
from centermask_edge.errors import CenterMaskError, KernelError
from centermask_edge.frame import Frame
from centermask_edge.live.result import Mode
from centermask_edge.live.schedule.governor import Setting
from centermask_edge.preprocess import Placement, Preprocess, Size

_MOST_ON_GPU = 8
_USUAL_FRAME = (1080, 1920)


@runtime_checkable
class MaskSkippingEngine(Protocol):
    """An engine that can leave the masks out, for frames between those whose masks are made."""

    @property
    def can_skip_masks(self) -> bool:
        """Whether that saves time with this model."""

    def run_without_masks(self, images: Floats, image_sizes: Floats) -> Detections:
        """As ``Engine.run``; masks and mask scores mean nothing."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frame on its way into the engine.

    Attributes:
        tensor: float32 (3, H, W); None where the engine prepares the frame itself.
        placement: where the picture lies in the input.
        setting, mode: what the governor asks, of all frames and of this one.
        prepare_s: seconds that preparing took.
    """

    frame: Frame
    tensor: Floats | None
    placement: Placement
    setting: Setting
    mode: Mode
    prepare_s: float


@dataclass(frozen=True, slots=True)
class Segmented:
    """A batch as it left the engine: picture ``i`` of ``raw`` is that of ``frames[i]``."""

    frames: tuple[Prepared, ...]
    raw: Detections
    engine_s: float


class Inference:
    """An engine with what live frames need of it; one thread may prepare while another runs.

    Args:
        engine: a loaded model.
        preprocess: how a frame becomes input.
    """

    def __init__(self, engine: Engine, preprocess: PreprocessConfig) -> None:
        self.engine, self.base = engine, preprocess
        self._by_side = {preprocess.short_side: Preprocess(preprocess)}
        self._on_gpu = engine if isinstance(engine, FrameEngine) else None
        self._skipping = (
            engine if isinstance(engine, MaskSkippingEngine) and engine.can_skip_masks else None
        )
        self.note = ""

    @property
    def can_skip_masks(self) -> bool:
        """Whether masks can be left out of a frame."""
        return self._skipping is not None

    def fits(self, batch: int, short_side: int | None = None) -> bool:
        """Whether the engine takes such batches, as far as it can tell beforehand."""
        check = getattr(self.engine, "check", None)
        if check is None:
            return True
        config = self._preprocess(short_side or self.base.short_side)
        try:
            check((batch, 3, *config.plan(*_USUAL_FRAME).padded_size))
        except CenterMaskError:
            return False
        return True

    def usual_batch(self, cameras: int) -> int:
        """Frames of a batch where the user does not say.

        One on a processor, where the time of a batch grows with its size, so that all its frames
        would be as late as the last one; on a GPU up to one of each camera.
        """
        if self._on_gpu is None:
            return 1
        sizes = range(min(cameras, _MOST_ON_GPU), 1, -1)
        return next((n for n in sizes if self.fits(n)), 1)

    def warm_up(self, batch: int, sides: Sequence[int] = ()) -> None:
        """Makes the engine ready for frames of the usual shape, which takes it a while once.

        Args:
            batch: most frames of a call.
            sides: short sides that will be used; the model's own where empty.
        """
        if self._on_gpu is not None:
            return
        for side in sides or (self.base.short_side,):
            placement = self._preprocess(side).plan(*_USUAL_FRAME)
            for count in sorted({1, batch}):
                images = np.zeros((count, 3, *placement.padded_size), np.float32)
                sizes = np.asarray([placement.resized_size] * count, np.float32)
                self.engine.run(images, sizes)

    def input_size(self, frame: Frame, short_side: int) -> Size:
        """(height, width) of the network's input for a frame."""
        return self._preprocess(short_side).plan(frame.height, frame.width).padded_size

    def prepare(self, frame: Frame, setting: Setting, mode: Mode, alone: bool) -> Prepared:
        """The frame as network input.

        Args:
            frame: a picture.
            setting: what the governor asks now.
            mode: what it asks of this frame.
            alone: whether no other frame will be in its batch.
        """
        start = time.perf_counter()
        preprocess = self._preprocess(setting.short_side)
        if alone and self._on_gpu is not None:
            plan = preprocess.plan(frame.height, frame.width)
            return Prepared(frame, None, plan, setting, mode, 0.0)
        tensor, placement = preprocess(frame.image)
        took = time.perf_counter() - start
        return Prepared(frame, tensor, placement, setting, mode, took)

    def run(self, frames: Sequence[Prepared]) -> Segmented:
        """What is in the frames of a batch, which have one input size and one kind of mode."""
        start = time.perf_counter()
        first = frames[0]
        if first.tensor is None:
            raw = self._segment(first)
        else:
            tensors = [frame.tensor for frame in frames if frame.tensor is not None]
            images = tensors[0][None] if len(tensors) == 1 else np.stack(tensors)
            raw = self._detect(images, frames, first.mode.masks)
        took = time.perf_counter() - start
        return Segmented(tuple(frames), raw, took)

    def _detect(self, images: Floats, frames: Sequence[Prepared], masks: bool) -> Detections:
        sizes = np.asarray([frame.placement.resized_size for frame in frames], np.float32)
        if masks or self._skipping is None:
            return self.engine.run(images, sizes)
        return self._skipping.run_without_masks(images, sizes)

    def _segment(self, item: Prepared) -> Detections:
        """Of a frame that the engine prepares; on the processor where the kernel for it fails."""
        preprocess = self._preprocess(item.setting.short_side)
        if self._on_gpu is not None:
            try:
                return self._on_gpu.segment(item.frame.image, preprocess.config)[0]
            except KernelError as error:
                self._on_gpu, self.note = None, f"frames are prepared on the processor: {error}"
        tensor, placement = preprocess(item.frame.image)
        sizes = np.asarray([placement.resized_size], np.float32)
        return self.engine.run(tensor[None], sizes)

    def _preprocess(self, short_side: int) -> Preprocess:
        if short_side not in self._by_side:
            long_side = round(self.base.long_side * short_side / self.base.short_side)
            update = {"short_side": short_side, "long_side": long_side}
            self._by_side[short_side] = Preprocess(self.base.model_copy(update=update))
        return self._by_side[short_side]
