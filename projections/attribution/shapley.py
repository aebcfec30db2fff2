"""Shapley values of campaigns, over the rates at which paths were won.

v(S) = wins ÷ paths among the paths whose campaigns all lie in S; 0 where there is none. Rates,
not numbers of wins: over those every path would share out equally among its own campaigns.
"""

from __future__ import annotations

from math import factorial
from typing import Final

import numpy as np

from projections.attribution.markov import Floats
from projections.attribution.paths import Ints, Paths

EXACT: Final = 12
"""Up to so many campaigns all coalitions are looked at; above, orders are sampled."""

MOST_ORDERS: Final = 2_000
LEAST_ORDERS: Final = 200
_LOOKS = 150_000_000
"""Members of coalitions that may be looked at; decides how many orders are sampled."""

_SEED = 20_240_229


def shapley(paths: Paths) -> tuple[Floats, Floats | None, int]:
    """Each campaign's value; their standard errors and the number of orders, where sampled (None
    and 0: exact). Values may be negative; they sum to the rate of all paths."""
    if len(paths.campaigns) <= EXACT:
        return _exact(paths), None, 0
    return _sampled(paths)


def _exact(paths: Paths) -> Floats:
    size = len(paths.campaigns)
    masks = np.bitwise_or.reduceat(1 << paths.touches, paths.starts)
    wins = np.bincount(masks, weights=paths.won, minlength=1 << size)
    ended = np.bincount(masks, weights=paths.won + paths.lost, minlength=1 << size)
    for bit in range(size):  # sums over all subsets, one member after the other
        for sums in (wins, ended):
            halves = sums.reshape(-1, 2, 1 << bit)
            halves[:, 1] += halves[:, 0]
    value = np.divide(wins, ended, out=np.zeros_like(wins), where=ended > 0)
    coalitions = np.arange(1 << size)
    members = np.bitwise_count(coalitions)
    weight = np.array(
        [factorial(m) * factorial(size - m - 1) / factorial(size) for m in range(size)]
    )
    values = np.empty(size)
    for place in range(size):
        outside = coalitions[(coalitions >> place & 1) == 0]
        gain = value[outside | 1 << place] - value[outside]
        values[place] = (weight[members[outside]] * gain).sum()
    return values


def _sampled(paths: Paths) -> tuple[Floats, Floats, int]:
    """Random orders of arrival, each with its reverse, whose errors partly cancel."""
    size = len(paths.campaigns)
    members, starts, won, ended = _coalitions(paths)
    orders = int(np.clip(_LOOKS // len(members), LEAST_ORDERS, MOST_ORDERS)) // 2 * 2
    random = np.random.default_rng(_SEED)
    total, squares = np.zeros(size), np.zeros(size)
    for _ in range(orders // 2):
        order = random.permutation(size)
        gains = np.zeros(size)
        for arrival in (order, order[::-1]):
            rank = np.empty(size, dtype=np.int64)
            rank[arrival] = np.arange(size)
            complete = np.maximum.reduceat(rank[members], starts)
            wins = np.cumsum(np.bincount(complete, weights=won, minlength=size))
            paths_in = np.cumsum(np.bincount(complete, weights=ended, minlength=size))
            value = np.divide(wins, paths_in, out=np.zeros(size), where=paths_in > 0)
            gains[arrival] += np.diff(value, prepend=0.0) / 2
        total += gains
        squares += gains * gains
    pairs = orders // 2
    mean = total / pairs
    variance = np.clip(squares / pairs - mean * mean, 0, None) * pairs / (pairs - 1)
    return mean, np.sqrt(variance / pairs), orders


def _coalitions(paths: Paths) -> tuple[Ints, Ints, Ints, Ints]:
    """The paths as sets of campaigns, each set once: members, starts, wins, paths."""
    owner = np.repeat(np.arange(len(paths.starts)), paths.lengths)
    pairs = np.unique(np.stack((owner, paths.touches), axis=1), axis=0)
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    sets: dict[bytes, int] = {}
    kept: list[Ints] = []
    of_path = np.empty(len(starts), dtype=np.int64)
    for path, members in enumerate(np.split(pairs[:, 1], starts[1:])):
        number = sets.setdefault(members.tobytes(), len(sets))
        if number == len(kept):
            kept.append(members)
        of_path[path] = number
    won = np.bincount(of_path, weights=paths.won).astype(np.int64)
    ended = np.bincount(of_path, weights=paths.won + paths.lost).astype(np.int64)
    firsts = np.cumsum([0, *(len(members) for members in kept[:-1])])
    return np.concatenate(kept), firsts, won, ended
