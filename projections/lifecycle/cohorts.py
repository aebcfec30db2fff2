"""Customers by the month in which they came, and what became of them month by month."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from projections.lifecycle.purchases import DAY
from projections.reading import Connection, CurrencySum, Moment, fetch, known, recorded, truth

_Cell: TypeAlias = tuple[int, int]
"""(cohort, month) as months since year 0."""


class CohortsBy(StrEnum):
    FIRST_PURCHASE = "first_purchase"
    REGISTRATION = "registration"


@dataclass(frozen=True, slots=True)
class CohortMonth:
    """`month` since the cohort's own, which is 0.

    `active`: customers that bought in it. `retained`: customers in a relationship at its end, or
    at `as_of` where that comes first. `revenue`: what they bought for, in the asked currency.
    """

    month: int
    active: int
    retained: int
    revenue: Decimal


@dataclass(frozen=True, slots=True)
class Cohort:
    """`starts`: the first day of the month in which its customers came."""

    starts: date
    customers: int
    months: list[CohortMonth]


@dataclass(frozen=True, slots=True)
class Cohorts:
    cohorts: list[Cohort]
    other_currencies: list[CurrencySum]


def cohorts(
    connection: Connection,
    moment: Moment,
    *,
    by: CohortsBy,
    currency: str,
    timezone: ZoneInfo,
    months: int,
) -> Cohorts:
    """The cohorts of the last `months` months up to `as_of`, each with all its months since.

    Purchases in other currencies make a customer active, and stand beside the revenue.
    """
    today = moment.as_of.astimezone(timezone)
    present = _number(today.year, today.month)
    since = present - months + 1
    parameters = {
        **moment.parameters(),
        "zone": timezone.key,
        "currency": currency,
        "since": since,
        "present": present,
    }
    came = _came(moment, by)
    sizes = fetch(
        connection, f"WITH {came} SELECT cohort, count(*) AS customers FROM came GROUP BY 1",
        parameters,
    )  # fmt: skip
    bought = fetch(
        connection,
        f"""WITH {came}, bought AS (
                SELECT cohort, customer_id, currency, amount, {_month(DAY.format("p"))} AS month
                FROM came JOIN purchase_period AS p USING (customer_id) WHERE {truth(moment, "p")})
            SELECT cohort, month, count(DISTINCT customer_id) AS active,
                coalesce(sum(amount) FILTER (WHERE currency = %(currency)s), 0) AS revenue
            FROM bought GROUP BY 1, 2""",
        parameters,
    )
    others = fetch(
        connection,
        f"""WITH {came} SELECT currency, count(*) AS count, sum(amount) AS amount
            FROM came JOIN purchase_period AS p USING (customer_id)
            WHERE {truth(moment, "p")} AND currency <> %(currency)s
            GROUP BY currency ORDER BY currency""",
        parameters,
    )
    retained = _retained(connection, moment, came, parameters)
    cells: dict[_Cell, dict[str, Any]] = {(row["cohort"], row["month"]): row for row in bought}
    return Cohorts(
        [
            Cohort(
                date(*_year_month(row["cohort"]), 1),
                row["customers"],
                _months(row["cohort"], present, cells, retained),
            )
            for row in sorted(sizes, key=lambda row: row["cohort"])
        ],
        [CurrencySum(**row) for row in others],
    )


def _came(moment: Moment, by: CohortsBy) -> str:
    """A common table: each customer's cohort, of those that are asked for."""
    if by is CohortsBy.REGISTRATION:
        first = f"""SELECT customer_id, min({_month("(occurred_at AT TIME ZONE %(zone)s)")})
            AS cohort FROM standing_fact WHERE kind = 'registered' AND {recorded(moment)}
            GROUP BY customer_id"""
    else:
        first = f"""SELECT customer_id, min({_month(DAY.format("p"))}) AS cohort
            FROM purchase_period AS p WHERE {truth(moment, "p")} GROUP BY customer_id"""
    return f"""came AS (SELECT customer_id, cohort FROM ({first}) AS first
        WHERE cohort BETWEEN %(since)s AND %(present)s)"""


def _retained(
    connection: Connection, moment: Moment, came: str, parameters: dict[str, Any]
) -> dict[_Cell, int]:
    """Customers in a relationship at the end of each month, by cohort.

    A relationship in [from, to) covers the ends of the months from that of `from` to the one
    before that of `to`: so each adds one change where it begins and one where it ends.
    """
    rows = fetch(
        connection,
        f"""WITH {came}, stay AS (
                SELECT cohort, {_month("(s.valid_from AT TIME ZONE %(zone)s)")} AS first,
                    CASE WHEN s.valid_to > %(as_of)s THEN %(present)s + 1
                    ELSE {_month("(s.valid_to AT TIME ZONE %(zone)s)")} END AS after
                FROM came JOIN standing_period AS s USING (customer_id)
                WHERE s.classification = 'type' AND s.value = 'relationship'
                AND s.valid_from <= %(as_of)s AND {known(moment, "s")})
            SELECT cohort, month, sum(change)::int AS change
            FROM (SELECT cohort, first AS month, 1 AS change FROM stay
                UNION ALL SELECT cohort, after, -1 FROM stay) AS both_ends
            GROUP BY 1, 2 ORDER BY 1, 2""",
        parameters,
    )
    changes: dict[int, dict[int, int]] = {}
    for row in rows:
        changes.setdefault(row["cohort"], {})[row["month"]] = row["change"]
    found: dict[_Cell, int] = {}
    for cohort, by_month in changes.items():
        there = sum(change for month, change in by_month.items() if month < cohort)
        for month in range(cohort, parameters["present"] + 1):
            there += by_month.get(month, 0)
            found[cohort, month] = there
    return found


def _months(
    cohort: int,
    present: int,
    cells: dict[_Cell, dict[str, Any]],
    retained: dict[_Cell, int],
) -> list[CohortMonth]:
    nothing: dict[str, Any] = {"active": 0, "revenue": Decimal(0)}
    found = []
    for month in range(cohort, present + 1):
        cell = cells.get((cohort, month), nothing)
        found.append(
            CohortMonth(
                month - cohort, cell["active"], retained.get((cohort, month), 0), cell["revenue"]
            )
        )
    return found


def _month(day: str) -> str:
    """The month of a date or local time, as a number."""
    return f"(extract(year FROM {day}) * 12 + extract(month FROM {day}) - 1)::int"


def _number(year: int, month: int) -> int:
    return year * 12 + month - 1


def _year_month(number: int) -> tuple[int, int]:
    return number // 12, number % 12 + 1
