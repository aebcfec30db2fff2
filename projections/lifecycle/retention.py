"""What keeping customers may cost, has cost, and is about (R66)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from projections.reading import Connection, Moment, fetch, truth


@dataclass(frozen=True, slots=True)
class Kept:
    """A customer with a plan of keeping it, or costs of that, or at risk without one.

    Money is in the currency asked for. `past_revenue`: what it bought for in the year before the
    moment, or before its loss. `remaining` = limit − spent. Without a plan the first three are
    None.
    """

    customer_id: UUID
    type: str
    level: str
    lost_at: datetime | None
    cause: str | None
    worth_keeping: bool | None
    social_effect: str | None
    limit: Decimal | None
    spent: Decimal
    remaining: Decimal | None
    past_revenue: Decimal


@dataclass(frozen=True, slots=True)
class Retention:
    """`customers`: the page asked for; the rest is over all of them."""

    count: int
    past_revenue: Decimal
    limit: Decimal
    spent: Decimal
    customers: list[Kept]


def retention(
    connection: Connection,
    moment: Moment,
    *,
    currency: str,
    planned: bool | None,
    limit: int,
    offset: int,
) -> Retention:
    """Customers with the highest past revenue first. `planned`: only those with a plan, or only
    those without one whose level is declining or problem; None: both."""
    parameters = {
        **moment.parameters(), "currency": currency, "planned": planned,
        "limit": limit, "offset": offset,
    }  # fmt: skip
    rows = fetch(
        connection,
        f"WITH {_asked(moment)} SELECT * FROM asked"
        " ORDER BY past_revenue DESC, customer_id LIMIT %(limit)s OFFSET %(offset)s",
        parameters,
    )
    (total,) = fetch(
        connection,
        f"""WITH {_asked(moment)} SELECT count(*) AS count,
            coalesce(sum(past_revenue), 0) AS past_revenue,
            coalesce(sum("limit"), 0) AS "limit", coalesce(sum(spent), 0) AS spent FROM asked""",
        parameters,
    )
    return Retention(**total, customers=[Kept(**row) for row in rows])


def _asked(moment: Moment) -> str:
    return f"""plan AS (
            SELECT customer_id, worth_keeping, social_effect, spending_limit, spent
            FROM retention_period WHERE currency = %(currency)s AND {truth(moment)}),
        risk AS (
            SELECT customer_id FROM standing_period
            WHERE classification = 'level' AND value IN ('declining', 'problem')
            AND {truth(moment)}),
        named AS (SELECT customer_id FROM plan UNION SELECT customer_id FROM risk),
        asked AS (
            SELECT named.customer_id, t.value AS type, l.value AS level,
                CASE WHEN t.value = 'lost' THEN t.valid_from END AS lost_at, t.cause,
                plan.worth_keeping, plan.social_effect, plan.spending_limit AS "limit",
                coalesce(plan.spent, 0) AS spent, plan.spending_limit - plan.spent AS remaining,
                (SELECT coalesce(sum(p.amount), 0) FROM purchase_period AS p
                 WHERE p.customer_id = named.customer_id AND p.currency = %(currency)s
                 AND {truth(moment, "p")}
                 AND p.valid_from > CASE WHEN t.value = 'lost' THEN t.valid_from
                    ELSE %(as_of)s END - interval '365 days') AS past_revenue
            FROM named LEFT JOIN plan USING (customer_id)
                JOIN standing_period AS t ON t.customer_id = named.customer_id
                    AND t.classification = 'type' AND {truth(moment, "t")}
                JOIN standing_period AS l ON l.customer_id = named.customer_id
                    AND l.classification = 'level' AND {truth(moment, "l")}
            WHERE %(planned)s::boolean IS NULL
                OR (plan.spending_limit IS NOT NULL) = %(planned)s::boolean)"""
