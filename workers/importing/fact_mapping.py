"""What the columns of a file of orders, or of responses, mean."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from domain.errors import DomainError
from domain.values import CustomerKind, checked_channel
from workers.importing.mapping import Amount, FileLayout, Part, Text


def _channel(value: str) -> str:
    try:
        return checked_channel(value)
    except DomainError as error:
        raise ValueError(error.message.removeprefix("channel ")) from None


Channel = Annotated[str, AfterValidator(_channel)]


class Customers(Part):
    """The customers that the file's lines are about."""

    source: Text | None = None
    """The system their ids are of, where it is not the mapping's."""
    missing: Literal["register", "refuse"] = "register"
    """What becomes of a line whose customer is not here."""
    kind: Literal["company", "person"] = "company"
    registered: Literal["first"] | date = "first"
    """When one that is registered came to be: at the first of its lines, or on a day. Nothing
    older than that can be recorded of it later on."""

    @property
    def customer_kind(self) -> CustomerKind:
        return CustomerKind(self.kind)


class OrderColumns(Part):
    customer: Text
    name: Text | None = None
    """Of the customer; one without is registered as still to be identified."""
    id: Text | None = None
    """Of the order. Without, an order is known by its day and amount."""
    placed: Text
    amount: Text
    currency: Text | None = None
    cost: Text | None = None


class OrderLayout(FileLayout):
    """A whole mapping of orders."""

    IMPORTS = "orders"

    imports: Literal["orders"]
    columns: OrderColumns
    amount: Amount = Field(default_factory=Amount)
    customers: Customers = Field(default_factory=Customers)

    def conflicts(self) -> Iterator[str]:
        """What contradicts itself, each naming its key."""
        yield from _unknown_fixes(self, self.columns)
        if self.amount.opening != "amount":
            yield "amount.opening: is of deals"


class ResponseColumns(Part):
    customer: Text
    name: Text | None = None
    campaign: Text
    campaign_name: Text | None = None
    channel: Text | None = None
    kind: Text | None = None
    at: Text


class Campaigns(Part):
    source: Text | None = None
    """The system their ids are of, where it is not the mapping's."""
    missing: Literal["plan", "refuse"] = "refuse"
    """What becomes of a line whose campaign is not here. A campaign that is planned runs from the
    day of the file's first response to it to that of the last; its budget is 0."""


class ResponseLayout(FileLayout):
    """A whole mapping of responses."""

    IMPORTS = "responses"

    imports: Literal["responses"]
    columns: ResponseColumns
    channel: Channel | None = None
    """Where the file gives none."""
    channels: dict[str, Channel] = Field(default_factory=dict)
    """The channel behind each word of its column; a word that is not here is one itself."""
    kind: Text | None = None
    """Where the file gives none."""
    customers: Customers = Field(default_factory=Customers)
    campaigns: Campaigns = Field(default_factory=Campaigns)

    def conflicts(self) -> Iterator[str]:
        """What contradicts itself, each naming its key."""
        yield from _unknown_fixes(self, self.columns)
        for key in ("channel", "kind"):
            if getattr(self.columns, key) is None and getattr(self, key) is None:
                yield f"columns.{key}: is missing, and so is {key} for all lines"
        if self.channels and self.columns.channel is None:
            yield "columns.channel: is missing, since channels are given"


def _unknown_fixes(layout: FileLayout, columns: Part) -> Iterator[str]:
    given = {column for _, column in columns if column is not None}
    for column in layout.fixes.keys() - given:
        yield f"fixes.{column}: no field is in that column"
