"""Whom to invite to a campaign, and what became of those whom it reached (R39).

These queries join the tables of other read models: customers, and lifecycle for levels and
purchases.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from projections.attribution.performance import CampaignPerformance
from projections.reading import Connection, Moment, fetch, recorded, truth

_WEEK = timedelta(days=7)
_WEEKS = 520


@dataclass(frozen=True, slots=True)
class Invited:
    """`volume`: what the customer bought, in the currency asked."""

    customer_id: UUID
    level: str
    volume: Decimal


def invitations(
    connection: Connection,
    moment: Moment,
    *,
    level: str | None,
    min_volume: Decimal,
    currency: str,
    limit: int,
) -> tuple[int, list[Invited]]:
    """How many customers have the level (any, if None) and bought for so much, and the first of
    them by volume, then id. Outside a relationship the level is `none`."""
    rows = fetch(
        connection,
        f"""WITH invited AS (
                SELECT standing.customer_id, standing.value AS level,
                    coalesce(bought.volume, 0) AS volume
                FROM standing_period AS standing LEFT JOIN (
                    SELECT customer_id, sum(amount) AS volume FROM purchase_period AS purchase
                    WHERE currency = %(currency)s AND {truth(moment, "purchase")}
                    GROUP BY customer_id) AS bought USING (customer_id)
                WHERE standing.classification = 'level' AND {truth(moment, "standing")}
                AND (%(level)s::text IS NULL OR standing.value = %(level)s)
                AND coalesce(bought.volume, 0) >= %(min_volume)s)
            SELECT customer_id, level, volume, (SELECT count(*) FROM invited) AS customers
            FROM invited ORDER BY volume DESC, customer_id LIMIT %(limit)s""",
        {
            **moment.parameters(),
            "level": level,
            "min_volume": min_volume,
            "currency": currency,
            "limit": limit,
        },
    )
    count = rows[0]["customers"] if rows else 0
    return count, [Invited(row["customer_id"], row["level"], row["volume"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Week:
    """What happened in [start, end): responses to the campaign, deals opened from it; contracts
    of the customers it reached, and their amount."""

    start: date
    end: date
    responses: int
    deals: int
    contracts: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Reach:
    """What became of the customers that a campaign reached: those with a touch of it.

    `sales`: their contracts signed from its first day to its last, `before`: in as many days
    before. `growth` = (sales − before) ÷ before, None without sales before. `coverage`: the part
    of the `customers` in its region (of all, where it has none) that it reached; None without any.
    `weeks`: while it ran, up to `as_of`, the first 520 of them. Money in the budget's currency.
    """

    reached: int
    customers: int
    sales: Decimal
    before: Decimal
    weeks: list[Week]

    @property
    def growth(self) -> Decimal | None:
        return round((self.sales - self.before) / self.before, 6) if self.before else None

    @property
    def coverage(self) -> Decimal | None:
        return round(Decimal(self.reached) / self.customers, 6) if self.customers else None


def reach(
    connection: Connection, moment: Moment, campaign: CampaignPerformance, zone: ZoneInfo
) -> Reach:
    """The customers that a campaign reached, and what they bought. Days are reckoned in `zone`."""
    days = (campaign.ends_on - campaign.starts_on) + timedelta(days=1)
    end = campaign.starts_on + days
    counted = fetch(
        connection,
        f"""WITH reached AS (
                SELECT DISTINCT customer_id FROM touch_fact
                WHERE campaign_id = %(campaign)s::uuid AND {recorded(moment)})
            SELECT count(reached.customer_id) AS reached, count(*) AS customers
            FROM customer_period AS customer LEFT JOIN reached USING (customer_id)
            WHERE {truth(moment, "customer")}
            AND (%(region)s::text IS NULL OR customer.region = %(region)s)""",
        {
            **moment.parameters(),
            "campaign": str(campaign.campaign_id),
            "region": campaign.region,
        },
    )[0]
    contracts = _contracts(connection, moment, campaign, campaign.starts_on - days, end)
    return Reach(
        counted["reached"],
        counted["customers"],
        _sum(contracts, campaign.starts_on, end),
        _sum(contracts, campaign.starts_on - days, campaign.starts_on),
        _weeks(connection, moment, campaign, contracts, zone),
    )


def _contracts(
    connection: Connection,
    moment: Moment,
    campaign: CampaignPerformance,
    start: date,
    end: date,
) -> list[dict[str, Any]]:
    """Contracts signed in [start, end) by customers it reached, a deal's first one."""
    return fetch(
        connection,
        f"""SELECT DISTINCT ON (deal_id) signed_on, amount FROM touch_fact AS won
            WHERE kind = 'contract-signed' AND {recorded(moment, "won")}
            AND currency = %(currency)s AND signed_on >= %(start)s AND signed_on < %(end)s
            AND customer_id IN (SELECT customer_id FROM touch_fact
                WHERE campaign_id = %(campaign)s::uuid AND {recorded(moment)})
            ORDER BY deal_id, occurred_at, position""",
        {
            **moment.parameters(),
            "campaign": str(campaign.campaign_id),
            "currency": campaign.currency,
            "start": start,
            "end": end,
        },
    )


def _weeks(
    connection: Connection,
    moment: Moment,
    campaign: CampaignPerformance,
    contracts: list[dict[str, Any]],
    zone: ZoneInfo,
) -> list[Week]:
    rows = fetch(
        connection,
        f"""SELECT (occurred_at AT TIME ZONE %(zone)s)::date AS day,
                count(*) FILTER (WHERE kind = 'campaign-responded') AS responses,
                count(*) FILTER (WHERE kind = 'opened') AS deals
            FROM touch_fact WHERE campaign_id = %(campaign)s::uuid AND {recorded(moment)}
            GROUP BY 1""",
        {
            **moment.parameters(),
            "campaign": str(campaign.campaign_id),
            "zone": zone.key,
        },
    )
    touched = _by_week(campaign, ((row["day"], row) for row in rows))
    won = _by_week(campaign, ((row["signed_on"], row) for row in contracts))
    last = min(campaign.ends_on, moment.as_of.astimezone(zone).date())
    count = max(0, ((last - campaign.starts_on) // _WEEK) + 1)
    return [
        Week(
            campaign.starts_on + number * _WEEK,
            min(campaign.starts_on + (number + 1) * _WEEK, campaign.ends_on + timedelta(days=1)),
            sum(row["responses"] for row in touched.get(number, ())),
            sum(row["deals"] for row in touched.get(number, ())),
            len(won.get(number, ())),
            sum((row["amount"] for row in won.get(number, ())), Decimal(0)),
        )
        for number in range(min(count, _WEEKS))
    ]


def _by_week(
    campaign: CampaignPerformance, rows: Iterable[tuple[date, dict[str, Any]]]
) -> dict[int, list[dict[str, Any]]]:
    """Rows of days while it ran, by the number of the week; the first is 0."""
    weeks: dict[int, list[dict[str, Any]]] = {}
    for day, row in rows:
        if campaign.starts_on <= day <= campaign.ends_on:
            weeks.setdefault((day - campaign.starts_on) // _WEEK, []).append(row)
    return weeks


def _sum(contracts: list[dict[str, Any]], start: date, end: date) -> Decimal:
    within = (row["amount"] for row in contracts if start <= row["signed_on"] < end)
    return sum(within, Decimal(0))
