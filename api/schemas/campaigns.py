"""Bodies of the commands on campaigns."""

from typing import Annotated

from pydantic import AfterValidator, Field

from api.schemas.fields import (
    Amount,
    Channel,
    CommandBody,
    Count,
    Day,
    External,
    Label,
    Model,
    Name,
)
from domain.values import CampaignPlan


class PlanBody(Model):
    """What a campaign is meant to bring; what is left out is no aim."""

    attendees: Count | None = None
    responses: Count | None = None
    deals: Count | None = None
    contracts: Count | None = None
    revenue: Annotated[
        Amount | None, Field(description="Of the contracts, in the currency of the budget.")
    ] = None


def _plan(body: PlanBody) -> CampaignPlan:
    return CampaignPlan(**dict(body))


class PlanCampaign(CommandBody):
    """A campaign from its first to its last day, with its budget and its aims."""

    name: Name
    channel: Channel
    region: Label | None = None
    starts_on: Day
    ends_on: Day
    budget: Amount
    external_id: External | None = None
    product: Annotated[Label | None, Field(description="What it promotes.")] = None
    plan: Annotated[PlanBody, AfterValidator(_plan)] | None = None


class RecordAttendance(CommandBody):
    """How many came; the latest number counts."""

    attendees: Count


class BookCost(CommandBody):
    """What the campaign cost, in the currency of its budget."""

    amount: Amount
    reference: Annotated[
        Label | None,
        Field(description="The booking's own number; the Idempotency-Key where it is missing."),
    ] = None
