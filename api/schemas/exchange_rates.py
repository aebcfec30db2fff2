"""Bodies of the commands on exchange rates."""

from typing import Annotated

from pydantic import Field

from api.schemas.fields import CommandBody, Currency, Day, Rate
from domain.exchange_rate import pair_name
from domain.values import ExternalId


class RecordRate(CommandBody):
    """What one unit of `from` is worth in `to`, from the day `on` until there is a later rate.

    Another rate for the same day corrects it.
    """

    from_currency: Annotated[Currency, Field(alias="from")]
    to_currency: Annotated[Currency, Field(alias="to")]
    rate: Rate
    on: Annotated[Day, Field(description="Not after today.")]

    @property
    def external_id(self) -> ExternalId:
        """Of the pair's stream."""
        return pair_name(self.from_currency, self.to_currency)
