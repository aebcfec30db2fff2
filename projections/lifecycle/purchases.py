"""What customers bought: orders, and the contracts of won deals, each once."""

from __future__ import annotations

from domain.customer import Customer
from domain.opportunity import Opportunity
from infra.eventstore.feed import Recorded
from projections.projection import (
    INFINITY,
    NULL,
    Column,
    Fact,
    PeriodTable,
    Row,
    joined,
    plain,
    text,
)

KIND = Column("kind", "text NOT NULL", "order or contract.")
DEAL = Column("deal_id", "uuid", "The deal that was won by the contract.")
PURCHASE = (
    Column("reference", "text", "Id of the order; of a contract that of its deal."),
    Column("amount", "numeric", "What the customer pays."),
    Column("cost", "numeric", "What it costs us, in the same currency; null: not known."),
    Column("currency", "text", "Currency of amount and cost."),
    Column("signed_on", "date", "Day a contract was signed; an order is of the day it was placed."),
)
NO_PURCHASE = (NULL,) * len(PURCHASE)

PURCHASES = PeriodTable(
    "purchase_period",
    "Purchases of customers: orders, and one contract per deal; true for ever.",
    (Column("position", "bigint NOT NULL", "Position of the event in the log."),),
    (KIND, DEAL, *PURCHASE),
)

DAY = "coalesce({0}.signed_on, ({0}.valid_from AT TIME ZONE %(zone)s)::date)"
"""The day of a row of purchase_period; {0} is its alias."""


def ordered(recorded: Recorded) -> tuple[str, ...]:
    """The columns of `PURCHASE` of an order."""
    event: Customer.OrderPlaced = recorded.event
    cost = None if event.cost is None else event.cost.value
    amount = event.amount
    return (text(event.order_id), plain(amount.value), plain(cost), amount.currency, NULL)


def signed(recorded: Recorded) -> tuple[str, ...]:
    """The columns of `PURCHASE` of a contract."""
    event: Opportunity.ContractSigned = recorded.event
    cost = None if event.cost is None else event.cost.value
    money = (plain(event.amount.value), plain(cost), event.amount.currency)
    return (str(recorded.stream_id), *money, plain(event.signed_on))


def purchase(table: int, kind: str, deal: str, columns: tuple[str, ...], fact: Fact) -> Row:
    """The row of `PURCHASES`, which is the fold's period table of this number."""
    return (table, str(fact[1]), fact[0], INFINITY, joined(kind, deal, *columns))
