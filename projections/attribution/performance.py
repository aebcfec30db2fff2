"""Campaigns' plans against what came, and the annual plan (R36, R37)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from projections.attribution.campaigns import COST
from projections.attribution.fits import Fits
from projections.attribution.models import RULES, Model
from projections.attribution.results import Asked, Credits, return_on, won_revenue
from projections.reading import Connection, CurrencySum, Moment, fetch, recorded, truth


@dataclass(frozen=True, slots=True)
class Aims:
    """What was planned; None: no such aim. Money in the budget's currency."""

    attendees: int | None
    responses: int | None
    deals: int | None
    contracts: int | None
    revenue: Decimal | None


@dataclass(frozen=True, slots=True)
class CampaignPerformance:
    """Plan against actual. Money is in the budget's `currency`; what came in other currencies is
    in `other_currencies`.

    `deals` were opened from the campaign, `contracts` of them won, bringing `contract_amount`.
    `credit` is the campaign's share of all won deals under the asked model. `attendees`: None
    where nobody counted.
    """

    campaign_id: UUID
    name: str
    channel: str
    region: str | None
    product: str | None
    status: str
    starts_on: date
    ends_on: date
    currency: str
    budget: Decimal
    cost: Decimal
    attendees: int | None
    responses: int
    deals: int
    contracts: int
    contract_amount: Decimal
    credit: Decimal
    plan: Aims
    other_currencies: list[CurrencySum]

    @property
    def remaining(self) -> Decimal:
        """Of the budget; below 0 where it was overrun."""
        return self.budget - self.cost

    @property
    def return_(self) -> Decimal | None:
        """(credit − cost) ÷ cost; None without cost."""
        return return_on(self.credit, self.cost)

    @property
    def output_over_input(self) -> Decimal | None:
        """credit ÷ cost; None without cost."""
        return output_over_input(self.credit, self.cost)

    @property
    def differences(self) -> dict[str, int | Decimal | None]:
        """Actual less planned, of each aim and of the cost; None where one of both is not known."""
        return {
            "attendees": _less(self.attendees, self.plan.attendees),
            "responses": _less(self.responses, self.plan.responses),
            "deals": _less(self.deals, self.plan.deals),
            "contracts": _less(self.contracts, self.plan.contracts),
            "revenue": _less(self.contract_amount, self.plan.revenue),
            "cost": self.cost - self.budget,
        }


@dataclass(frozen=True, slots=True)
class PlannedYear:
    """The annual plan: campaigns by the year they start in, without rejected and cancelled ones."""

    year: int
    currency: str
    campaigns: int
    budget: Decimal
    cost: Decimal


def performance(
    connection: Connection,
    moment: Moment,
    *,
    model: Model = Model.LAST,
    asked: Asked | None = None,
    fits: Fits | None = None,
    campaign_id: UUID | None = None,
) -> list[CampaignPerformance]:
    """Every campaign's plan and result, by name, or one's. Won deals count from the close on."""
    happened = recorded(moment)
    parameters = {**moment.parameters(), "id": campaign_id and str(campaign_id)}
    rows = fetch(
        connection,
        f"""WITH opened AS (
                SELECT campaign_id, count(*) AS deals FROM touch_fact
                WHERE kind = 'opened' AND campaign_id IS NOT NULL AND {happened} GROUP BY 1),
            responded AS (
                SELECT campaign_id, count(*) AS responses FROM touch_fact
                WHERE kind = 'campaign-responded' AND {happened} GROUP BY 1)
            SELECT row.campaign_id, row.name, row.channel, row.region, row.product, row.status,
                row.starts_on, row.ends_on, row.currency, row.budget, {COST} AS cost,
                row.attendees, coalesce(responses, 0) AS responses, coalesce(deals, 0) AS deals,
                planned_attendees, planned_responses, planned_deals, planned_contracts,
                planned_revenue
            FROM campaign_period AS row LEFT JOIN responded USING (campaign_id)
                LEFT JOIN opened USING (campaign_id)
            WHERE {truth(moment, "row")}
            AND (%(id)s::uuid IS NULL OR row.campaign_id = %(id)s::uuid)
            ORDER BY row.name, row.campaign_id""",
        parameters,
    )
    contracts = _contracts(connection, moment)
    credits = _credits(connection, moment, model, asked or Asked(""), fits)
    return [_performance(row, contracts, credits) for row in rows]


def _credits(
    connection: Connection, moment: Moment, model: Model, asked: Asked, fits: Fits | None
) -> dict[str, Credits]:
    """By currency."""
    won = won_revenue(
        connection, moment, [model if model in RULES else Model.LAST], asked.start, asked.end
    )
    shares = None
    if model not in RULES:
        fits = fits or Fits()
        shares = fits.fit(
            connection, moment, model, asked.definition, asked.start, asked.end, asked.zone
        ).shares
    return {currency: one.of(model, shares, currency) for currency, one in won.items()}


_Sums = dict[UUID, dict[str, CurrencySum]]


def _contracts(connection: Connection, moment: Moment) -> _Sums:
    """Won deals that were opened from a campaign, by campaign and currency."""
    rows = fetch(
        connection,
        f"""SELECT opened.campaign_id, won.currency, count(*) AS count, sum(won.amount) AS amount
            FROM touch_fact AS won JOIN touch_fact AS opened
            ON opened.customer_id = won.customer_id AND opened.deal_id = won.deal_id
            AND opened.kind = 'opened' AND opened.campaign_id IS NOT NULL
            AND {recorded(moment, "opened")}
            WHERE won.kind = 'contract-signed' AND {recorded(moment, "won")}
            GROUP BY 1, 2 ORDER BY 2""",
        moment.parameters(),
    )
    sums: _Sums = {}
    for row in rows:
        of = sums.setdefault(row.pop("campaign_id"), {})
        of[row["currency"]] = CurrencySum(**row)
    return sums


def _performance(
    row: dict[str, Any], contracts: _Sums, credits: dict[str, Credits]
) -> CampaignPerformance:
    currency = row["currency"]
    aims = ("attendees", "responses", "deals", "contracts", "revenue")
    plan = Aims(*(row.pop(f"planned_{aim}") for aim in aims))
    won = contracts.get(row["campaign_id"], {})
    own = won.get(currency)
    return CampaignPerformance(
        **row,
        contracts=sum(one.count for one in won.values()),
        contract_amount=Decimal(0) if own is None else own.amount,
        credit=credits.get(currency, {}).get(row["campaign_id"], Decimal(0)),
        plan=plan,
        other_currencies=[one for one in won.values() if one.currency != currency],
    )


def _less(actual: Any, planned: Any) -> Any:
    return None if actual is None or planned is None else actual - planned


def output_over_input(credit: Decimal, cost: Decimal) -> Decimal | None:
    """credit ÷ cost, to six decimals; None without cost."""
    return round(credit / cost, 6) if cost else None


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
