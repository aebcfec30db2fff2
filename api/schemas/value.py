"""Shapes of what is answered about what customers are worth."""

from datetime import date
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.lifecycle import AnalysisAnswer, Definition, OtherPurchases
from api.schemas.reads import Money, ReadAnswer


class BuyingModel(BaseModel):
    """BG/NBD; times in weeks."""

    r: str
    alpha: str
    a: str
    b: str
    log_likelihood: str


class SpendingModel(BaseModel):
    """Gamma-Gamma; `gamma` in units of the currency."""

    p: str
    q: str
    gamma: str
    log_likelihood: str


class Model(BaseModel):
    """`buying` and `spending` are null where `reason` says why none was fitted."""

    customers: Annotated[int, Field(description="Customers that bought: the sample.")]
    repeaters: Annotated[int, Field(description="Those of them who bought again.")]
    reason: str | None
    buying: BuyingModel | None
    spending: SpendingModel | None
    currency: str
    cost_share: Annotated[
        str | None, Field(description="Of our cost in what was paid, where it is known.")
    ]
    horizon_months: int
    yearly_discount: str
    weeks: int
    formula: str
    other_currencies: list[OtherPurchases]


class ModelAnswer(Model, AnalysisAnswer):
    pass


class Scores(BaseModel):
    """1 to 5, by fifths of all buyers, 5 the best; `cost` is null where no cost is known."""

    recency: int
    frequency: int
    amount: int
    cost: int | None
    whole: Annotated[str, Field(description="0.35, 0.35, 0.15 and 0.15 of them; 1 to 5.")]


class Worth(BaseModel):
    """What the models say is null where none was fitted. Of a customer who buys once only
    (`repeat_type` project) no purchase more is expected, nor has one a date."""

    customer_id: UUID
    purchase_days: int
    first_on: date
    last_on: date
    amount: Money
    cost_share: str | None
    scores: Scores
    repeat_type: str | None
    alive: Annotated[str | None, Field(description="Chance that the customer still buys.")]
    expected_purchases: Annotated[str | None, Field(description="Within the model's `weeks`.")]
    mean_value: Annotated[Money | None, Field(description="Of a purchase to come.")]
    margin: str
    lifetime_value: Annotated[Money | None, Field(description="See `formula`.")]
    next_purchase_on: Annotated[
        date | None,
        Field(description="Day by which one purchase is expected, within five years."),
    ]


class WorthsAnswer(AnalysisAnswer):
    """`customers`: the highest by `sort`, from number `offset` on."""

    sort: str
    offset: int
    model: Model
    customers: list[Worth]


class WorthAnswer(ReadAnswer):
    customer_id: UUID
    worth: Annotated[Worth | None, Field(description="Null: bought nothing in the currency.")]
    model: Model
    definition: Definition
