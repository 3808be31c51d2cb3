"""How sure a difference of two APs is, given that the set holds only so many pictures.

A jackknife: the difference is measured again with one group of pictures left out, for each group in
turn, and the spread of these figures gives the interval. Both models lose the same pictures, so
what is common to them cancels. Source: Efron and Tibshirani, An Introduction to the Bootstrap,
chapter 11 (delete-d jackknife, groups of equal size).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

GROUPS = 20
_NORMAL_95 = 1.96


def jackknife(
    difference: Callable[[Sequence[int]], float | None],
    pictures: Sequence[int],
    groups: int = GROUPS,
) -> tuple[float, float] | None:
    """The approximate 95 % interval of a difference; None where the set is too small to say.

    Args:
        difference: of the two models on the pictures of these ids; None where it is undefined.
        pictures: ids of all.
        groups: pictures are dealt into so many, in turn.

    >>> jackknife(lambda ids: 0.5, [1, 2, 3])
    (0.5, 0.5)
    """
    count = min(groups, len(pictures))
    if count < 2:
        return None
    middle = difference(pictures)
    parts = [
        difference([p for i, p in enumerate(pictures) if i % count != g]) for g in range(count)
    ]
    known = [p for p in parts if p is not None]
    if middle is None or len(known) != count:
        return None
    spread = np.sqrt((count - 1) * np.mean((np.array(known) - np.mean(known)) ** 2))
    half = float(_NORMAL_95 * spread)
    return middle - half, middle + half
