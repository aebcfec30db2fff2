"""Which campaign earned what: attribution, performance, the annual plan."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from projections.attribution.campaigns import COST
from projections.attribution.credits import Model
from projections.reading import Connection, CurrencySum, Moment, fetch, recorded, truth


@dataclass(frozen=True, slots=True)
class CampaignCredit:
    """`cost` is None where it is in another currency than asked; `return_` = (credit − cost) ÷
    cost, None without cost."""

    campaign_id: UUID
    credit: Decimal
    cost: Decimal | None
    return_: Decimal | None


@dataclass(frozen=True, slots=True)
class Attribution:
    """`revenue` = `unattributed` + the credits of all `campaigns`, to the minor unit."""

    model: Model
    currency: str
    revenue: Decimal
    unattributed: Decimal
    campaigns: list[CampaignCredit]
    other_currencies: list[CurrencySum]


@dataclass(frozen=True, slots=True)
class CampaignPerformance:
    """Plan against actual. Money is in the budget's `currency`; what came in other currencies is
    in `other_currencies`.

    `deals` were opened from the campaign, `contracts` of them won, bringing `contract_amount`.
    `credit` is the campaign's share of all won deals under the asked model, `return_` =
    (credit − cost) ÷ cost, None without cost. `remaining` = budget − cost.
    """

    campaign_id: UUID
    name: str
    channel: str
    region: str | None
    status: str
    currency: str
    budget: Decimal
    cost: Decimal
    remaining: Decimal
    responses: int
    deals: int
    contracts: int
    contract_amount: Decimal
    credit: Decimal
    return_: Decimal | None
    other_currencies: list[CurrencySum]


@dataclass(frozen=True, slots=True)
class PlannedYear:
    """The annual plan: campaigns by the year they start in, without rejected and cancelled ones."""

    year: int
    currency: str
    campaigns: int
    budget: Decimal
    cost: Decimal


def attribution(
    connection: Connection,
    moment: Moment,
    *,
    model: Model,
    currency: str,
    start: date | None = None,
    end: date | None = None,
) -> Attribution:
    """Won revenue by campaign, of deals signed in [start, end), highest credit first.

    The costs are all that were booked by `as_of`, whenever the deals were won.
    """
    rows = fetch(
        connection,
        f"""SELECT campaign_id, currency, count(DISTINCT deal_id) AS deals,
            sum(credit) AS credit FROM credit_period
            WHERE model = %(model)s AND {truth(moment)}
            AND (%(start)s::date IS NULL OR won_on >= %(start)s)
            AND (%(end)s::date IS NULL OR won_on < %(end)s)
            GROUP BY campaign_id, currency""",
        {**moment.parameters(), "model": model.value, "start": start, "end": end},
    )
    own = [row for row in rows if row["currency"] == currency]
    costs = _costs(connection, moment, [row["campaign_id"] for row in own])
    unattributed = sum((r["credit"] for r in own if r["campaign_id"] is None), Decimal(0))
    campaigns = []
    for row in own:
        if row["campaign_id"] is None:
            continue
        cost, of = costs.get(row["campaign_id"], (Decimal(0), currency))
        known_cost = cost if of == currency else None
        campaigns.append(
            CampaignCredit(
                row["campaign_id"],
                row["credit"],
                known_cost,
                return_on(row["credit"], known_cost),
            )
        )
    campaigns.sort(key=lambda one: (-one.credit, one.campaign_id))
    return Attribution(
        model=model,
        currency=currency,
        revenue=sum((row["credit"] for row in own), Decimal(0)),
        unattributed=unattributed,
        campaigns=campaigns,
        other_currencies=_other_revenue(connection, moment, model, currency, start, end),
    )


def return_on(credit: Decimal, cost: Decimal | None) -> Decimal | None:
    """(credit − cost) ÷ cost, to six decimals; None without cost."""
    return round((credit - cost) / cost, 6) if cost else None


def _other_revenue(
    connection: Connection,
    moment: Moment,
    model: Model,
    currency: str,
    start: date | None,
    end: date | None,
) -> list[CurrencySum]:
    rows = fetch(
        connection,
        f"""SELECT currency, count(DISTINCT deal_id) AS count, sum(credit) AS amount
            FROM credit_period WHERE model = %(model)s AND {truth(moment)}
            AND currency <> %(currency)s
            AND (%(start)s::date IS NULL OR won_on >= %(start)s)
            AND (%(end)s::date IS NULL OR won_on < %(end)s)
            GROUP BY currency ORDER BY currency""",
        {
            **moment.parameters(),
            "model": model.value,
            "currency": currency,
            "start": start,
            "end": end,
        },
    )
    return [CurrencySum(**row) for row in rows]


def _costs(
    connection: Connection, moment: Moment, campaigns: list[UUID | None]
) -> dict[UUID, tuple[Decimal, str]]:
    rows = fetch(
        connection,
        f"""SELECT campaign_id, {COST} AS cost, currency FROM campaign_period AS row
            WHERE campaign_id = ANY(%(ids)s::uuid[]) AND {truth(moment)}""",
        {**moment.parameters(), "ids": [str(one) for one in campaigns if one is not None]},
    )
    return {row["campaign_id"]: (row["cost"], row["currency"]) for row in rows}


def performance(
    connection: Connection, moment: Moment, *, model: Model = Model.LAST
) -> list[CampaignPerformance]:
    """Every campaign's plan and result, by name. Won deals count from the close on."""
    happened = recorded(moment)
    rows = fetch(
        connection,
        f"""WITH opened AS (
                SELECT campaign_id, deal_id FROM touch_fact WHERE kind = 'opened' AND {happened}),
            responses AS (
                SELECT campaign_id, count(*) AS responses FROM touch_fact
                WHERE kind = 'campaign-responded' AND {happened} GROUP BY 1),
            deals AS (SELECT campaign_id, count(*) AS deals FROM opened GROUP BY 1)
            SELECT row.campaign_id, row.name, row.channel, row.region, row.status, row.currency,
                row.budget, {COST} AS cost, coalesce(responses, 0) AS responses,
                coalesce(deals, 0) AS deals
            FROM campaign_period AS row LEFT JOIN responses USING (campaign_id)
                LEFT JOIN deals USING (campaign_id)
            WHERE {truth(moment, "row")} ORDER BY row.name, row.campaign_id""",
        moment.parameters(),
    )
    contracts = _by_campaign(
        fetch(
            connection,
            f"""SELECT opened.campaign_id, won.currency, count(*) AS count,
                sum(won.amount) AS amount
                FROM touch_fact AS won JOIN touch_fact AS opened
                ON opened.customer_id = won.customer_id AND opened.deal_id = won.deal_id
                AND opened.kind = 'opened' AND {recorded(moment, "opened")}
                WHERE won.kind = 'contract-signed' AND {recorded(moment, "won")}
                GROUP BY 1, 2 ORDER BY 2""",
            moment.parameters(),
        )
    )
    credits = _by_campaign(
        fetch(
            connection,
            f"""SELECT campaign_id, currency, count(DISTINCT deal_id) AS count,
                sum(credit) AS amount FROM credit_period
                WHERE model = %(model)s AND campaign_id IS NOT NULL AND {truth(moment)}
                GROUP BY 1, 2 ORDER BY 2""",
            {**moment.parameters(), "model": model.value},
        )
    )
    return [_performance(row, contracts, credits) for row in rows]


