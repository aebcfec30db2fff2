"""Bodies of the commands on opportunities (deals)."""

from typing import Annotated, Any

from pydantic import Field

from api.schemas.fields import (
    Amount,
    Chance,
    CommandBody,
    Day,
    External,
    Id,
    Label,
    Name,
    Prose,
)

Owner = Annotated[Label, Field(description="Id of a person in our own house; never a name.")]


class OpenOpportunity(CommandBody):
    """A deal with a customer, in a stage of a pipeline."""

    customer_id: Id
    name: Name
    amount: Amount
    expected_close: Day | None = None
    owner: Owner | None = None
    pipeline_id: Annotated[Id | None, Field(description="The default pipeline if missing.")] = None
    stage: Annotated[Label | None, Field(description="The first stage if missing.")] = None
    campaign_id: Annotated[
        Id | None, Field(description="The campaign it came from; counts as a touch.")
    ] = None
    referred_by: Label | None = None
    external_id: External | None = None


class ChangeStage(CommandBody):
    """To another stage of the pipeline, forward or back."""

    stage: Label


class ChangeAmount(CommandBody):
    """The expected amount, in the deal's currency."""

    amount: Amount


class ChangeExpectedClose(CommandBody):
    """The day the deal is expected to close; null for none."""

    expected_close: Day | None

    def arguments(self) -> dict[str, Any]:
        return {"expected_close": None, **super().arguments()}


class Transfer(CommandBody):
    """To another owner."""

    owner: Owner


class SignContract(CommandBody):
    """The deal is won on `signed_on`, at `amount`."""

    amount: Amount
    signed_on: Day
    cost: Annotated[Amount | None, Field(description="Ours, in the deal's currency.")] = None


class Lose(CommandBody):
    """The deal is lost, and to whom: `none` where to nobody, `unknown` where that is unknown.

    A loss without a competitor is refused.
    """

    cause: Label
    competitor: Label | None = None

    def arguments(self) -> dict[str, Any]:
        return {"competitor": None, **super().arguments()}


class Review(CommandBody):
    """What was learnt. The summary is kept as personal data of the customer or contact."""

    summary: Prose
    competitor: Label | None = None


class EstimateChance(CommandBody):
    """Our own estimate of the chance to win, whatever the stage says."""

    chance: Chance


class RecordActivity(CommandBody):
    """Something was done for the deal, and what came of it."""

    kind: Label
    result: Label


class BookExpense(CommandBody):
    """Money spent on the deal."""

    purpose: Label
    amount: Amount
