"""The order in which samples are drawn: endless, shuffled, resumable.

Pictures with masks and pictures with boxes only are drawn in a fixed proportion, and each batch
is either upright or landscape, so that little of it is padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from centermask_edge.data.coco import Sample


class Pool:
    """An endless stream over some indices, newly shuffled each time it has given them all."""

    def __init__(self, indices: Sequence[int], seed: int) -> None:
        self.indices = np.asarray(indices, dtype=np.int64)
        self.seed = seed
        self.drawn = 0
        self._epoch = -1
        self._order = self.indices

    def draw(self, count: int) -> list[int]:
        """The next ``count`` indices."""
        result = []
        for _ in range(count):
            epoch, place = divmod(self.drawn, len(self.indices))
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = np.random.default_rng((self.seed, epoch)).permutation(self.indices)
            result.append(int(self._order[place]))
            self.drawn += 1
        return result


class BatchSampler:
    """Indices of batches; ``state`` and ``restore`` make it continue where it was.

    Args:
        samples: everything that may be drawn; pictures without an object are left out.
        batch_size: indices per batch.
        masked_share: share of each batch that has masks; None keeps the natural share.
        seed: decides the order.

    Raises:
        ValueError: no sample has an object.
    """

    def __init__(
        self, samples: Sequence[Sample], batch_size: int, masked_share: float | None, seed: int
    ) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self.step = 0
        useful = [i for i, s in enumerate(samples) if len(s.boxes)]
        if not useful:
            raise ValueError("no picture has an object to learn")
        masked = {i for i in useful if samples[i].polygons is not None}
        natural = len(masked) / len(useful)
        self.share = natural if masked_share is None or not masked else masked_share
        if len(masked) == len(useful):
            self.share = 1.0
        upright = {i for i in useful if samples[i].height > samples[i].width}
        self.upright_share = len(upright) / len(useful)
        self.pools: dict[tuple[bool, bool], Pool] = {}
        for has_mask in (True, False):
            for is_upright in (True, False):
                members = [
                    i for i in useful if (i in masked) == has_mask and (i in upright) == is_upright
                ]
                if members:
                    key = (has_mask, is_upright)
                    self.pools[key] = Pool(members, seed * 4 + has_mask * 2 + is_upright)

    def next(self) -> list[int]:
        """Indices of the next batch."""
        rng = np.random.default_rng((self.seed, 7919, self.step))
        self.step += 1
        upright = bool(rng.random() < self.upright_share)
        exact = self.batch_size * self.share
        with_masks = int(exact) + bool(rng.random() < exact - int(exact))
        result: list[int] = []
        for has_mask, count in ((True, with_masks), (False, self.batch_size - with_masks)):
            pool = self.pools.get((has_mask, upright)) or self.pools.get((has_mask, not upright))
            pool = pool or next(iter(self.pools.values()))
            result += pool.draw(count)
        return result

    def state(self) -> dict[str, int]:
        """Everything needed to continue the same order."""
        drawn = {f"{int(m)}{int(u)}": p.drawn for (m, u), p in self.pools.items()}
        return {"step": self.step, **drawn}

    def restore(self, state: dict[str, int]) -> None:
        """Continue from a ``state()``."""
        self.step = state["step"]
        for (has_mask, upright), pool in self.pools.items():
            pool.drawn = state[f"{int(has_mask)}{int(upright)}"]
