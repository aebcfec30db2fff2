"""The models of attribution, and how a rule model weighs the touches of a won deal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import isqrt, lcm
from typing import Final

from domain.definitions import AttributionDefinition
from projections.attribution.exact import split

_DAY: Final = timedelta(days=1) // timedelta.resolution


class Model(StrEnum):
    """How won revenue goes to campaigns.

    A rule model gives each deal's amount to its touches. A data-driven one gives the revenue of
    all deals that had a touch to campaigns, and no deal's amount to anybody.
    """

    FIRST = "first"
    LAST = "last"
    LINEAR = "linear"
    U = "u"
    W = "w"
    FULL_PATH = "full_path"
    TIME_DECAY = "time_decay"
    MARKOV = "markov"
    SHAPLEY = "shapley"


DATA_DRIVEN: Final = (Model.MARKOV, Model.SHAPLEY)
RULES: Final = tuple(model for model in Model if model not in DATA_DRIVEN)


class RuleModels:
    """The rule models under a definition."""

    def __init__(self, definition: AttributionDefinition) -> None:
        self._half_life = Fraction(definition.half_life_days) * _DAY
        first, middle, last = definition.u
        self._u = _whole((first, last, middle))
        self._w = _whole(definition.w)
        self._full_path = _whole(definition.full_path)

    def credits(
        self,
        units: int,
        times: Sequence[datetime],
        lead: int | None,
        opportunity: int | None,
    ) -> list[list[int]]:
        """The share of each touch under each model, in the order of RULES.

        `units`: the amount in minor units; `times` of the touches, oldest first, at least one;
        `lead` and `opportunity`: the places of these anchors among them. Every model's shares sum
        to `units` (largest remainder, the earlier first). A touch that is two anchors gets both
        shares; the share of an anchor that is not among the touches, and that of the middle if
        there is none, go to the rest in proportion.
        """
        count = len(times)
        first, last = [0] * count, [0] * count
        first[0] = last[-1] = units
        if count == 1:
            return [first] * len(RULES)
        close = count - 1
        return [
            first,
            last,
            split(units, [1] * count),
            split(units, _anchored(count, self._u, (0, close))),
            split(units, _anchored(count, self._w, (0, lead, opportunity))),
            split(units, _anchored(count, self._full_path, (0, lead, opportunity, close))),
            split(units, self._decayed(times)),
        ]

    def _decayed(self, times: Sequence[datetime]) -> list[int]:
        """Weights that halve with every half-life before the last touch."""
        newest, microsecond = times[-1], timedelta.resolution
        return [_halved(Fraction((newest - at) // microsecond) / self._half_life) for at in times]


def _halved(times: Fraction) -> int:
    """2^-times, to 12 digits. In whole numbers, as powers of floats differ between machines."""
    whole, rest = divmod(times.numerator, times.denominator)
    weight, bits = _ONE, (rest << len(_ROOTS)) // times.denominator
    for root in _ROOTS:
        if bits & 1:
            weight = weight * root >> _SCALE
        bits >>= 1
    return weight >> whole


def _roots(count: int) -> list[int]:
    """2^(-1/2^count), ..., 2^(-1/4), 2^(-1/2), in units of 1/_ONE."""
    roots = [isqrt(_ONE * _ONE >> 1)]
    while len(roots) < count:
        roots.append(isqrt(roots[-1] << _SCALE))
    return roots[::-1]


_SCALE: Final = 96
_ONE: Final = 1 << _SCALE
_ROOTS: Final = _roots(40)


def _anchored(count: int, shares: Sequence[int], anchors: Sequence[int | None]) -> list[int]:
    """Weights of the touches; the last of the shares is that of the middle, all of it together."""
    own = set(anchors)
    own.discard(None)
    middle = count - len(own)
    weights = [shares[-1]] * count
    for place in own:
        if place is not None:
            weights[place] = 0
    for place, share in zip(anchors, shares, strict=False):
        if place is not None:
            weights[place] += share * max(middle, 1)
    return weights


def _whole(shares: Sequence[int | float | Decimal]) -> list[int]:
    """The same proportions in whole numbers."""
    exact = [Fraction(str(share)) for share in shares]
    scale = lcm(*(share.denominator for share in exact))
    return [int(share * scale) for share in exact]
