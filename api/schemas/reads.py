"""Shapes of what reads answer. They describe; handlers build the same shapes directly."""

from datetime import date, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field


class Money(BaseModel):
    """Exact; as many decimals as the currency's minor unit has."""

    value: str
    currency: str


class ReadAnswer(BaseModel):
    """What every read says about itself."""

    position: Annotated[int, Field(description="Everything up to there is in the answer.")]
    as_of: datetime
    known_at: Annotated[int, Field(description="Nothing recorded after this position counts.")]


Item = TypeVar("Item")


class ListAnswer(ReadAnswer, Generic[Item]):
    """A page of a list."""

    items: list[Item]
    next: Annotated[str | None, Field(description="Cursor of the next page; null at the end.")]
    parked: Annotated[int, Field(description="Keys whose latest events are not in the answer.")]


class External(BaseModel):
    source: str
    id: str


class Contact(BaseModel):
    """Name, email and phone are null without the scope `personal`, and after an erasure."""

    id: UUID
    name: str | None
    department: str | None
    level: str | None
    role: str | None
    email: str | None
    phone: str | None
    added_at: datetime


class Standing(BaseModel):
    value: str
    since: datetime


class Customer(BaseModel):
    """A person's name is null without the scope `personal`, and after an erasure."""

    id: UUID
    kind: str
    name: str | None
    identified: bool
    region: str | None
    industry: str | None
    source: str | None
    external_id: External | None
    attributes: dict[str, Any]
    registered_at: datetime
    version: int


class CustomerAnswer(Customer, ReadAnswer):
    contacts: list[Contact]
    lifecycle: Annotated[dict[str, Standing], Field(description="By classification: type, path, …")]


class Visit(BaseModel):
    """A stay in a stage; `left_at` is null while it lasts."""

    visit: int
    stage: str
    revision: int
    entered_at: datetime
    left_at: datetime | None
    ended: str | None


class Opportunity(BaseModel):
    id: UUID
    customer_id: UUID
    name: str
    pipeline_id: UUID
    pipeline_revision: int
    stage: str
    entered_at: datetime
    status: str
    amount: Money
    expected_close: date | None
    owner: str | None
    campaign_id: UUID | None
    referred_by: str | None
    external_id: External | None
    chance: str | None
    won_amount: Money | None
    signed_on: date | None
    lost_cause: str | None
    competitor: str | None
    reviewed: bool
    closed: bool
    archived: bool
    purged: bool
    opened_at: datetime
    version: int


class OpportunityAnswer(Opportunity, ReadAnswer):
    visits: list[Visit]


class Campaign(BaseModel):
    id: UUID
    name: str
    channel: str
    region: str | None
    status: str
    starts_on: date
    ends_on: date
    budget: Money
    cost: Money
    external_id: External | None
    planned_at: datetime
    version: int


class CampaignAnswer(Campaign, ReadAnswer):
    pass


class StageRow(BaseModel):
    name: str
    chance_to_next: str
    duration_months: str
    chance_to_win: str
    visits_per_week: int | None
    approval: bool


class Pipeline(BaseModel):
    id: UUID
    name: str
    revision: int
    approvals: list[str]
    stages: list[StageRow]
    defined_at: datetime
    version: int


class PipelineAnswer(Pipeline, ReadAnswer):
    pass


class OtherCurrency(BaseModel):
    """What is not in the sums because it is in another currency."""

    deals: int
    amount: Money
    weighted: Money | None = None


class FunnelStage(BaseModel):
    stage: str
    deals: int
    amount: Money
    weighted: Money
    suspended: int


class FunnelAnswer(ReadAnswer):
    pipeline_id: UUID
    currency: str
    stages: list[FunnelStage]
    other_currencies: list[OtherCurrency]
    parked: int


class ForecastMonth(BaseModel):
    """`from` is in the month, `to` is not."""

    month: int
    from_: Annotated[date, Field(alias="from")]
    to: date
    expected: Money
    sd: Money


class ForecastAnswer(ReadAnswer):
    pipeline_id: UUID
    currency: str
    timing: str
    by: str
    months: list[ForecastMonth]
    total: Money
    sd: Money
    beyond: Money
    other_currencies: list[OtherCurrency]
    parked: int


class WinRate(BaseModel):
    competitor: str
    won: int
    lost: int
    rate: str


class WinRatesAnswer(ReadAnswer):
    competitors: list[WinRate]
    parked: int


class ValueCount(BaseModel):
    value: str
    customers: int


class DistributionAnswer(ReadAnswer):
    classification: str
    customers: int
    distribution: list[ValueCount]
    parked: int


class Move(BaseModel):
    from_: Annotated[str, Field(alias="from")]
    to: str
    moves: int


class Departures(BaseModel):
    value: str
    departures: int


class TransitionsAnswer(ReadAnswer):
    classification: str
    from_: Annotated[datetime | None, Field(alias="from")]
    to: datetime
    transitions: list[Move]
    departures: list[Departures]
    stable_to_lost: int
    parked: int


class Duration(BaseModel):
    """Mean and median are of the closed periods."""

    value: str
    periods: int
    closed: int
    open: int
    mean_days: str | None
    median_days: str | None


class DurationsAnswer(ReadAnswer):
    classification: str
    durations: list[Duration]
    parked: int


class CampaignCredit(BaseModel):
    campaign_id: UUID
    credit: Money
    cost: Money | None
    return_: Annotated[str | None, Field(alias="return")]


class OtherRevenue(BaseModel):
    deals: int
    amount: Money


class AttributionAnswer(ReadAnswer):
    """`revenue` = `unattributed` + all credits, to the minor unit."""

    model: str
    currency: str
    from_: Annotated[date | None, Field(alias="from")]
    to: date | None
    revenue: Money
    unattributed: Money
    campaigns: list[CampaignCredit]
    other_currencies: list[OtherRevenue]
    parked: int


class CampaignPerformance(BaseModel):
    campaign_id: UUID
    name: str
    channel: str
    region: str | None
    status: str
    budget: Money
    cost: Money
    remaining: Annotated[Money, Field(description="May be negative.")]
    responses: int
    deals: int
    contracts: int
    contract_amount: Money
    credit: Money
    return_: Annotated[str | None, Field(alias="return")]
    other_currencies: list[OtherRevenue]


class PlannedYear(BaseModel):
    year: int
    campaigns: int
    budget: Money
    cost: Money


class PerformanceAnswer(ReadAnswer):
    model: str
    campaigns: list[CampaignPerformance]
    annual_plan: list[PlannedYear]
    parked: int
