"""How widely the income of independent deals is spread: median and intervals.

Each deal brings its amount or nothing. Of a few deals all outcomes are gone through; of more, the
wins of groups with about the same chance and amount are drawn, as binomial counts. A large amount
is a group of its own: groups are of amounts within a quarter of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

SEED: Final = 20_251
DRAWS: Final = 5_000
LEVELS: Final = (0.5, 0.8, 0.95)
EXACT: Final = 12
"""So many deals have at most 4,096 outcomes."""
_CHANCES: Final = 12
_AMOUNTS: Final = 4.0
"""Steps of amounts to a factor of e."""

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """`intervals`: (low, high) of each of LEVELS, with equal chances below and above.

    Quantiles are values that do occur: the least one that is reached with the chance in question.
    """

    median: float
    intervals: tuple[tuple[float, float], ...]


def spread(
    deals: NDArray[Any], chances: Floats, amounts: Floats, *, stream: int = 0, draws: int = DRAWS
) -> Spread:
    """Of groups of `deals[i]` deals, each of which brings `amounts[i]` with chance `chances[i]`.

    The same for the same arguments; `stream` tells sums apart that should not depend on each
    other.
    """
    possible = (deals > 0) & (chances > 0) & (amounts > 0)
    deals, chances, amounts = deals[possible], chances[possible], amounts[possible]
    if not len(deals):
        return Spread(0.0, ((0.0, 0.0),) * len(LEVELS))
    if deals.sum() <= EXACT:
        values, weights = _outcomes(deals, chances, amounts)
    else:
        values = np.sort(_drawn(*_bundled(deals, chances, amounts), stream, draws))
        weights = np.full(draws, 1 / draws)
    reached = np.cumsum(weights) + 1e-12  # the last bits of a sum decide nothing

    def quantile(level: float) -> float:
        return float(values[min(int(np.searchsorted(reached, level)), len(values) - 1)])

    return Spread(
        quantile(0.5),
        tuple((quantile((1 - level) / 2), quantile((1 + level) / 2)) for level in LEVELS),
    )


def _outcomes(deals: NDArray[Any], chances: Floats, amounts: Floats) -> tuple[Floats, Floats]:
    """All sums in order, each with its chance."""
    values, weights = np.zeros(1), np.ones(1)
    for count, chance, amount in zip(deals, chances, amounts, strict=True):
        for _ in range(int(count)):
            values = np.concatenate((values, values + amount))
            weights = np.concatenate((weights * (1 - chance), weights * chance))
    order = np.argsort(values, kind="stable")
    return values[order], weights[order]


def _bundled(
    deals: NDArray[Any], chances: Floats, amounts: Floats
) -> tuple[NDArray[Any], Floats, Floats]:
    """Fewer groups: of like chances and amounts. Their expectations are those of the deals."""
    chance_step = np.minimum((chances * _CHANCES).astype(np.int64), _CHANCES - 1)
    amount_step = np.floor(np.log(amounts) * _AMOUNTS).astype(np.int64)
    _, group = np.unique(amount_step * _CHANCES + chance_step, return_inverse=True)
    many = np.bincount(group, deals)
    wins = np.bincount(group, deals * chances)
    income = np.bincount(group, deals * chances * amounts)
    return np.rint(many).astype(np.int64), np.minimum(wins / many, 1.0), income / wins


def _drawn(
    deals: NDArray[Any], chances: Floats, amounts: Floats, stream: int, draws: int
) -> Floats:
    random = np.random.default_rng((SEED, stream))
    income = np.zeros(draws)
    for count, chance, amount in zip(deals, chances, amounts, strict=True):
        income += random.binomial(count, chance, draws) * amount
    return income


def variance(squares: Floats, chances: Floats) -> float:
    """Of the income of independent deals; `squares`: of the amounts, summed over a group."""
    return float(np.sum(squares * chances * (1 - chances)))


def levels() -> Sequence[str]:
    return [f"{level:g}" for level in LEVELS]
