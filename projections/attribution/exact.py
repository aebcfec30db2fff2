"""Splits that sum to the whole: largest remainder."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from math import lcm


def split(units: int, weights: Sequence[int]) -> list[int]:
    """`units` in proportion to the weights, whole and summing to it: largest remainder, the
    earlier first. Weights are at least 0; where all are 0, all count the same."""
    total = sum(weights)
    if not total:
        weights = [1] * len(weights)
        total = len(weights)
    parts, remainders = [], []
    for weight in weights:
        part, remainder = divmod(units * weight, total)
        parts.append(part)
        remainders.append(remainder)
    left = units - sum(parts)
    if left:
        for place in sorted(range(len(parts)), key=remainders.__getitem__, reverse=True)[:left]:
            parts[place] += 1
    return parts


def split_decimal(
    amount: Decimal, weights: Sequence[float | Fraction], decimals: int
) -> list[Decimal]:
    """`amount`, which has that many decimals, in proportion to the weights, to its last digit."""
    exact = [Fraction(weight) for weight in weights]
    scale = lcm(*(weight.denominator for weight in exact)) if exact else 1
    parts = split(int(amount.scaleb(decimals)), [int(weight * scale) for weight in exact])
    return [Decimal(part).scaleb(-decimals) for part in parts]