_Sums = dict[UUID, dict[str, CurrencySum]]


def _by_campaign(rows: list[dict[str, Any]]) -> _Sums:
    sums: _Sums = {}
    for row in rows:
        campaign_id = row.pop("campaign_id")
        sums.setdefault(campaign_id, {})[row["currency"]] = CurrencySum(**row)
    return sums


def _performance(row: dict[str, Any], contracts: _Sums, credits: _Sums) -> CampaignPerformance:
    currency = row["currency"]
    nothing = CurrencySum(currency, 0, Decimal(0))
    won = contracts.get(row["campaign_id"], {})
    credit = credits.get(row["campaign_id"], {}).get(currency, nothing).amount
    return CampaignPerformance(
        **row,
        remaining=row["budget"] - row["cost"],
        contracts=sum(one.count for one in won.values()),
        contract_amount=won.get(currency, nothing).amount,
        credit=credit,
        return_=return_on(credit, row["cost"]),
        other_currencies=[one for one in won.values() if one.currency != currency],
    )


def annual_plan(connection: Connection, moment: Moment) -> list[PlannedYear]:
    """Planned budget and booked cost per year and currency."""
    rows = fetch(
        connection,
        f"""SELECT year::int, currency, count(*) AS campaigns, sum(budget) AS budget,
                sum(cost) AS cost
            FROM (SELECT extract(year FROM starts_on) AS year, currency, budget, {COST} AS cost
                  FROM campaign_period AS row
                  WHERE status NOT IN ('rejected', 'cancelled') AND {truth(moment, "row")}) AS plan
            GROUP BY 1, 2 ORDER BY 1, 2""",
        moment.parameters(),
    )
    return [PlannedYear(**row) for row in rows]
