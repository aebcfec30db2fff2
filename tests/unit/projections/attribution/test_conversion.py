"""Credits of several currencies in one: the same revenue under every model, to the minor unit."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from uuid import UUID

import pytest

from projections.attribution.results import in_one_currency
from projections.funnel.rates import Conversion, Rate

A, B, C = (UUID(int=number) for number in (1, 2, 3))
DAY = date(2024, 1, 1)


def into_cny(*rates: Rate) -> Conversion:
    return Conversion("CNY", {rate.from_currency: rate for rate in rates})


def test_what_is_unattributed_is_the_same_under_every_model() -> None:
    """0.335 is rounded by itself, whatever remainders the campaigns have."""
    into = into_cny(Rate("EUR", "CNY", Decimal("6.7"), DAY))
    models = [
        {A: Decimal("0.01"), B: Decimal("0.03")},
        {A: Decimal("0.04"), B: Decimal("0.00")},
        {A: Decimal("0.02"), B: Decimal("0.02")},
    ]
    found = [in_one_currency({"EUR": {None: Decimal("0.05"), **one}}, into) for one in models]
    assert {one[None] for one in found} == {Decimal("0.34")}  # half to even
    assert {sum(one.values()) for one in found} == {Decimal("0.60")}


@pytest.mark.parametrize("order", [(A, B, C), (C, B, A), (B, C, A)])
def test_equal_remainders_go_by_the_id(order: tuple[UUID, ...]) -> None:
    into = into_cny(Rate("JPY", "CNY", Decimal("0.005"), DAY))
    found = in_one_currency({"JPY": dict.fromkeys(order, Decimal(1))}, into)
    assert found == {None: 0, A: Decimal("0.01"), B: Decimal("0.01"), C: Decimal("0.00")}


def test_a_rate_that_divides_loses_no_digit() -> None:
    """0.03 ÷ 6 is half a cent, which goes to the even one."""
    into = Conversion("CNY", {"EUR": Rate("CNY", "EUR", Decimal(6), DAY)})
    assert in_one_currency({"EUR": {A: Decimal("0.03")}}, into)[A] == 0
    assert in_one_currency({"EUR": {A: Decimal("0.09")}}, into)[A] == Decimal("0.02")
    assert into.amount(Decimal("0.03"), "EUR") == Decimal("0.005")
