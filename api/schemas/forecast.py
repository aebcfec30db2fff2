"""Shapes of what is answered about the funnel and its forecast."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.reads import ListAnswer, Money, ReadAnswer

Definition = Annotated[
    dict[str, str],
    Field(
        description="Part of the definitions → id of the one in force; `pipeline` → its revision"
        " at `as_of`. Empty where none plays a part."
    ),
]


class OtherCurrency(BaseModel):
    """What is not in the sums because it is in another currency."""

    deals: int
    amount: Money
    weighted: Money


class Rate(BaseModel):
    """What one unit of `from` is worth in `to`, from the day `on`."""

    from_: Annotated[str, Field(alias="from")]
    to: str
    rate: str
    on: date


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
    rates: Annotated[list[Rate], Field(description="By which sums were converted.")]
    definition: Definition
    parked: int


class Interval(BaseModel):
    """It lies within with chance `level`; above and below with equal ones."""

    level: str
    low: Money
    high: Money


class Sums(BaseModel):
    """`commit` + `best_case` + `pipeline` = `expected`, each rounded to the minor unit. `closed`
    was signed in that time, and is in none of them."""

    sd: Money
    median: Money
    intervals: list[Interval]
    closed: Money
    commit: Money
    best_case: Money
    pipeline: Money


class ForecastMonth(Sums):
    """`from` is in the month, `to` is not."""

    month: int
    from_: Annotated[date, Field(alias="from")]
    to: date
    expected: Money


class Category(BaseModel):
    """Open deals by their chance to win, whenever that may be."""

    category: Literal["commit", "best_case", "pipeline"]
    deals: int
    amount: Money
    expected: Money


class Outlook(Sums):
    """`total` is over the months shown; what falls later is `beyond`."""

    deals: int
    months: list[ForecastMonth]
    total: Money
    beyond: Money
    categories: list[Category]


class ForecastGroup(Outlook):
    group: str | None


class StageSample(BaseModel):
    """Stays in the stage that ended: the deal moved to another, was won, or lost or terminated.
    `suspended`: how many times one was."""

    stage: str
    ended: int
    moved: int
    won: int
    lost: int
    suspended: int


class Sample(BaseModel):
    """What was learned from. Not `used`: no stay had ended, and the definition counts (`aged`)."""

    pipeline_id: UUID
    learned_until: Annotated[
        datetime, Field(description="What was true before counts: the beginning of the day.")
    ]
    one_in: Annotated[
        int, Field(description="Learned from one in so many deals: 1, unless the log is long.")
    ]
    used: bool
    ended: int
    stages: list[StageSample]


class ForecastAnswer(Outlook, ReadAnswer):
    pipeline_id: Annotated[UUID | None, Field(description="null: all pipelines.")]
    currency: str
    timing: str
    by: str
    group: str | None
    groups: list[ForecastGroup]
    other_currencies: list[OtherCurrency]
    rates: Annotated[list[Rate], Field(description="By which sums were converted.")]
    samples: Annotated[list[Sample], Field(description="With `timing=learned`, by pipeline.")]
    definition: Definition
    parked: int


class WinRate(BaseModel):
    competitor: str
    won: int
    lost: int
    rate: str


class WinRatesAnswer(ReadAnswer):
    competitors: list[WinRate]
    definition: Definition
    parked: int


class MonthEnd(BaseModel):
    """A forecast of the deals open when a month ended, and what came in the months of the horizon:
    `open` from those deals, `all` from any."""

    at: Annotated[datetime, Field(description="The first instant of the month after it.")]
    known_at: Annotated[int | None, Field(description="null: all that is known now.")]
    to: date
    deals: int
    open: Money
    all: Money
    forecasts: list["MethodForecast"]


class MethodForecast(BaseModel):
    """`intervals` and `brier` are null for the naive method, which knows no deals."""

    method: str
    expected: Money
    intervals: list[Interval] | None
    brier: str | None
    ended: Annotated[int | None, Field(description="Stays learned from; null where none are.")]


class Score(BaseModel):
    """`wape` = Σ|came − forecast| ÷ Σ came; `bias` = Σ(forecast − came) ÷ Σ came; `accuracy` is the
    mean of max(0, 1 − |came − forecast| ÷ came) over the months in which something came. Null
    where nothing did."""

    wape: str | None
    bias: str | None
    accuracy: str | None


class Coverage(BaseModel):
    """How often what came from the open deals lay within the interval."""

    level: str
    within: str


class MethodScore(BaseModel):
    """`open`: against what the deals forecast brought; `all`: against all that came. `brier`: mean
    squared difference of a deal's chance to be won within the horizon and what became of it."""

    method: str
    open: Score
    all: Score
    coverage: list[Coverage] | None
    brier: str | None


class BacktestAnswer(ReadAnswer):
    pipeline_id: UUID
    currency: str
    basis: str
    horizon: int
    scores: list[MethodScore]
    month_ends: list[MonthEnd]
    definition: Definition
    parked: int


class Change(BaseModel):
    """`times`: how often it happened; `deals` and `amount`: what it added, negative for what it
    took away."""

    kind: str
    times: int
    deals: int
    amount: Money


class WaterfallAnswer(ReadAnswer):
    """`opening` + all `changes` = `closing`, exactly: deals and amounts."""

    pipeline_id: UUID | None
    currency: str
    from_: Annotated[datetime, Field(alias="from")]
    to: datetime
    close_from: date | None
    close_to: date | None
    opening: Change
    changes: list[Change]
    closing: Change
    other_currencies: list[str]
    definition: Definition
    parked: int


class Overdue(BaseModel):
    """`due_at`: when the next visit was due. `last_visit_at` is null where there was none since
    the deal entered the stage; the time then runs from there."""

    opportunity_id: UUID
    customer_id: UUID
    name: str
    owner: str | None
    stage: str
    visits_per_week: int
    entered_at: datetime
    last_visit_at: datetime | None
    due_at: datetime
    days_overdue: str
    amount: Money


class OverdueAnswer(ListAnswer[Overdue]):
    definition: Definition
