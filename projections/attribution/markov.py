"""Markov chains over campaigns: what would be won less if a campaign led nowhere.

After Anderl et al., "Mapping the customer journey" (2016): states are start, the campaigns, win
and nothing; the removal effect of a campaign is the part of the chance to win that is lost when
every step to it leads to nothing instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import NDArray

from projections.attribution.paths import Paths

Floats: TypeAlias = NDArray[np.float64]

DENSE = 4_000
"""Up to so many campaigns all of the fundamental matrix is held: 128 MB, a few seconds. Where most
campaigns follow on most others, factors that leave out zeros are as large and take far longer."""

_AT_ONCE = 256
"""Columns of the fundamental matrix held at one time."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Chances of steps: from the start to each campaign, between campaigns, to the win."""

    first: Floats
    steps: Any
    """A sparse matrix, row to column."""
    winning: Floats


def chain_of(paths: Paths) -> Chain:
    """The first-order chain of the paths; a step from a campaign to itself counts for nothing."""
    size = len(paths.campaigns)
    weights = (paths.won + paths.lost).astype(np.float64)
    last = paths.starts + paths.lengths - 1
    by_touch = np.repeat(weights, paths.lengths)
    inner = np.ones(len(paths.touches), dtype=bool)
    inner[last] = False
    origin = np.flatnonzero(inner)
    source, target = paths.touches[origin], paths.touches[origin + 1]
    real = source != target
    steps = scipy.sparse.coo_matrix(
        (by_touch[origin][real], (source[real], target[real])), shape=(size, size)
    ).tocsr()
    ends = paths.touches[last]
    winning = np.bincount(ends, weights=paths.won, minlength=size)
    ending = np.bincount(ends, weights=weights, minlength=size)
    out = np.asarray(steps.sum(axis=1)).ravel() + ending
    first = np.bincount(paths.touches[paths.starts], weights=weights, minlength=size)
    return Chain(
        first / weights.sum(), steps.multiply(1 / out[:, np.newaxis]).tocsr(), winning / out
    )


def blocked(chain: Chain, place: int) -> Chain:
    """The chain in which every step to the campaign leads to nothing instead."""
    first, winning = chain.first.copy(), chain.winning.copy()
    first[place] = winning[place] = 0
    keep = np.ones(len(first))
    keep[place] = 0
    steps = chain.steps.multiply(keep[:, np.newaxis]).multiply(keep[np.newaxis, :]).tocsr()
    return Chain(first, steps, winning)


def removal_effects(chain: Chain) -> tuple[float, Floats]:
    """The chance to win, and the part of it that each campaign's removal takes away.

    With N the fundamental matrix (I − steps)⁻¹ and x = N·winning: the paths that ever come to
    campaign c are the expected visits to it divided by N_cc, and win from there with x_c. So one
    factorization serves all campaigns. N exists, since every campaign has a path that ends.
    """
    solved = _dense if len(chain.first) <= DENSE else _sparse
    win_from, visits, returns = solved(chain)
    chance = float(chain.first @ win_from)
    if chance <= 0:
        return 0.0, np.zeros(len(chain.first))
    return chance, np.clip(visits / returns * win_from / chance, 0, 1)


def _dense(chain: Chain) -> tuple[Floats, Floats, Floats]:
    """x, the expected visits, and N_cc."""
    size = len(chain.first)
    matrix = chain.steps.toarray(order="F")
    np.negative(matrix, out=matrix)  # in place, like all that follows: it is large
    matrix[np.diag_indices(size)] += 1
    factors, pivots, _ = scipy.linalg.lapack.dgetrf(matrix, overwrite_a=True)
    work = int(scipy.linalg.lapack.dgetri_lwork(size)[0])
    fundamental, _ = scipy.linalg.lapack.dgetri(factors, pivots, lwork=work, overwrite_lu=True)
    return fundamental @ chain.winning, chain.first @ fundamental, np.diagonal(fundamental)


def _sparse(chain: Chain) -> tuple[Floats, Floats, Floats]:
    size = len(chain.first)
    matrix = (scipy.sparse.identity(size, format="csc") - chain.steps).tocsc()
    factors = scipy.sparse.linalg.splu(matrix)
    returns = np.empty(size)
    for start in range(0, size, _AT_ONCE):
        places = np.arange(start, min(start + _AT_ONCE, size))
        columns = np.zeros((size, len(places)))
        columns[places, np.arange(len(places))] = 1
        returns[places] = factors.solve(columns)[places, np.arange(len(places))]
    return factors.solve(chain.winning), factors.solve(chain.first, trans="T"), returns
