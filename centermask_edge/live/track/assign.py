"""Which row goes with which column so that the total gain is largest: exact, in numpy.

Shortest augmenting paths after Jonker and Volgenant (1987), the rectangular case as in Crouse
(2016): rows are assigned greedily, then by augmenting row reduction, and only for what is left a
path is searched. In a camera's pictures most objects have one candidate and are settled before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


def assign(gain: NDArray[np.floating]) -> tuple[Ints, Ints]:
    """The pairs of largest total gain, each row and column in at most one.

    A pair without gain (0 or less) is never made: leaving both alone is as good. Not a number
    counts as no gain. Equal totals are settled by the order of rows and columns.

    Args:
        gain: (R, C) what each pair is worth.

    Returns:
        int64 (P,) rows in ascending order, and int64 (P,) their columns.

    >>> rows, columns = assign(np.array([[0.9, 0.8], [0.7, -1.0]]))
    >>> rows.tolist(), columns.tolist()
    ([0, 1], [1, 0])
    """
    positive = np.asarray(gain > 0)
    partner = np.full(gain.shape[0], -1, np.int64)
    if positive.any():
        chosen = np.where(positive, gain, 0).argmax(1)
        alone = (positive.sum(1) == 1) & (positive.sum(0)[chosen] == 1)
        partner[alone] = chosen[alone]
        rows = np.flatnonzero(positive.any(1) & ~alone)
        if rows.size:
            columns = np.flatnonzero(positive[rows].any(0))
            worth = np.where(positive, gain, 0)[np.ix_(rows, columns)].astype(np.float64)
            found = _solve(-worth) if rows.size <= columns.size else _inverse(-worth)
            made = (found >= 0) & (worth[np.arange(rows.size), found] > 0)
            partner[rows[made]] = columns[found[made]]
    matched = np.flatnonzero(partner >= 0)
    return matched, partner[matched]


def _inverse(cost: Doubles) -> Ints:
    """``_solve`` where there are more rows than columns: -1 for a row without column."""
    column_of = np.full(cost.shape[0], -1, np.int64)
    row_of = _solve(np.ascontiguousarray(cost.T))
    column_of[row_of] = np.arange(row_of.size)
    return column_of


def _solve(cost: Doubles) -> Ints:
    """Column of every row at the least total cost, for (R, C) with R <= C."""
    price = np.zeros(cost.shape[1])
    column_of: list[int] = [-1] * cost.shape[0]
    row_of: list[int] = [-1] * cost.shape[1]
    left = _reduce(cost, price, column_of, row_of)
    rows = np.array(row_of, np.int64)
    for row in left:
        _augment(cost, price, column_of, rows, row)
    return np.array(column_of, np.int64)


def _reduce(cost: Doubles, price: Doubles, column_of: list[int], row_of: list[int]) -> list[int]:
    """Assigns what needs no search, and returns the rows left over.

    A row takes its cheapest column and lowers that column's price until the second cheapest is
    as good; who had the column before looks on, once.
    """
    waiting = list(range(cost.shape[0]))
    left: list[int] = []
    tries = 2 * len(waiting)
    while waiting:
        row = waiting.pop()
        reduced = cost[row] - price
        best = int(reduced.argmin())
        if cost.shape[1] > 1:
            least = reduced[best]
            reduced[best] = np.inf
            price[best] -= reduced.min() - least
        before = row_of[best]
        if before >= 0 and reduced.min(initial=np.inf) == np.inf:
            left.append(row)
            continue
        row_of[best], column_of[row] = row, best
        tries -= 1
        if before >= 0:
            column_of[before] = -1
            (waiting if tries > 0 else left).append(before)
    return left


def _augment(cost: Doubles, price: Doubles, column_of: list[int], row_of: Ints, start: int) -> None:
    """Assigns one more row along the shortest augmenting path, and keeps the prices optimal.

    All columns at the same distance are looked at together: with many equal gains, the path
    would else go through them one by one, past a free one.
    """
    open_distance = cost[start] - price
    distance = open_distance.copy()
    came_from = np.full(cost.shape[1], start)
    done = np.zeros(cost.shape[1], np.bool_)
    while True:
        nearest = (open_distance == open_distance.min()).nonzero()[0]
        length, rows = open_distance[nearest[0]], row_of[nearest]
        if rows.min() < 0:
            column = int(nearest[rows.argmin()])
            break
        done[nearest] = True
        distance[nearest] = length
        open_distance[nearest] = np.inf
        if rows.size == 1:  # the usual case, in a third of the time
            through = cost[rows[0]] - price
            through += length - through[nearest[0]]
            by = rows[0]
        else:
            ways = cost[rows] - price
            ways += (length - ways[np.arange(rows.size), nearest])[:, None]
            best = ways.argmin(0)
            through, by = ways[best, np.arange(best.size)], rows[best]
        through[done] = np.inf
        shorter = through < open_distance
        np.copyto(open_distance, through, where=shorter)
        np.copyto(came_from, by, where=shorter)
    price[done] += distance[done] - length
    while True:
        row = int(came_from[column])
        row_of[column] = row
        column_of[row], column = column, column_of[row]
        if row == start:
            return
