"""Shapes of what is answered about segments of customers."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.lifecycle import AnalysisAnswer


class Leaf(BaseModel):
    """Of the `customers` learned from that satisfy the rule, `reached` came to the target. `others`
    have not come there yet, and satisfy it now."""

    leaf: int
    rule: list[str]
    customers: int
    reached: int
    probability: str
    others: int


class TreeAnswer(AnalysisAnswer):
    """`reason` says why there are no leaves."""

    target: str
    since: datetime
    customers: Annotated[int, Field(description="Learned from.")]
    reached: int
    others: Annotated[int, Field(description="Scored: they have not come to the target.")]
    reason: str | None
    leaves: list[Leaf]


class Member(BaseModel):
    """A line of an exported segment."""

    customer_id: UUID
    leaf: int
    probability: str
