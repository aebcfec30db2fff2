"""Exchange rates: tables, fold, and the conversion that queries of all read models may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar
from uuid import UUID
from zoneinfo import ZoneInfo

from domain.exchange_rate import ExchangeRate
from infra.eventstore.feed import Recorded
from projections.projection import (
    INFINITY,
    Column,
    Fact,
    FactTable,
    Fold,
    PeriodTable,
    Row,
    State,
    joined,
    turned,
)
from projections.reading import Connection, Moment, Page, Source, fetch, known, page_of

# ---- tables and fold ----

_RATE = (
    Column("from_currency", "text NOT NULL", "What one unit of this currency is worth"),
    Column("to_currency", "text NOT NULL", "in this one."),
    Column("rate", "numeric NOT NULL", "Units of to_currency for one of from_currency."),
)
_ON = Column("on_date", "date NOT NULL", "From this day on, until the pair's next one.")


def _recorded(recorded: Recorded) -> tuple[str, ...]:
    e: ExchangeRate.RateRecorded = recorded.event
    return (e.from_currency, e.to_currency, str(e.rate), str(e.on))


class RateFold(Fold):
    """A rate's row is true from its recording until the same day's rate is corrected."""

    key = Column("rate_key", "uuid NOT NULL", "The pair of currencies.")
    facts = FactTable("rate_fact", "Rates as they were recorded.", (*_RATE, _ON))
    periods = (PeriodTable("rate_period", "Rates of the days that have one.", (_ON,), _RATE),)
    start: ClassVar[State] = ((),)
    extract: ClassVar[Mapping[str, Callable[[Recorded], tuple[str, ...]]]] = {
        ExchangeRate.RateRecorded.TOPIC: _recorded
    }

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        at, _, *values, on = fact
        rows: tuple[Row, ...] = state[0]
        for place, row in enumerate(rows):
            if row[1] == on:
                new, settled = turned(row, at, joined(*values))
                return ((*rows[:place], new, *rows[place + 1 :]),), settled
        return ((*rows, (0, on, at, INFINITY, joined(*values))),), ()


# ---- queries ----


@dataclass(frozen=True, slots=True)
class Rate:
    """What one unit of `from_currency` is worth in `to_currency` from the day `on`."""

    from_currency: str
    to_currency: str
    rate: Decimal
    on: date


@dataclass(frozen=True, slots=True)
class Conversion:
    """Into one currency; `rates` are those recorded, by the currency that each converts."""

    currency: str
    rates: Mapping[str, Rate]

    def factor(self, currency: str) -> Decimal | None:
        """Units of the target for one unit of `currency`; None where no rate was recorded."""
        if currency == self.currency:
            return Decimal(1)
        rate = self.rates.get(currency)
        if rate is None:
            return None
        return rate.rate if rate.from_currency == currency else 1 / rate.rate

    def exact(self, amount: Decimal, currency: str) -> Fraction:
        """The amount in the target, of a currency that has a rate: with no digit lost, also where
        it is divided by the rate."""
        if currency == self.currency:
            return Fraction(amount)
        rate = self.rates[currency]
        if rate.from_currency == currency:
            return Fraction(amount) * Fraction(rate.rate)
        return Fraction(amount) / Fraction(rate.rate)

    def amount(self, amount: Decimal, currency: str) -> Decimal:
        """The same to 28 digits."""
        if currency == self.currency:
            return amount
        rate = self.rates[currency]
        return amount * rate.rate if rate.from_currency == currency else amount / rate.rate

    def used(self, currencies: Iterable[str]) -> list[Rate]:
        """The rates by which sums in these currencies were converted, in order of currency."""
        return [self.rates[one] for one in sorted(set(currencies)) if one in self.rates]


def conversion(
    connection: Connection, moment: Moment, currency: str, timezone: ZoneInfo
) -> Conversion:
    """By the latest rate of each pair up to the day of `as_of` in `timezone`, as known then.

    A rate counts in both directions; of two, the later one counts, of the same day the one in
    the wanted direction. A currency that has no rate with `currency` is not converted: no rate is
    put together from two others.
    """
    rows = fetch(
        connection,
        f"""SELECT DISTINCT ON (other) from_currency, to_currency, rate, on_date AS on FROM (
                SELECT *, CASE WHEN from_currency = %(currency)s THEN to_currency
                    ELSE from_currency END AS other
                FROM rate_period WHERE valid_to = 'infinity' AND {known(moment)}
                AND %(currency)s IN (from_currency, to_currency) AND on_date <= %(day)s) AS pair
            ORDER BY other, on_date DESC, to_currency = %(currency)s DESC""",
        {
            **moment.parameters(),
            "currency": currency,
            "day": moment.as_of.astimezone(timezone).date(),
        },
    )
    rates = [Rate(**row) for row in rows]
    other = {one: one.to_currency if one.from_currency == currency else one.from_currency
             for one in rates}  # fmt: skip
    return Conversion(currency, {other[one]: one for one in rates})


RATE_SORTS = {"on": ("row.on_date", "date")}
_RATES = Source(
    "row.rate_key",
    {
        "from_currency": "row.from_currency = %(filter_from_currency)s",
        "to_currency": "row.to_currency = %(filter_to_currency)s",
    },
    RATE_SORTS,
    ("row.from_currency", "row.to_currency"),
)


def rates(
    connection: Connection,
    moment: Moment,
    *,
    timezone: ZoneInfo,
    filters: Mapping[str, Any] | None = None,
    search: str | None = None,
    sort: str = "on",
    descending: bool = True,
    after: tuple[str, UUID] | None = None,
    limit: int = 100,
) -> Page[Rate]:
    """A page of the rates of days up to that of `as_of`, as known then."""
    rows, following = page_of(
        connection,
        _RATES,
        """row.rate_key AS id, row.from_currency, row.to_currency, row.rate, row.on_date AS on
            FROM rate_period AS row""",
        f"row.valid_to = 'infinity' AND {known(moment, 'row')} AND row.on_date <= %(day)s",
        {**moment.parameters(), "day": moment.as_of.astimezone(timezone).date()},
        filters=filters or {},
        search=search,
        sort=sort,
        descending=descending,
        after=after,
        limit=limit,
    )
    for row in rows:
        del row["id"]
    return Page([Rate(**row) for row in rows], following)
