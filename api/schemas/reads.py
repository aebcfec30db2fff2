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
    """Name, email and phone are null without the scope `personal`, `[erased]` after an erasure."""

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
    """A person's name is null without the scope `personal`, `[erased]` after an erasure."""

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
