from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from domain.errors import InvalidDate, InvalidMoney, InvalidRate
from domain.exchange_rate import ExchangeRate, exchange_rate_id
from domain.values import ExternalId, stream_id
from tests.given_when_then import ID, NOW, START, Fact, fact, given

QUOTED = fact(ExchangeRate.Created, from_currency="EUR", to_currency="CNY")
DAY = date(2024, 6, 28)


def quoting(from_currency: str = "EUR", to_currency: str = "CNY") -> Any:
    return lambda _: ExchangeRate.quote(
        ID, from_currency=from_currency, to_currency=to_currency, at=START
    )


def recorded(rate: str, on: date = DAY) -> Fact:
    pair: dict[str, Any] = {"from_currency": "EUR", "to_currency": "CNY"}
    return fact(ExchangeRate.RateRecorded, rate=Decimal(rate), on=on, **pair)


def recording(rate: str, on: date = DAY) -> Callable[[ExchangeRate], None]:
    return lambda pair: pair.record(rate=Decimal(rate), on=on, at=NOW)


def test_a_pair_of_currencies_has_one_stream_in_each_direction() -> None:
    assert exchange_rate_id("EUR", "CNY") == stream_id(
        "exchange-rate", ExternalId("crm-ledger", "EUR/CNY")
    )
    assert exchange_rate_id("EUR", "CNY") == UUID("68b783de-2924-5873-8c93-cd3b55a16bd9")
    assert exchange_rate_id("CNY", "EUR") != exchange_rate_id("EUR", "CNY")


def test_a_pair_is_of_two_currencies_that_there_are() -> None:
    given().when(quoting()).then(QUOTED)
    given().when(quoting(to_currency="EUR")).refused(InvalidRate)
    for unknown in ("XXQ", "cny", "", "CNY/USD"):
        given().when(quoting(to_currency=unknown)).refused(InvalidMoney)
        given().when(quoting(from_currency=unknown)).refused(InvalidMoney)


def test_a_day_has_the_rate_that_was_recorded_last() -> None:
    pair = given(QUOTED).when(recording("7.78")).then(recorded("7.78"))
    assert pair.rates == {DAY: Decimal("7.78")}
    known = (QUOTED, recorded("7.78"))
    given(*known).when(recording("7.780")).then()
    given(*known).when(recording("7.79")).then(recorded("7.79"))
    other = date(2024, 6, 27)
    given(*known).when(recording("7.78", other)).then(recorded("7.78", other))


def test_a_rate_that_is_recorded_late_does_not_replace_a_later_one() -> None:
    """As the read model has it: else the right rate could not be recorded any more."""
    correction = recorded("7.80")

    def late(pair: ExchangeRate) -> None:
        pair.record(rate=Decimal("7.79"), on=DAY, at=START)

    pair = given(QUOTED, correction).when(late).then(replace(recorded("7.79"), at=START))
    assert pair.rates == {DAY: Decimal("7.80")}


@pytest.mark.parametrize("rate", ["0", "-0", "-7.78", "NaN", "Infinity", "1E12", "1E-13"])
def test_refuses_what_no_rate_is(rate: str) -> None:
    given(QUOTED).when(recording(rate)).refused(InvalidRate)


@pytest.mark.parametrize("rate", ["0.000000000001", "999999999999.999999999999"])
def test_takes_the_smallest_and_the_largest(rate: str) -> None:
    given(QUOTED).when(recording(rate)).then(recorded(rate))


def test_a_rate_is_of_a_day_of_business() -> None:
    given(QUOTED).when(recording("7.78", date(1899, 12, 31))).refused(InvalidDate)
