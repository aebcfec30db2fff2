"""Exchange rates: what the customers' currencies are worth in ours, month by month."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from math import exp
from typing import Final

from domain.exchange_rate import exchange_rate_id
from workers.demo.currencies import foreign_currencies, worth
from workers.demo.script import DAYS, Script

CONTROLLING: Final = "controlling"
_DECIMALS: Final = Decimal("0.0001")
_A_MONTH: Final = 0.012
"""Standard deviation of a month's change, as a part of the rate."""


def stage_rates(script: Script) -> None:
    """A rate for the first day, and one for the first of each month, up and down by chance."""
    for currency in foreign_currencies(script.currency):
        random = script.random("rate", currency)
        rate, day = worth(currency, script.currency), script.begin
        while (when := (day - script.begin).days + 0.05) < DAYS:
            script.add(
                when, script.person(CONTROLLING), "record_rate",
                exchange_rate_id(currency, script.currency),
                from_currency=currency,
                to_currency=script.currency,
                rate=Decimal(rate).quantize(_DECIMALS),
                on=day,
            )  # fmt: skip
            rate *= exp(random.gauss(0, _A_MONTH))
            day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
