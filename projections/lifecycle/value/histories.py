"""What every customer bought, in the few numbers that value models want of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from projections.lifecycle.columns import columns
from projections.lifecycle.purchases import DAY
from projections.lifecycle.value.buying import Buyers, Floats
from projections.lifecycle.value.spending import Spenders
from projections.reading import Connection, CurrencySum, Moment, fetch, truth

DAYS_PER_WEEK = 7.0
EXACT = 50_000
"""Up to so many customers count by the day and to the cent; of more, times are taken to whole weeks
and means to classes of one per cent."""

_LOW = (1 << 21) - 1
_EPOCH = date(1970, 1, 1)
_KINDS = {
    "id": "uuid", "first": "int4", "last": "int4", "x": "int4", "amount": "float8",
    "again": "float8", "cost": "float8", "costed": "float8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Histories:
    """The buyers at a moment as columns, in the order of their ids (16 bytes each).

    All purchases of one day are one. `x`: days with a purchase after the first; `recency`: days
    from the first to the last; `age`: days from the first to today. Money is approximate: `amount`
    of all purchases, `again` of those after the first day, `cost` of those whose cost is known,
    which were bought for `costed`.
    """

    today: date
    id: NDArray[Any]
    x: Floats
    recency: Floats
    age: Floats
    amount: Floats
    again: Floats
    cost: Floats
    costed: Floats
    other_currencies: list[CurrencySum]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def mean(self) -> Floats:
        """Of the purchases after the first; 0 without any."""
        return self.again / np.maximum(self.x, 1)


def histories(
    connection: Connection, moment: Moment, *, currency: str, timezone: ZoneInfo
) -> Histories:
    """Of purchases in `currency`; those in others stand beside."""
    today = moment.as_of.astimezone(timezone).date()
    parameters = {
        **moment.parameters(), "currency": currency, "zone": timezone.key, "epoch": _EPOCH,
        "today": today,
    }  # fmt: skip
    found = columns(
        connection,
        f"""WITH daily AS (
                SELECT p.customer_id, least({DAY.format("p")}, %(today)s::date) - %(epoch)s::date
                    AS day, sum(p.amount) AS amount, coalesce(sum(p.cost), 0) AS cost,
                    coalesce(sum(p.amount) FILTER (WHERE p.cost IS NOT NULL), 0) AS costed
                FROM purchase_period AS p
                WHERE p.currency = %(currency)s AND {truth(moment, "p")} GROUP BY 1, 2)
            SELECT customer_id AS id, min(day)::int4 AS first, max(day)::int4 AS last,
                (count(*) - 1)::int4 AS x, sum(amount)::float8 AS amount,
                (sum(amount) - (min(ARRAY[day::numeric, amount]))[2])::float8 AS again,
                sum(cost)::float8 AS cost, sum(costed)::float8 AS costed
            FROM daily GROUP BY customer_id ORDER BY customer_id""",
        parameters,
        _KINDS,
    )
    others = fetch(
        connection,
        f"""SELECT currency, count(*) AS count, sum(amount) AS amount FROM purchase_period AS p
            WHERE {truth(moment, "p")} AND currency <> %(currency)s
            GROUP BY currency ORDER BY currency""",
        parameters,
    )
    first, last = (found[name].astype(float) for name in ("first", "last"))
    return Histories(
        today=today,
        id=found["id"],
        x=found["x"].astype(float),
        recency=last - first,
        age=(today - _EPOCH).days - first,
        amount=found["amount"],
        again=found["again"],
        cost=found["cost"],
        costed=found["costed"],
        other_currencies=[CurrencySum(**row) for row in others],
    )


@dataclass(frozen=True, slots=True)
class Groups:
    """Customers with equal histories; `of[row]` is the group that a row of the histories is in."""

    buyers: Buyers
    of: NDArray[np.int64]


def groups(of: Histories) -> Groups:
    """Equal by the day, or by the week where there are very many customers."""
    width = 1.0 if len(of) <= EXACT else DAYS_PER_WEEK
    recency, age = (np.rint(days / width).astype(np.int64) for days in (of.recency, of.age))
    keys = (of.x.astype(np.int64) << 42) | (recency << 21) | age
    different, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    weeks = width / DAYS_PER_WEEK
    return Groups(
        Buyers(
            x=(different >> 42).astype(float),
            t_x=((different >> 21) & _LOW) * weeks,
            T=(different & _LOW) * weeks,
            n=counts.astype(float),
        ),
        which,
    )


def spenders(of: Histories) -> Spenders:
    """Those who bought again, for something."""
    again = (of.x > 0) & (of.again > 0)
    x, mean = of.x[again], of.mean[again]
    if len(x) <= EXACT:
        return Spenders(x, mean, np.ones(len(x)))
    classes = np.rint(np.log(mean) * 100).astype(np.int64)
    keys = (x.astype(np.int64) << 32) + (classes + (1 << 20))
    _, places, counts = np.unique(keys, return_index=True, return_counts=True)
    return Spenders(x[places], np.exp(classes[places] / 100), counts.astype(float))
