"""Training views as a run's settings ask for them: flip, scale jitter, pasted objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from centermask_edge.config import PreprocessConfig, TrainConfig
from centermask_edge.data.augment import Picture, View, as_view, cropped, read_picture, resized
from centermask_edge.data.coco import Sample
from centermask_edge.data.paste import paste
from centermask_edge.preprocess import resized_size

_SMALLEST = 32  # pixels; a picture is not made smaller than that
_PASTED = 0.5  # chance of each object of the other picture


class Views:
    """Makes views of samples; all chance comes from the generator that a call is given.

    Args:
        samples: of the run.
        prep: pixel statistics and padding.
        config: which augmentations, how strong.
    """

    def __init__(
        self, samples: Sequence[Sample], prep: PreprocessConfig, config: TrainConfig
    ) -> None:
        self.samples, self.prep, self.config = samples, prep, config
        self.donors = [i for i, s in enumerate(samples) if s.polygons is not None and len(s.boxes)]

    def make(self, index: int, *, short_side: int, rng: np.random.Generator) -> View:
        """A view of a sample.

        Raises:
            DatasetError: see ``read_bgr``.
        """
        picture = self._picture(index, short_side, rng)
        wanted = bool(rng.random() < self.config.paste)
        if wanted and picture.polygons is not None and self.donors:
            donor = self._picture(int(rng.choice(self.donors)), short_side, rng)
            chosen = np.flatnonzero(rng.random(len(donor.boxes)) < _PASTED).tolist()
            if not chosen and len(donor.boxes):
                chosen = [int(rng.integers(len(donor.boxes)))]
            picture = paste(picture, donor, chosen)
        return as_view(picture, self.prep)

    def _picture(self, index: int, short_side: int, rng: np.random.Generator) -> Picture:
        """Flipped and scaled by chance; what grows beyond its plain size is cut to it."""
        picture = read_picture(self.samples[index], flip=bool(rng.random() < self.config.flip))
        height, width = resized_size(*picture.size, short_side, self.config.long_side)
        if self.config.jitter is None:
            return resized(picture, height, width)
        scale = rng.uniform(*self.config.jitter)
        large = [max(int(side * scale + 0.5), _SMALLEST) for side in (height, width)]
        picture = resized(picture, *large)
        top, left = (
            int(rng.integers(max(found - wanted, 0) + 1))
            for found, wanted in zip(large, (height, width), strict=True)
        )
        return cropped(picture, left, top, width, height)
