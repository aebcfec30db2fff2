"""Bodies of the commands on campaigns."""

from typing import Annotated

from pydantic import Field

from api.schemas.fields import Amount, CommandBody, Day, External, Label, Name


class PlanCampaign(CommandBody):
    """A campaign from its first to its last day, with its budget."""

    name: Name
    channel: Label
    region: Label | None = None
    starts_on: Day
    ends_on: Day
    budget: Amount
    external_id: External | None = None


class BookCost(CommandBody):
    """What the campaign cost, in the currency of its budget."""

    amount: Amount
    reference: Annotated[
        Label | None,
        Field(description="The booking's own number; the Idempotency-Key where it is missing."),
    ] = None
