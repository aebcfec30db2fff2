"""What customers are worth where figures are at their ends: losses, nobody, the last of days."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.lifecycle.growth import Result, _compared
from projections.lifecycle.value import worth
from projections.lifecycle.value.histories import Histories
from projections.lifecycle.value.worth import BY, Horizon, Valuation, Worth, worths

TODAY = date(2026, 3, 1)
HORIZON = Horizon(36, 0.1, 52)


def valued(rows: list[tuple[float, ...]], today: date = TODAY) -> Valuation:
    """Of customers as (x, recency, age, amount, again, cost, costed)."""
    ids = np.array([bytes([n // 250 + 1, n % 250 + 1]) for n in range(len(rows))], dtype="S16")
    columns = np.array(rows, dtype=float).reshape(len(rows), 7).T
    return worth._valued(Histories(today, ids, *columns, []), [], HORIZON)


def ranked(valuation: Valuation, by: str = "lifetime_value") -> list[Worth]:
    return worths(valuation, valuation.ranking(by), {})


def steady(many: int, *, cost: float = 0.0, age: float = 300) -> list[tuple[float, ...]]:
    """Every second of them bought again, some more often than others."""
    found: list[tuple[float, ...]] = []
    for n in range(many):
        x = n % 4 if n % 2 else 0
        money = 100.0 * (x + 1), (100.0 + n) * x, cost * (x + 1), 100.0 * (x + 1)
        found.append((x, min(age - 1, 60.0 * x), age, *money))
    return found


def test_who_costs_more_than_it_brings_is_below_who_is_not_known() -> None:
    valuation = valued(steady(40, cost=300.0))
    valuation.lifetime[0] = np.nan
    assert np.nanmin(valuation.lifetime) < -1
    assert ranked(valuation)[-1].lifetime_value is None


def test_a_figure_beyond_all_numbers_is_none() -> None:
    valuation = valued(steady(40))
    valuation.values[0], valuation.lifetime[1], valuation.expected[2] = np.inf, 1e300, -np.inf
    rows = worths(valuation, np.arange(3), {})
    assert rows[0].mean_value is rows[1].lifetime_value is rows[2].expected_purchases is None


def test_there_is_no_next_purchase_after_the_last_day_of_the_calendar() -> None:
    often = [(200.0, 299.0, 300.0, 1e4, 1e4, 0.0, 0.0)] * 40
    assert all(row.next_purchase_on for row in ranked(valued(often)))
    assert not any(row.next_purchase_on for row in ranked(valued(often, date.max)))


HISTORY = st.builds(
    lambda x, recency, more, amount, share: (
        float(x),
        float(recency if x else 0),
        float((recency if x else 0) + more),
        amount,
        amount * x / (x + 1),
        amount * share,
        amount,
    ),
    st.sampled_from([0, 0, 0, 1, 2, 3, 50, 5_000, 40_000]),
    st.integers(1, 46_000),
    st.integers(0, 46_000),
    st.sampled_from([0.0, 0.01, 1.0, 1e6, 1e15, 1e18]),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)


@settings(max_examples=20)
@given(st.lists(HISTORY, max_size=30), st.booleans())
def test_any_histories_have_figures_within_their_bounds(
    rows: list[tuple[float, ...]], modelled: bool
) -> None:
    valuation = valued(rows + steady(40) if modelled else rows)
    for by in BY:
        found = ranked(valuation, by)
        assert len(found) == len(valuation.of)
        for row in found:
            assert 1 <= row.score <= 5
            assert row.alive is None or 0 <= row.alive <= 1
            assert row.expected_purchases is None or row.expected_purchases >= 0
            for figure in (row.amount, row.mean_value, row.lifetime_value, row.expected_purchases):
                assert figure is None or abs(figure) < 1e24


def result(sales: str, cost: str, uncosted: str = "0") -> Result:
    costed = Decimal(sales) - Decimal(uncosted)
    return Result(
        TODAY, TODAY, 1, Decimal(sales), Decimal(cost), costed - Decimal(cost), Decimal(uncosted),
        None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "flagged"),
    [
        (result("100", "80"), result("120", "100"), True),
        (result("100", "80"), result("120", "96"), False),
        (result("100", "0", "100"), result("120", "0", "120"), False),  # no cost is known at all
        (result("100", "80"), result("150", "80", "50"), False),  # what grew has no known cost
        (result("150", "80", "50"), result("160", "100", "40"), True),
        (result("100", "120"), result("130", "160"), True),  # a loss that grows
        (result("0", "0"), result("10", "20"), False),  # there was nothing to grow from
    ],
)
def test_growth_without_profit_is_flagged_where_costs_are_known(
    before: Result, after: Result, flagged: bool
) -> None:
    assert _compared(before, after, []).flagged is flagged
