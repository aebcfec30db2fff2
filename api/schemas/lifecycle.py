"""Shapes of what is answered about the lifecycle of customers."""

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.reads import ListAnswer, Money, ReadAnswer

Definition = Annotated[
    dict[str, str], Field(description="Part of the definitions → id of the one in force.")
]


class AnalysisAnswer(ReadAnswer):
    definition: Definition
    parked: int


class OtherPurchases(BaseModel):
    """What is not in the sums because it is in another currency."""

    purchases: int
    amount: Money


class ValueCount(BaseModel):
    value: str
    customers: int


class DistributionAnswer(AnalysisAnswer):
    classification: str
    customers: int
    distribution: list[ValueCount]


class Move(BaseModel):
    from_: Annotated[str, Field(alias="from")]
    to: str
    moves: int


class Departures(BaseModel):
    value: str
    departures: int


class TransitionsAnswer(AnalysisAnswer):
    """The moves out of a value sum to its departures. `stable_to_lost`: customers lost while their
    level was stable, whatever the classification."""

    classification: str
    from_: Annotated[datetime | None, Field(alias="from")]
    to: datetime
    transitions: list[Move]
    departures: list[Departures]
    stable_to_lost: int


class Duration(BaseModel):
    """Mean and median are of the closed periods alone. The other two are by Kaplan and Meier, who
    count an open period as longer than it has been so far: the median, null where more than half
    outlast all that was seen, and the mean within the first `restricted_to_days` days, the longest
    seen."""

    value: str
    periods: int
    closed: int
    open: Annotated[int, Field(description="Customers who are still there: censored.")]
    mean_days: str | None
    median_days: str | None
    survival_median_days: str | None
    restricted_mean_days: str | None
    restricted_to_days: str | None


class DurationsAnswer(AnalysisAnswer):
    classification: str
    durations: list[Duration]


class CohortMonth(BaseModel):
    """`month` counts from the cohort's own, 0. `retained`: in a relationship at its end, or at
    `as_of` where that comes first."""

    month: int
    active: Annotated[int, Field(description="Customers that bought in it.")]
    retained: int
    revenue: Money


class Cohort(BaseModel):
    cohort: Annotated[date, Field(description="First day of the month its customers came in.")]
    customers: int
    months: list[CohortMonth]


class CohortsAnswer(AnalysisAnswer):
    by: str
    currency: str
    cohorts: list[Cohort]
    other_currencies: list[OtherPurchases]


class FlowNode(BaseModel):
    """On date number `step`, from 0."""

    step: int
    value: str
    customers: int


class FlowLink(BaseModel):
    """From date number `step` to the next."""

    step: int
    from_: Annotated[str, Field(alias="from")]
    to: str
    customers: int


class FlowsAnswer(AnalysisAnswer):
    """The nodes of a date, and the links between two, sum to `customers`. Before its first fact a
    customer is `absent`."""

    classification: str
    dates: list[datetime]
    values: list[str]
    customers: int
    nodes: list[FlowNode]
    links: list[FlowLink]


class LossCause(BaseModel):
    """`from_stable`: those whose level was stable, the loss that matters most."""

    cause: str
    active: Annotated[bool, Field(description="Told by somebody; else found by a silence.")]
    losses: int
    from_stable: int


class DeclineCause(BaseModel):
    """Moves to a lower level; `rule` is null where somebody told it."""

    level: str
    rule: str | None
    moves: int


class Loss(BaseModel):
    """`level`: the one it left. `event`: position of the event that tells it."""

    customer_id: UUID
    lost_at: datetime
    cause: str
    active: bool
    level: str | None
    rule: str | None
    event: int


class LossesAnswer(ListAnswer[Loss]):
    definition: Definition


class LossCausesAnswer(AnalysisAnswer):
    from_: Annotated[datetime | None, Field(alias="from")]
    to: datetime
    losses: int
    causes: list[LossCause]
    declines: list[DeclineCause]


class Event(BaseModel):
    position: int
    kind: str


class Reason(BaseModel):
    """Why a customer stands there: the event that opened it and, where a rule decided, the rule
    with its version and the figures it rests on."""

    value: str
    since: datetime
    cause: str | None
    rule: str | None
    evidence: dict[str, Any] | None
    event: Event


class CustomerLifecycleAnswer(ReadAnswer):
    customer_id: UUID
    standing: Annotated[dict[str, Reason], Field(description="By classification: type, path, …")]
    strategy: Annotated[str | None, Field(description="How a customer of this level is served.")]
    definition: Definition


class Strategy(BaseModel):
    level: str
    strategy: str
    customers: int


class StrategiesAnswer(AnalysisAnswer):
    strategies: list[Strategy]
