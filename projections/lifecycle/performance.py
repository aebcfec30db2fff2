"""What marketing and sales move (R30): rates and times beside revenue.

Reads the tables of the funnel, too: which deals came from a campaign, and which were lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from projections.reading import Connection, CurrencySum, Moment, fetch, known, recorded, truth


@dataclass(frozen=True, slots=True)
class Step:
    """Customers that came to a value of the purchase path, and how many moved on from it up to
    `as_of`; days that these took. `rate` = moved ÷ customers."""

    value: str
    customers: int
    moved: int
    rate: Decimal | None
    median_days: Decimal | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Deals opened from a campaign (marketing) or not (sales), and what became of them.

    `order_rate` = won ÷ deals, `win_rate` = won ÷ (won + lost). `median_days` from the opening to
    the contract. `revenue` in the asked currency.
    """

    origin: str
    deals: int
    won: int
    lost: int
    order_rate: Decimal | None
    win_rate: Decimal | None
    median_days: Decimal | None
    revenue: Decimal
    other_currencies: list[CurrencySum]


def steps(connection: Connection, moment: Moment, *, start: datetime, end: datetime) -> list[Step]:
    """Of customers that came to a value in [start, end): prospects are marketing's to move,
    opportunities are the sales force's."""
    rows = fetch(
        connection,
        f"""SELECT value, count(*) AS customers,
            count(*) FILTER (WHERE valid_to <= %(as_of)s) AS moved,
            round((percentile_cont(0.5) WITHIN GROUP (
                ORDER BY extract(epoch FROM valid_to - valid_from) / 86400)
                FILTER (WHERE valid_to <= %(as_of)s))::numeric, 6) AS median_days
            FROM standing_period WHERE classification = 'path'
            AND value IN ('prospect', 'opportunity') AND {known(moment)}
            AND valid_from <= %(as_of)s AND valid_from >= %(start)s AND valid_from < %(end)s
            GROUP BY value""",
        {**moment.parameters(), "start": start, "end": end},
    )
    found = {row["value"]: row for row in rows}
    nobody = {"customers": 0, "moved": 0, "median_days": None}
    return [
        Step(
            value,
            (row := found.get(value, nobody))["customers"],
            row["moved"],
            _ratio(row["moved"], row["customers"]),
            row["median_days"],
        )
        for value in ("prospect", "opportunity")
    ]


def origins(
    connection: Connection, moment: Moment, *, start: datetime, end: datetime, currency: str
) -> list[Origin]:
    """Of deals opened in [start, end)."""
    deals = f"""deal AS (
            SELECT CASE WHEN d.campaign_id IS NULL THEN 'sales' ELSE 'marketing' END AS origin,
                d.status, d.won_amount, d.currency,
                extract(epoch FROM won.at - d.opened_at) / 86400 AS days
            FROM deal_period AS d LEFT JOIN LATERAL (
                SELECT min(f.occurred_at) AS at FROM standing_fact AS f
                WHERE d.status = 'won' AND f.customer_id = d.customer_id
                AND f.deal_id = d.deal_id AND f.kind = 'contract-signed'
                AND {recorded(moment, "f")}) AS won ON true
            WHERE {truth(moment, "d")} AND d.opened_at >= %(start)s AND d.opened_at < %(end)s)"""
    parameters = {**moment.parameters(), "start": start, "end": end, "currency": currency}
    rows = fetch(
        connection,
        f"""WITH {deals} SELECT origin, count(*) AS deals,
            count(*) FILTER (WHERE status = 'won') AS won,
            count(*) FILTER (WHERE status = 'lost') AS lost,
            round((percentile_cont(0.5) WITHIN GROUP (ORDER BY days))::numeric, 6) AS median_days,
            coalesce(sum(won_amount) FILTER (WHERE status = 'won' AND currency = %(currency)s), 0)
                AS revenue
            FROM deal GROUP BY origin""",
        parameters,
    )
    others = fetch(
        connection,
        f"""WITH {deals} SELECT origin, currency, count(*) AS count, sum(won_amount) AS amount
            FROM deal WHERE status = 'won' AND currency <> %(currency)s
            GROUP BY origin, currency ORDER BY currency""",
        parameters,
    )
    found = {row["origin"]: row for row in rows}
    nothing = {"deals": 0, "won": 0, "lost": 0, "median_days": None, "revenue": Decimal(0)}
    return [
        Origin(
            origin=origin,
            deals=(row := found.get(origin, nothing))["deals"],
            won=row["won"],
            lost=row["lost"],
            order_rate=_ratio(row["won"], row["deals"]),
            win_rate=_ratio(row["won"], row["won"] + row["lost"]),
            median_days=row["median_days"],
            revenue=row["revenue"],
            other_currencies=[
                CurrencySum(other["currency"], other["count"], other["amount"])
                for other in others
                if other["origin"] == origin
            ],
        )
        for origin in ("marketing", "sales")
    ]


def _ratio(part: int, whole: int) -> Decimal | None:
    return round(Decimal(part) / whole, 6) if whole else None
