"""Intervals against all outcomes, one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.funnel.spread import DRAWS, LEVELS, spread


def outcomes(deals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(income, chance) of every outcome, in order of income."""
    found = []
    for wins in itertools.product((False, True), repeat=len(deals)):
        pairs = list(zip(wins, deals, strict=True))
        chance = math.prod(p if won else 1 - p for won, (p, _) in pairs)
        found.append((math.fsum(amount for won, (_, amount) in pairs if won), chance))
    return sorted(found)


def quantile(deals: list[tuple[float, float]], level: float) -> float:
    reached = 0.0
    for income, chance in outcomes(deals):
        reached += chance
        if reached >= level - 1e-9:
            return income
    return math.fsum(amount for _, amount in deals)


DEALS = st.lists(
    st.tuples(st.integers(1, 99).map(lambda p: p / 100), st.integers(1, 10_000).map(float)),
    max_size=9,
)


@given(DEALS)
@settings(max_examples=60)
def test_of_few_deals_they_are_exact(deals: list[tuple[float, float]]) -> None:
    chances = np.array([p for p, _ in deals])
    amounts = np.array([amount for _, amount in deals])
    found = spread(np.ones(len(deals), np.int64), chances, amounts)
    assert found.median == pytest.approx(quantile(deals, 0.5))
    for level, (low, high) in zip(LEVELS, found.intervals, strict=True):
        assert low == pytest.approx(quantile(deals, (1 - level) / 2))
        assert high == pytest.approx(quantile(deals, (1 + level) / 2))


def test_of_more_deals_they_come_close_to_it() -> None:
    deals = [(0.05 + 0.06 * n, 100.0 + 37 * n) for n in range(15)]
    found = spread(
        np.ones(15, np.int64), np.array([p for p, _ in deals]), np.array([a for _, a in deals])
    )
    whole = math.fsum(amount for _, amount in deals)
    for level, (low, high) in zip(LEVELS, found.intervals, strict=True):
        assert abs(low - quantile(deals, (1 - level) / 2)) < 0.03 * whole
        assert abs(high - quantile(deals, (1 + level) / 2)) < 0.03 * whole


def test_of_many_deals_they_are_those_of_a_normal_distribution() -> None:
    random = np.random.default_rng(1)
    deals = random.integers(1, 400, 300)
    chances, amounts = random.uniform(0.01, 0.9, 300), random.uniform(10, 5000, 300)
    found = spread(deals, chances, amounts)
    mean = float((deals * chances * amounts).sum())
    sd = float(np.sqrt((deals * amounts**2 * chances * (1 - chances)).sum()))
    assert found.median == pytest.approx(mean, abs=0.05 * sd)
    for z, (low, high) in zip((0.6745, 1.2816, 1.96), found.intervals, strict=True):
        assert low == pytest.approx(mean - z * sd, abs=0.08 * sd)
        assert high == pytest.approx(mean + z * sd, abs=0.08 * sd)


def test_a_large_deal_stands_alone() -> None:
    deals = np.array([1000, 1])
    found = spread(deals, np.array([0.5, 0.3]), np.array([1.0, 1e6]))
    assert found.median < 600
    assert found.intervals[1][1] > 1e6


def test_the_same_question_has_the_same_answer() -> None:
    deals, chances, amounts = np.array([50]), np.array([0.3]), np.array([7.0])
    assert spread(deals, chances, amounts) == spread(deals, chances, amounts)
    assert DRAWS >= 5_000


def test_nothing_brings_nothing() -> None:
    found = spread(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    assert (found.median, found.intervals[0]) == (0.0, (0.0, 0.0))
    sure = spread(np.array([20]), np.array([1.0]), np.array([2.0]))
    assert (sure.median, sure.intervals[2]) == (40.0, (40.0, 40.0))
