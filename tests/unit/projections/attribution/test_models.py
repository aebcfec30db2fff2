"""The rule models on 1,000, touch by touch, and what becomes of anchors that are missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.definitions import AttributionDefinition
from domain.values import Money
from projections.attribution.exact import split
from projections.attribution.models import RULES, Model, RuleModels

CLOSE = datetime(2026, 1, 1, tzinfo=UTC)


def credits(
    model: Model,
    count: int,
    *,
    lead: int | None = None,
    opportunity: int | None = None,
    days: list[int] | None = None,
) -> list[Decimal]:
    """Of 1,000.00; places of anchors from 1, as people count touches."""
    ages = days or list(range(count, 0, -1))
    by_model = RuleModels(AttributionDefinition()).credits(
        100_000,
        [CLOSE - timedelta(days=age) for age in ages],
        None if lead is None else lead - 1,
        None if opportunity is None else opportunity - 1,
    )
    return [Decimal(units) / 100 for units in by_model[RULES.index(model)]]


def amounts(*texts: str) -> list[Decimal]:
    return [Decimal(text) for text in texts]


def test_u_with_four_touches() -> None:
    assert credits(Model.U, 4) == [400, 100, 100, 400]


def test_w_with_five_touches() -> None:
    assert credits(Model.W, 5, lead=3, opportunity=4) == [300, 50, 300, 300, 50]


def test_full_path_with_six_touches() -> None:
    found = credits(Model.FULL_PATH, 6, lead=3, opportunity=4)
    assert found == [225, 50, 225, 225, 50, 225]


def test_time_decay_halves_each_week() -> None:
    assert credits(Model.TIME_DECAY, 3, days=[14, 7, 0]) == amounts("142.86", "285.71", "571.43")


def test_time_decay_goes_by_the_age_at_the_close_alone() -> None:
    assert credits(Model.TIME_DECAY, 3, days=[44, 37, 30]) == amounts("142.86", "285.71", "571.43")
    assert credits(Model.TIME_DECAY, 2, days=[1, 1]) == [500, 500]


@pytest.mark.parametrize("model", RULES)
def test_one_touch_gets_all(model: Model) -> None:
    assert credits(model, 1, lead=1, opportunity=1) == [1000]


def test_u_with_two_touches_gives_half_each() -> None:
    assert credits(Model.U, 2) == [500, 500]


@pytest.mark.parametrize(
    ("model", "anchors", "expected"),
    [
        pytest.param(Model.W, (1, 1), ["900.00", "50.00", "50.00"], id="w-all-anchors-the-first"),
        pytest.param(Model.W, (1, 3), ["600.00", "100.00", "300.00"], id="w-first-is-lead"),
        pytest.param(Model.FULL_PATH, (2, 2), ["250.00", "500.00", "250.00"], id="no-middle"),
    ],
)
def test_a_touch_that_is_two_anchors_gets_both(
    model: Model, anchors: tuple[int, int], expected: list[str]
) -> None:
    lead, opportunity = anchors
    assert credits(model, 3, lead=lead, opportunity=opportunity) == amounts(*expected)


def test_the_share_of_an_anchor_that_is_missing_goes_to_the_rest() -> None:
    # Without lead 30 + 30 + 10 are left, of which the middle has 10.
    assert credits(Model.W, 3, opportunity=3) == amounts("428.57", "142.86", "428.57")
    assert credits(Model.W, 2) == amounts("750.00", "250.00")


def test_first_last_linear() -> None:
    assert credits(Model.FIRST, 3) == [1000, 0, 0]
    assert credits(Model.LAST, 3) == [0, 0, 1000]
    assert credits(Model.LINEAR, 3) == amounts("333.34", "333.33", "333.33")


@given(units=st.integers(0, 10**15), weights=st.lists(st.integers(0, 10**6), min_size=1))
def test_splits_are_those_of_money(units: int, weights: list[int]) -> None:
    parts = split(units, weights)
    assert sum(parts) == units
    if any(weights):
        expected = Money(Decimal(units), "JPY").split(weights)
        assert parts == [int(part.value) for part in expected]
