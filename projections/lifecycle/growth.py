"""Whether sales grow at the expense of profit (R10)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

from projections.lifecycle.purchases import DAY
from projections.reading import Connection, CurrencySum, Moment, fetch, truth


@dataclass(frozen=True, slots=True)
class Result:
    """What was bought on the days [start, end).

    `profit` = sales − cost over the purchases whose cost is known; `uncosted` were sold without
    one, and are in the sales alone. `raised_per_cost` = what was sold at a known cost ÷ that cost,
    None without cost.
    """

    start: date
    end: date
    purchases: int
    sales: Decimal
    cost: Decimal
    profit: Decimal
    uncosted: Decimal
    raised_per_cost: Decimal | None


@dataclass(frozen=True, slots=True)
class Growth:
    """Growth of `after` on `before`, to six decimals; None where there was nothing to grow from.

    `flagged`: what was sold at a known cost grew and the profit in it did not. `lag` = growth of
    sales − growth of profit.
    """

    before: Result
    after: Result
    sales: Decimal | None
    profit: Decimal | None
    lag: Decimal | None
    flagged: bool
    other_currencies: list[CurrencySum]


def growth(
    connection: Connection,
    moment: Moment,
    *,
    before: tuple[date, date],
    after: tuple[date, date],
    currency: str,
    timezone: ZoneInfo,
) -> Growth:
    """Of purchases in `currency`, on the days of two periods, half-open."""
    parameters = {**moment.parameters(), "currency": currency, "zone": timezone.key}
    day = DAY.format("p")
    results = []
    for start, end in (before, after):
        (row,) = fetch(
            connection,
            f"""SELECT count(*) AS purchases, coalesce(sum(amount), 0) AS sales,
                coalesce(sum(cost), 0) AS cost,
                coalesce(sum(amount - cost), 0) AS profit,
                coalesce(sum(amount) FILTER (WHERE cost IS NULL), 0) AS uncosted
                FROM purchase_period AS p WHERE {truth(moment, "p")} AND currency = %(currency)s
                AND {day} >= %(start)s AND {day} < %(end)s""",
            {**parameters, "start": start, "end": end},
        )
        raised = _ratio(row["sales"] - row["uncosted"], row["cost"])
        results.append(Result(start, end, **row, raised_per_cost=raised))
    others = fetch(
        connection,
        f"""SELECT currency, count(*) AS count, sum(amount) AS amount FROM purchase_period AS p
            WHERE {truth(moment, "p")} AND currency <> %(currency)s
            AND {day} >= %(start)s AND {day} < %(end)s GROUP BY currency ORDER BY currency""",
        {**parameters, "start": after[0], "end": after[1]},
    )
    return _compared(results[0], results[1], [CurrencySum(**row) for row in others])


def _compared(before: Result, after: Result, others: list[CurrencySum]) -> Growth:
    sales = _ratio(after.sales - before.sales, before.sales)
    # Of what is sold without a known cost nobody knows the profit: it can't be missed.
    sold_before, sold = before.sales - before.uncosted, after.sales - after.uncosted
    # A loss has no rate of growth.
    grown = after.profit - before.profit
    profit = _ratio(grown, before.profit) if before.profit > 0 else None
    return Growth(
        before,
        after,
        sales,
        profit,
        lag=None if sales is None or profit is None else sales - profit,
        flagged=0 < sold_before < sold and grown <= 0,
        other_currencies=others,
    )


def _ratio(part: Decimal, whole: Decimal) -> Decimal | None:
    return round(part / whole, 6) if whole else None
