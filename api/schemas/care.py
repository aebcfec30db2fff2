"""Shapes of what is answered about needs, keeping customers, and what is moved."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.lifecycle import AnalysisAnswer, Definition, OtherPurchases
from api.schemas.reads import ListAnswer, Money


class Need(BaseModel):
    """`kind` cycle: the last purchase is `cycle_days` old then; stock: the stock has been below
    `stock_alert_below` since then."""

    customer_id: UUID
    kind: str
    due_at: datetime
    due: bool
    alerted_at: Annotated[datetime | None, Field(description="Null until a policy told it.")]
    rule: str | None
    repeat_type: str | None
    cycle_days: int | None
    last_purchase_at: datetime | None
    stock: str | None
    stock_alert_below: str | None
    stock_at: datetime | None


class NeedsAnswer(ListAnswer[Need]):
    definition: Definition


class KeptCustomer(BaseModel):
    """`worth_keeping`, `limit` and `remaining` are null without a plan. `past_revenue`: of the year
    before, or before the loss. `expected_revenue`: expected purchases × their mean value within 52
    weeks, null without a model. `value_at_stake`: expected revenue where there is one, else the
    past. `over_value`: the limit is above it."""

    customer_id: UUID
    type: str
    level: str
    lost_at: datetime | None
    cause: str | None
    worth_keeping: bool | None
    social_effect: str | None
    limit: Money | None
    spent: Money
    remaining: Money | None
    past_revenue: Money
    expected_revenue: Money | None
    value_at_stake: Money
    over_value: bool


class RetentionAnswer(AnalysisAnswer):
    """`count` and the sums are over all customers, `customers` has those from `offset` on."""

    currency: str
    offset: int
    count: int
    past_revenue: Money
    limit: Money
    spent: Money
    customers: list[KeptCustomer]


class Step(BaseModel):
    """Customers that came to the value; `rate` = moved ÷ customers."""

    value: str
    moved_by: str
    customers: int
    moved: int
    rate: str | None
    median_days: str | None


class Origin(BaseModel):
    """Marketing: deals opened from a campaign. `order_rate` = won ÷ deals, `win_rate` = won ÷ (won
    + lost); `median_days` from opening to contract."""

    origin: str
    deals: int
    won: int
    lost: int
    order_rate: str | None
    win_rate: str | None
    median_days: str | None
    revenue: Money
    other_currencies: list[OtherPurchases]


class PerformanceAnswer(AnalysisAnswer):
    from_: Annotated[datetime | None, Field(alias="from")]
    to: datetime
    currency: str
    steps: list[Step]
    origins: list[Origin]


class Result(BaseModel):
    """`profit` = sales − cost where the cost is known; `uncosted` is sold without one.
    `raised_per_cost` = sales with a known cost ÷ that cost."""

    from_: Annotated[date, Field(alias="from")]
    to: date
    purchases: int
    sales: Money
    cost: Money
    profit: Money
    uncosted: Money
    raised_per_cost: str | None


class GrowthAnswer(AnalysisAnswer):
    """Growth is null from nothing, that of profit also from a loss. `lag` = growth of sales −
    growth of profit."""

    currency: str
    before: Result
    after: Result
    sales_growth: str | None
    profit_growth: str | None
    lag: str | None
    flagged: Annotated[bool, Field(description="Sales of known cost grew and profit did not.")]
    other_currencies: Annotated[
        list[OtherPurchases], Field(description="Purchases of the second period.")
    ]
