"""Shapes of what is answered about attribution and campaigns."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.forecast import Definition, Rate
from api.schemas.reads import External, Money, ReadAnswer

Rates = Annotated[list[Rate], Field(description="By which amounts were converted.")]
Ratio = Annotated[str | None, Field(description="To six decimals; null without cost.")]
Return = Annotated[
    str | None,
    Field(alias="return", description="(credit − cost) ÷ cost; null without cost."),
]


class AnalyticAnswer(ReadAnswer):
    """An answer that rests on a definition."""

    parked: Annotated[int, Field(description="Keys whose latest events are not in the answer.")]
    definition: Definition


class CampaignCredit(BaseModel):
    """`cost` is null in another currency; `error`: standard error of a sampled credit."""

    campaign_id: UUID
    name: str | None
    credit: Money
    cost: Money | None
    return_: Return
    error: Money | None


class GroupCredit(BaseModel):
    """`cost`: of all campaigns with this value, whether they earned anything or not."""

    value: Annotated[str | None, Field(description="Null: the campaigns have none.")]
    campaigns: int
    credit: Money
    cost: Money
    return_: Return


class OtherRevenue(BaseModel):
    deals: int
    amount: Money


class Fit(BaseModel):
    """What a data-driven model was fitted to."""

    paths: Annotated[int, Field(description="With a touch, won or not.")]
    wins: int
    orders: Annotated[int, Field(description="Sampled orders of arrival; 0: the values are exact.")]
    removal_effects: Annotated[
        dict[UUID, str] | None,
        Field(description="Markov: the part of the wins that goes with each campaign."),
    ]


class AttributedRevenue(BaseModel):
    """`revenue` = `unattributed` + all credits, to the minor unit."""

    model: str
    revenue: Money
    unattributed: Money
    campaigns: list[CampaignCredit]
    groups: Annotated[
        list[GroupCredit],
        Field(description="Best return first; empty where the group is the campaign."),
    ]
    fit: Annotated[Fit | None, Field(description="Of a data-driven model.")]


class AttributionAnswer(AttributedRevenue, AnalyticAnswer):
    """Won revenue by campaign."""

    currency: str
    group: str
    from_: Annotated[date | None, Field(alias="from")]
    to: date | None
    other_currencies: list[OtherRevenue]
    rates: Rates


class ComparisonAnswer(AnalyticAnswer):
    """The same revenue by every model."""

    currency: str
    group: str
    from_: Annotated[date | None, Field(alias="from")]
    to: date | None
    models: list[AttributedRevenue]
    other_currencies: list[OtherRevenue]
    rates: Rates


class TouchCredit(BaseModel):
    campaign_id: Annotated[UUID | None, Field(description="Null: unattributed.")]
    touch: Annotated[int, Field(description="Position of the touch; 0: unattributed.")]
    touched_at: datetime | None
    anchors: Annotated[list[str], Field(description="first, lead, opportunity, close.")]
    credits: Annotated[dict[str, Money], Field(description="By rule model.")]


class DealCreditsAnswer(AnalyticAnswer):
    """Under every model the credits sum to the amount. Not won: no amount, no touches."""

    deal_id: UUID
    won_on: date | None
    amount: Money | None
    touches: list[TouchCredit]


class CampaignChange(BaseModel):
    campaign_id: UUID
    name: str | None
    before: Money
    after: Money


class WhatIfAnswer(AnalyticAnswer):
    """Credits as they are, and without the campaign."""

    model: str
    currency: str
    removed: UUID
    from_: Annotated[date | None, Field(alias="from")]
    to: date | None
    revenue_before: Money
    revenue_after: Money
    unattributed_before: Money
    unattributed_after: Money
    removal_effect: Annotated[
        str | None, Field(description="Markov: the part of the attributed revenue that is lost.")
    ]
    campaigns: list[CampaignChange]


# ---- campaigns ----


class Plan(BaseModel):
    """What a campaign is meant to bring; null: no such aim."""

    attendees: int | None
    responses: int | None
    deals: int | None
    contracts: int | None
    revenue: Money | None


class Campaign(BaseModel):
    id: UUID
    name: str
    channel: str
    region: str | None
    product: str | None
    status: str
    starts_on: date
    ends_on: date
    budget: Money
    cost: Money
    plan: Plan
    attendees: Annotated[int | None, Field(description="How many came; null: not recorded.")]
    external_id: External | None
    planned_at: datetime
    version: int


class CampaignAnswer(Campaign, ReadAnswer):
    pass


class Differences(BaseModel):
    """Actual less planned; null where one of both is not known."""

    attendees: int | None
    responses: int | None
    deals: int | None
    contracts: int | None
    revenue: Money | None
    cost: Annotated[Money, Field(description="Cost less budget.")]


class CampaignPerformance(BaseModel):
    campaign_id: UUID
    name: str
    channel: str
    region: str | None
    product: str | None
    status: str
    budget: Money
    cost: Money
    remaining: Annotated[Money, Field(description="May be negative.")]
    attendees: int | None
    responses: int
    deals: int
    contracts: int
    contract_amount: Money
    credit: Money
    return_: Return
    output_over_input: Ratio
    plan: Plan
    differences: Differences
    other_currencies: list[OtherRevenue]


class PlannedYear(BaseModel):
    year: int
    campaigns: int
    budget: Money
    cost: Money


class PerformanceAnswer(AnalyticAnswer):
    model: str
    campaigns: list[CampaignPerformance]
    annual_plan: list[PlannedYear]


class Outcome(BaseModel):
    """What campaigns brought together; money of those whose budget is in the currency asked."""

    campaigns: int
    deals: int
    contracts: int
    deals_per_campaign: str
    contracts_per_campaign: str
    cost: Money
    credit: Money
    return_: Return
    output_over_input: Ratio


class Best(BaseModel):
    """The value with the best return; null where nothing cost anything, or it is not known."""

    region: str | None
    method: str | None
    size_band: str | None


class PeriodEffect(Outcome):
    """Campaigns that took place and started in [from, to)."""

    from_: Annotated[date, Field(alias="from")]
    to: date
    best: Best


class EffectAnswer(AnalyticAnswer):
    model: str
    period: str
    currency: str
    periods: list[PeriodEffect]


class Ranked(Outcome):
    rank: int
    value: Annotated[str | None, Field(description="Null: not known.")]


class RankingAnswer(AnalyticAnswer):
    """Campaigns that took place, best return first."""

    model: str
    by: str
    currency: str
    ranking: list[Ranked]


class Invited(BaseModel):
    customer_id: UUID
    level: str
    volume: Money


class InvitationsAnswer(AnalyticAnswer):
    """The customers with the level who bought for so much, the largest first."""

    level: str | None
    currency: str
    customers: Annotated[int, Field(description="All, also those beyond the limit.")]
    invitations: list[Invited]


class Week(BaseModel):
    """Responses and deals of the campaign; contracts of the customers it reached."""

    from_: Annotated[date, Field(alias="from")]
    to: date
    responses: int
    deals: int
    contracts: int
    amount: Money


class CampaignEffectAnswer(AnalyticAnswer):
    """What became of the customers that the campaign reached."""

    campaign_id: UUID
    model: str
    reached: Annotated[int, Field(description="Customers with a touch of it, in its region.")]
    customers: Annotated[int, Field(description="All in its region; in all, if it has none.")]
    coverage: Annotated[str | None, Field(description="reached ÷ customers.")]
    sales: Annotated[Money, Field(description="Contracts from its first day to its last.")]
    sales_before: Annotated[Money, Field(description="Contracts in as many days before.")]
    growth: Annotated[str | None, Field(description="Null without sales before.")]
    cost: Money
    credit: Money
    return_: Return
    output_over_input: Ratio
    weeks: list[Week]
