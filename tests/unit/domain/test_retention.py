"""R66: whether a customer is worth keeping, and what may be spent on it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from domain.customer import Customer, Retention
from domain.errors import (
    CostDiffers,
    CurrencyDiffers,
    InvalidLimit,
    InvalidText,
    RetentionLimitExceeded,
    RetentionNotPlanned,
)
from domain.values import Money, Severity
from tests.given_when_then import NOW, START, Fact, fact, given
from tests.unit.domain.streams import Stream, eur

Command = Callable[[Customer], None]
DOLLARS = Money.of("1", "USD")


def planned(at: datetime = START, **changes: Any) -> Fact:
    fields = {"worth_keeping": True, "social_effect": None, "limit": eur("100"), **changes}
    return fact(Customer.RetentionPlanned, at=at, **fields)


def planning(at: datetime = NOW, **changes: Any) -> Command:
    fields = {"worth_keeping": True, "social_effect": None, "limit": eur("100"), **changes}
    return lambda customer: customer.plan_retention(at=at, **fields)


def spent(value: str = "60", reference: str = "r-1") -> Fact:
    return fact(Customer.RetentionSpent, amount=eur(value), reference=reference)


def spending(amount: Money, reference: str = "r-2") -> Command:
    return lambda customer: customer.book_retention_cost(amount=amount, reference=reference, at=NOW)


@pytest.fixture
def kept(lost_customer: Stream) -> Stream:
    """With 40 left of the 100 that may be spent."""
    return (*lost_customer, planned(), spent())


def test_a_plan_is_recorded_once(prospect: Stream, lost_customer: Stream) -> None:
    for anybody in (prospect, lost_customer):
        high: dict[str, Any] = {"social_effect": Severity.HIGH}
        customer = given(*anybody).when(planning(**high)).then(planned(NOW, **high))
        assert customer.retention == Retention(True, Severity.HIGH, eur("100"))
        given(*anybody, planned(**high)).when(planning(**high)).then()
        given(*anybody, planned(**high)).when(planning()).then(planned(NOW))


def test_nothing_is_spent_on_who_is_not_worth_keeping(prospect: Stream) -> None:
    nothing: dict[str, Any] = {"worth_keeping": False, "limit": eur("0")}
    given(*prospect).when(planning(**nothing)).then(planned(NOW, **nothing))
    given(*prospect).when(planning(worth_keeping=False)).refused(InvalidLimit)
    given(*prospect, planned(**nothing)).when(spending(eur("0.01"))).refused(RetentionLimitExceeded)


def test_a_plan_of_the_past_does_not_change_the_present_one(prospect: Stream) -> None:
    late = given(*prospect, planned(NOW)).when(planning(START, limit=eur("1")))
    assert late.then(planned(START, limit=eur("1"))).retention.limit == eur("100")


def test_what_is_spent_stays_within_the_limit(kept: Stream) -> None:
    customer = given(*kept).when(spending(eur("40"))).then(spent("40", "r-2"))
    assert customer.retention_costs == {"r-1": eur("60"), "r-2": eur("40")}
    given(*kept).when(spending(eur("40.01"))).refused(RetentionLimitExceeded)


def test_the_limit_is_of_all_that_was_spent_under_earlier_plans_too(kept: Stream) -> None:
    given(*kept, planned(limit=eur("70"))).when(spending(eur("11"))).refused(RetentionLimitExceeded)
    given(*kept, planned(limit=eur("110"))).when(spending(eur("50"))).then(spent("50", "r-2"))
    given(*kept).when(planning(limit=eur("10"))).then(planned(NOW, limit=eur("10")))


def test_a_cost_is_booked_once(kept: Stream) -> None:
    given(*kept).when(spending(eur("60"), "r-1")).then()
    given(*kept, planned(limit=eur("0"))).when(spending(eur("60"), "r-1")).then()
    given(*kept).when(spending(eur("61"), "r-1")).refused(CostDiffers)
    given(*kept).when(spending(eur("1"), " ")).refused(InvalidText)


def test_without_a_plan_nothing_is_spent(lost_customer: Stream) -> None:
    given(*lost_customer).when(spending(eur("0"))).refused(RetentionNotPlanned)


def test_all_is_in_one_currency(prospect: Stream, kept: Stream) -> None:
    given(*kept).when(spending(DOLLARS)).refused(CurrencyDiffers)
    given(*kept).when(planning(limit=DOLLARS)).refused(CurrencyDiffers)
    given(*prospect, planned()).when(planning(limit=DOLLARS)).then(planned(NOW, limit=DOLLARS))
