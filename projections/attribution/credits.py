"""Touches of customers and the credits of won deals: tables and fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar, NamedTuple
from uuid import UUID

from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.values import Money
from infra.eventstore.feed import Recorded
from projections.projection import (
    INFINITY,
    NULL,
    Column,
    Fact,
    FactTable,
    Fold,
    PeriodTable,
    Row,
    State,
    joined,
    plain,
    text,
)

LOOK_BACK = timedelta(days=90)
"""Touches count that happened in (close − 90 days, close]."""


class Model(StrEnum):
    """How a won deal's amount goes to its touches."""

    FIRST = "first"
    LAST = "last"
    LINEAR = "linear"


# ---- tables ----

_FACT = (
    Column(
        "kind",
        "text NOT NULL",
        "campaign-responded and opened (touches), contract-signed (the win of a deal).",
    ),
    Column("campaign_id", "uuid", "The campaign of a touch."),
    Column("deal_id", "uuid", "The deal that was opened or won."),
    Column("channel", "text", "Channel of a response."),
    Column("response", "text", "Kind of a response."),
    Column("amount", "numeric", "Amount of the contract."),
    Column("currency", "text", "Currency of the amount."),
    Column("signed_on", "date", "Day the contract was signed."),
)
KIND, CAMPAIGN, DEAL, CHANNEL, RESPONSE, AMOUNT, CURRENCY, SIGNED_ON = range(2, 10)

_CREDIT = (
    Column("campaign_id", "uuid", "The campaign; null: unattributed."),
    Column("credit", "numeric NOT NULL", "Share of the contract's amount."),
    Column("currency", "text NOT NULL", "Currency of the credit."),
    Column("won_on", "date NOT NULL", "Day the contract was signed."),
    Column("touched_at", "timestamptz", "When the touch happened; null: unattributed."),
)

# ---- fold ----

Extract = Callable[[Recorded], tuple[str, ...] | None]


def _responded(event: Recorded) -> tuple[str, ...]:
    e: Customer.CampaignResponded = event.event
    return (
        "campaign-responded", str(e.campaign_id), NULL, text(e.channel), text(e.kind),
        NULL, NULL, NULL,
    )  # fmt: skip


def _opened(event: Recorded) -> tuple[str, ...] | None:
    campaign_id: UUID | None = event.event.campaign_id
    if campaign_id is None:
        return None
    return (
        "opened", str(campaign_id), str(event.stream_id), NULL, NULL, NULL, NULL, NULL,
    )  # fmt: skip


def _signed(event: Recorded) -> tuple[str, ...]:
    e: Opportunity.ContractSigned = event.event
    return (
        "contract-signed", NULL, str(event.stream_id), NULL, NULL, str(e.amount.value),
        e.amount.currency, plain(e.signed_on),
    )  # fmt: skip


class _Touch(NamedTuple):
    at: datetime
    occurred_at: str
    position: int
    campaign_id: str


class _Win(NamedTuple):
    occurred_at: str
    deal_id: str
    amount: str
    currency: str
    signed_on: str


class CreditFold(Fold):
    """Each won deal's amount goes to its customer's touches in the look-back, under each model;
    without a touch it is unattributed, under touch 0. The credits of a deal and model sum to the
    contract's amount to the minor unit. They are true from the close on."""

    key = Column("customer_id", "uuid NOT NULL", "The customer.")
    facts = FactTable("touch_fact", "Touches of customers, and their won deals.", _FACT)
    periods = (
        PeriodTable(
            "credit_period",
            "Credits of won deals to touches, by when they were true and known.",
            (
                Column("deal_id", "uuid NOT NULL", "The won deal."),
                Column("model", "text NOT NULL", "first, last or linear."),
                Column("touch", "bigint NOT NULL", "Position of the touch; 0: unattributed."),
            ),
            _CREDIT,
        ),
    )
    start: ClassVar[State] = ((), (), (), frozenset())
    extract: ClassVar[Mapping[str, Extract]] = {
        Customer.CampaignResponded.TOPIC: _responded,
        Opportunity.Created.TOPIC: _opened,
        Opportunity.ContractSigned.TOPIC: _signed,
    }

    def key_of(self, recorded: Recorded) -> UUID:
        """The customer: deals are kept with theirs."""
        return recorded.partition_key

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        """The state: (credits of the wins at this instant, which a touch at the same instant still
        changes), the touches within the look-back, the wins at this instant, all deals won."""
        credits, touches, wins, won = state
        occurred_at = fact[0]
        settled: tuple[Row, ...] = ()
        if wins and wins[0].occurred_at != occurred_at:
            credits, wins, settled = (), (), credits
        at = datetime.fromisoformat(occurred_at)
        if touches and touches[0].at <= at - LOOK_BACK:
            touches = tuple(touch for touch in touches if touch.at > at - LOOK_BACK)
        if fact[KIND] != "contract-signed":
            touches = (*touches, _Touch(at, occurred_at, fact[1], fact[CAMPAIGN]))
        elif fact[DEAL] not in won:
            won |= {fact[DEAL]}
            win = _Win(occurred_at, fact[DEAL], fact[AMOUNT], fact[CURRENCY], fact[SIGNED_ON])
            wins = (*wins, win)
        if wins:
            credits = tuple(row for win in wins for row in _credits(win, touches))
        return (credits, touches, wins, won), settled


def _credits(win: _Win, touches: tuple[_Touch, ...]) -> list[Row]:
    amount = Money(Decimal(win.amount), win.currency)
    if not touches:
        return [_credit(win, model, None, win.amount) for model in Model]
    parts = amount.split([1] * len(touches))
    return [
        _credit(win, Model.FIRST, touches[0], win.amount),
        _credit(win, Model.LAST, touches[-1], win.amount),
        *(
            _credit(win, Model.LINEAR, touch, str(part.value))
            for touch, part in zip(touches, parts, strict=True)
        ),
    ]


def _credit(win: _Win, model: Model, touch: _Touch | None, credit: str) -> Row:
    if touch is None:
        item = joined(win.deal_id, model.value, "0")
        values = joined(NULL, credit, win.currency, win.signed_on, NULL)
    else:
        item = joined(win.deal_id, model.value, str(touch.position))
        values = joined(touch.campaign_id, credit, win.currency, win.signed_on, touch.occurred_at)
    return (0, item, win.occurred_at, INFINITY, values)
