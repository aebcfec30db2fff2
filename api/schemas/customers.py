"""Bodies of the commands on customers."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from api.schemas.fields import (
    Amount,
    AttributeName,
    Attributes,
    Channel,
    Clearable,
    CommandBody,
    External,
    Id,
    Label,
    Name,
    Prose,
    Quantity,
)
from domain.customer import LONGEST_CYCLE
from domain.values import ChurnCause, CustomerKind, Level, RepeatType, Severity

Email = Annotated[str, Field(max_length=254, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")]


class RegisterCustomer(CommandBody):
    """A company, or a natural person whose name is then kept as personal data."""

    kind: CustomerKind = CustomerKind.COMPANY
    name: Annotated[
        Name | None, Field(description="May be missing only where `identified` is false.")
    ] = None
    identified: bool = True
    region: Label | None = None
    industry: Label | None = None
    source: Label | None = None
    external_id: External | None = None
    attributes: Attributes = Field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        return {"name": None, **super().arguments()}


class ChangeProfile(CommandBody):
    """What is left out stays; null or an empty text clears."""

    name: Name | None = None
    identified: bool | None = None
    region: Clearable | None = None
    industry: Clearable | None = None
    source: Clearable | None = None
    attributes: Attributes = Field(default_factory=dict)
    removed_attributes: Annotated[tuple[AttributeName, ...], Field(max_length=100)] = ()

    def arguments(self) -> dict[str, Any]:
        given = super().arguments()
        for name in self.model_fields_set & {"region", "industry", "source"}:
            given.setdefault(name, "")
        return given


class AddContact(CommandBody):
    """A natural person at the customer. Name, email and phone are kept as personal data."""

    name: Name
    department: Label | None = None
    level: Label | None = None
    role: Label | None = None
    email: Email | None = None
    phone: Label | None = None


class RecordResponse(CommandBody):
    """The customer answered a campaign: a touch."""

    campaign_id: Id
    channel: Channel
    kind: Label


class PlaceOrder(CommandBody):
    """An order that came without a deal of its own."""

    order_id: Label
    amount: Amount
    cost: Annotated[Amount | None, Field(description="Ours, in the currency of the amount.")] = None


class RecordDelivery(CommandBody):
    """What the customer bought came to it. The first delivery makes a user of it."""

    delivery_id: Label
    order_id: Annotated[
        Label | None,
        Field(
            description="Of the order, or of the deal won by the contract, that it fulfils. Need"
            " not have been recorded."
        ),
    ] = None


class RecordPayment(CommandBody):
    """A payment fell overdue, or was settled."""

    kind: Literal["overdue", "settled"]
    amount: Amount
    reference: Label


class RaiseChurnSignal(CommandBody):
    """A sign that the customer may leave. The detail is kept as personal data."""

    kind: Label
    severity: Severity
    detail: Prose | None = None


class ChangeLevel(CommandBody):
    """The customer's level inside the relationship."""

    level: Level


def _cause(name: str) -> ChurnCause:
    # not the class itself: from Python 3.12 on its signature is not that of a validator
    return ChurnCause(name)


class Churn(CommandBody):
    """The customer left, and why. A loss by silence is found by a policy instead."""

    cause: Annotated[
        Literal["product", "service", "price", "competitor", "closure", "relationship", "other"],
        AfterValidator(_cause),
    ]


class DescribeDemand(CommandBody):
    """When the customer may need something again. The whole of it: what is left out is not known.

    One-off business (`project`) has no cycle.
    """

    repeat_type: RepeatType | None = None
    cycle_days: Annotated[
        int | None,
        Field(ge=1, le=LONGEST_CYCLE, description="From one purchase to the next."),
    ] = None
    stock_alert_below: Annotated[
        Quantity | None,
        Field(description="Above 0, in the unit that the customer's stock is reported in."),
    ] = None


class ReportStock(CommandBody):
    """What the customer has left of what it buys from us."""

    level: Quantity


class PlanRetention(CommandBody):
    """Whether the customer is worth keeping, and how much may be spent on it, in all.

    The limit is 0 where it is not worth keeping.
    """

    worth_keeping: bool
    limit: Amount
    social_effect: Annotated[Severity | None, Field(description="Of losing the customer.")] = None


class BookRetentionCost(CommandBody):
    """What keeping the customer cost; refused above the limit."""

    amount: Amount
    reference: Annotated[
        Label | None,
        Field(description="The booking's own number; the Idempotency-Key where it is missing."),
    ] = None
