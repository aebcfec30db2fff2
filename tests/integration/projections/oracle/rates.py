"""Exchange rates of the raw events, and sums converted by them, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

from domain.exchange_rate import ExchangeRate
from infra.eventstore.feed import Recorded

Quote = tuple[str, str, Decimal, date]
"""From, to, rate, day."""


@dataclass(frozen=True)
class Converter:
    """Into one currency: by the latest rate of each pair up to the day, of the same day that in
    the wanted direction; never by way of a third currency."""

    currency: str
    quotes: Mapping[str, Quote]

    @classmethod
    def of(cls, known: Iterable[Recorded], currency: str, today: date) -> Converter:
        """`known`: what is known, whenever it was true: a correction of a day's rate counts."""
        by_day: dict[tuple[str, str, date], Decimal] = {}
        for event in sorted(known, key=lambda each: (each.occurred_at, each.position)):
            e = event.event
            if isinstance(e, ExchangeRate.RateRecorded):
                by_day[e.from_currency, e.to_currency, e.on] = e.rate
        quotes: dict[str, Quote] = {}
        best: dict[str, tuple[date, bool]] = {}
        for (source, target, on), rate in by_day.items():
            if on > today or currency not in (source, target):
                continue
            other = source if target == currency else target
            rank = on, target == currency
            if other not in best or rank > best[other]:
                best[other], quotes[other] = rank, (source, target, rate, on)
        return cls(currency, quotes)

    @classmethod
    def none(cls, currency: str) -> Converter:
        return cls(currency, {})

    def factor(self, currency: str) -> Fraction | None:
        if currency == self.currency:
            return Fraction(1)
        if currency not in self.quotes:
            return None
        source, _, rate, _ = self.quotes[currency]
        return Fraction(rate) if source == currency else 1 / Fraction(rate)

    def used(self, currencies: Iterable[str]) -> list[Quote]:
        return [self.quotes[one] for one in sorted(set(currencies)) if one in self.quotes]
