"""Exchange rates of one currency in another, as they were recorded, day by day."""

from __future__ import annotations

from dataclasses import field
from datetime import date, datetime
from decimal import Decimal
from typing import Final, Self
from uuid import UUID

from domain.aggregate import LedgerAggregate
from domain.errors import InvalidRate
from domain.values import (
    DECIMALS,
    ExternalId,
    business_date,
    decimals,
    minor_units,
    stream_id,
)

RATE_LIMIT: Final = Decimal(10) ** 12


class ExchangeRate(LedgerAggregate):
    """What one unit of `from_currency` is worth in `to_currency`, on each day that has a rate."""

    TOPIC = "crm.exchange-rate"

    from_currency: str = field(init=False)
    to_currency: str = field(init=False)
    rates: dict[date, Decimal] = field(init=False, default_factory=dict)
    recorded_on: dict[date, datetime] = field(init=False, default_factory=dict)
    """When the day's rate was set."""

    class Event(LedgerAggregate.Event):
        pass

    class Created(Event, LedgerAggregate.Created):
        """The pair of currencies; its rates follow."""

        TOPIC = "crm.exchange-rate.quoted"
        from_currency: str
        to_currency: str

        def apply(self, aggregate: ExchangeRate) -> None:
            aggregate.from_currency = self.from_currency
            aggregate.to_currency = self.to_currency

    class RateRecorded(Event):
        """The latest one of a day counts."""

        TOPIC = "crm.exchange-rate.recorded"
        from_currency: str
        to_currency: str
        rate: Decimal
        """Units of `to_currency` for one unit of `from_currency`."""
        on: date
        """The day from which it holds, until there is a later one."""

        def apply(self, aggregate: ExchangeRate) -> None:
            if aggregate._is_latest(self.timestamp, aggregate.recorded_on.get(self.on)):
                aggregate.rates[self.on] = self.rate
                aggregate.recorded_on[self.on] = self.timestamp

    @classmethod
    def quote(cls, rate_id: UUID, *, from_currency: str, to_currency: str, at: datetime) -> Self:
        """The pair, still without a rate; `rate_id` is its `exchange_rate_id`."""
        minor_units(from_currency)
        minor_units(to_currency)
        if from_currency == to_currency:
            raise InvalidRate("a rate is of two different currencies")
        return cls._create(
            cls.Created,
            id=rate_id,
            timestamp=at,
            from_currency=from_currency,
            to_currency=to_currency,
        )

    def record(self, *, rate: Decimal, on: date, at: datetime) -> None:
        """Again, with another rate, corrects the day's."""
        if not rate.is_finite() or not 0 < rate < RATE_LIMIT or decimals(rate) > DECIMALS:
            raise InvalidRate(
                f"a rate is above 0 and below {RATE_LIMIT:,}, with at most {DECIMALS} decimals"
            )
        if self.rates.get(business_date(on, "on")) == rate:
            return
        self.trigger_event(
            self.RateRecorded,
            timestamp=at,
            from_currency=self.from_currency,
            to_currency=self.to_currency,
            rate=rate,
            on=on,
        )


def pair_name(from_currency: str, to_currency: str) -> ExternalId:
    """What a pair of currencies is known by, in this direction."""
    return ExternalId("crm-ledger", f"{from_currency}/{to_currency}")


def exchange_rate_id(from_currency: str, to_currency: str) -> UUID:
    """The pair's stream: the same for ever."""
    return stream_id("exchange-rate", pair_name(from_currency, to_currency))
