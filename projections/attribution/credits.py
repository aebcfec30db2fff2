"""Touches of customers and the credits of won deals: tables and fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from domain.customer import Customer
from domain.definitions import AttributionDefinition
from domain.opportunity import Opportunity
from domain.values import minor_units
from infra.eventstore.feed import Recorded
from projections.attribution.grown import Deals, Touch, Touches
from projections.attribution.models import RULES, RuleModels
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
    Summary,
    Summed,
    joined,
    plain,
    text,
)

# ---- tables ----

_FACT = (
    Column(
        "kind",
        "text NOT NULL",
        "campaign-responded, and opened with a campaign: touches; opened, contract-signed, lost:"
        " of deals; order-placed, churned: what ends being a prospect.",
    ),
    Column("campaign_id", "uuid", "The campaign of a touch."),
    Column("deal_id", "uuid", "The deal that was opened, won or lost."),
    Column("channel", "text", "Channel of a response."),
    Column("response", "text", "Kind of a response."),
    Column("amount", "numeric", "Amount of the contract."),
    Column("currency", "text", "Currency of the amount."),
    Column("signed_on", "date", "Day the contract was signed."),
)
KIND, CAMPAIGN, DEAL, CHANNEL, RESPONSE, AMOUNT, CURRENCY, SIGNED_ON = range(2, 10)

CREDIT = (
    Column("campaign_id", "uuid", "The campaign; null: unattributed."),
    Column("touched_at", "timestamptz", "When the touch happened; null: unattributed."),
    Column("place", "int NOT NULL", "1 for the first touch that counts, ...; 0: unattributed."),
    Column(
        "anchors",
        "text NOT NULL",
        "What the touch is to the deal, in this order: first lead opportunity close.",
    ),
    Column("currency", "text NOT NULL", "Currency of the credits."),
    Column("won_on", "date NOT NULL", "Day the contract was signed."),
    *(
        Column(model.value, "numeric NOT NULL", f"Share of the contract's amount, model {model}.")
        for model in RULES
    ),
)

CREDITS = Summary(
    (
        Summed("campaign_id", "uuid"),
        Summed("currency", "text"),
        Summed("won_month", "date", "date_trunc('month', won_on::timestamp)::date"),
    ),
    (
        Summed("deals", "bigint", "(place <= 1)::int"),
        *(Summed(model.value, "numeric") for model in RULES),
    ),
)
"""Credits by the month in which the contract was signed. Each deal has one row with place ≤ 1."""

# ---- fold ----

Extract = Callable[[Recorded], tuple[str, ...] | None]


def _responded(event: Recorded) -> tuple[str, ...]:
    e: Customer.CampaignResponded = event.event
    return (
        "campaign-responded", str(e.campaign_id), NULL, text(e.channel), text(e.kind),
        NULL, NULL, NULL,
    )  # fmt: skip


def _opened(event: Recorded) -> tuple[str, ...]:
    return ("opened", plain(event.event.campaign_id), str(event.stream_id), *(NULL,) * 5)


def _signed(event: Recorded) -> tuple[str, ...]:
    e: Opportunity.ContractSigned = event.event
    return (
        "contract-signed", NULL, str(event.stream_id), NULL, NULL, str(e.amount.value),
        e.amount.currency, plain(e.signed_on),
    )  # fmt: skip


def _lost(event: Recorded) -> tuple[str, ...]:
    return ("lost", NULL, str(event.stream_id), *(NULL,) * 5)


def _bare(kind: str) -> Extract:
    columns = (kind, *(NULL,) * 7)
    return lambda _: columns


class _Win(NamedTuple):
    occurred_at: str
    deal_id: str
    amount: str
    currency: str
    signed_on: str
    opened_at: str
    """Empty, where the opening is not known."""


_NOT_YET, _NEVER = 0, -1
"""Where the lead would be: the customer is a prospect yet; the lead is none of the touches."""


class CreditFold(Fold):
    """Each won deal's amount goes to its customer's touches in (close − look-back, close], under
    each rule model; without a touch it is unattributed, as touch 0. The credits of a deal sum to
    the contract's amount to the minor unit under every model. They are true from the close on.

    Anchors of a deal, among these touches: the *first*; the *lead*, the response that made a
    prospect a responder; the *opportunity*, the last at or before the deal's opening; the *close*,
    the last. Touches at one instant go by position.
    """

    key = Column("customer_id", "uuid NOT NULL", "The customer.")
    facts = FactTable(
        "touch_fact", "Touches of customers, and what their credits depend on.", _FACT
    )
    periods = (
        PeriodTable(
            "credit_period",
            "Credits of won deals to touches, by when they were true and known.",
            (
                Column("deal_id", "uuid NOT NULL", "The won deal."),
                Column("touch", "bigint NOT NULL", "Position of the touch; 0: unattributed."),
            ),
            CREDIT,
            # months of contracts that are asked for in part
            (("credit_period_won", "(won_on)"),),
            CREDITS,
        ),
    )
    start: ClassVar[State] = ((), _NOT_YET, (), (), (0, 0), Touches(), Deals())
    extract: ClassVar[Mapping[str, Extract]] = {
        Customer.CampaignResponded.TOPIC: _responded,
        Customer.OrderPlaced.TOPIC: _bare("order-placed"),
        Customer.Churned.TOPIC: _bare("churned"),
        Opportunity.Created.TOPIC: _opened,
        Opportunity.ContractSigned.TOPIC: _signed,
        Opportunity.Lost.TOPIC: _lost,
    }

    def __init__(self, definition: AttributionDefinition | None = None) -> None:
        definition = definition or AttributionDefinition()
        self._look_back = timedelta(days=definition.look_back_days)
        self._models = RuleModels(definition)

    def key_of(self, recorded: Recorded) -> UUID:
        """The customer: deals are kept with theirs."""
        return recorded.partition_key

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        """The state: (credits of the wins at this instant, which a touch at the same instant still
        changes), the position of the lead, the wins at this instant, the openings of deals that
        have not ended, the numbers of the last two, by which most states that differ are soon
        told apart: the touches within the look-back, all deals won."""
        credits, lead, wins, openings, _, touches, won = state
        occurred_at, position, kind = fact[0], fact[1], fact[KIND]
        settled: tuple[Row, ...] = ()
        if wins and wins[0].occurred_at != occurred_at:
            credits, wins, settled = (), (), credits
        at = datetime.fromisoformat(occurred_at)
        gone = touches.oldest_until(at - self._look_back)
        if gone:
            # Out of sight it counts no more: the states of before and after a late fact meet again.
            if lead > 0 and any(touch.position == lead for touch in touches.first(gone)):
                lead = _NEVER
            touches = touches.without_first(gone)
        new_wins: tuple[_Win, ...] = ()
        if kind == "opened":
            openings = (*openings, (fact[DEAL], occurred_at))
        elif kind == "lost":
            openings = _without(openings, fact[DEAL])
        elif kind == "contract-signed":
            if fact[DEAL] not in won:
                won = won.plus(fact[DEAL])
                new_wins = (_win(fact, openings),)
                wins = (*wins, *new_wins)
                openings = _without(openings, fact[DEAL])
                lead = lead or _NEVER
        elif kind == "campaign-responded":
            lead = lead or position
        else:
            lead = lead or _NEVER
        if fact[CAMPAIGN] != NULL:
            touches = touches.plus(Touch(at, occurred_at, position, fact[CAMPAIGN]))
            credits, new_wins = (), wins
        if new_wins:
            seen = tuple(touches)
            rows = (row for win in new_wins for row in self._credits(win, seen, lead))
            credits = (*credits, *rows)
        return (credits, lead, wins, openings, (len(touches), len(won)), touches, won), settled

    def _credits(self, win: _Win, touches: tuple[Touch, ...], lead: int) -> list[Row]:
        if not touches:
            values = joined(
                NULL, NULL, "0", "", win.currency, win.signed_on, *(win.amount,) * len(RULES)
            )
            return [(0, joined(win.deal_id, "0"), win.occurred_at, INFINITY, values)]
        lead_place = opportunity = None
        for place, touch in enumerate(touches):
            if touch.position == lead:
                lead_place = place
            if touch.occurred_at <= win.opened_at:
                opportunity = place
        decimals = minor_units(win.currency)
        units = int(Decimal(win.amount).scaleb(decimals))
        by_model = self._models.credits(
            units, [touch.at for touch in touches], lead_place, opportunity
        )
        anchors = {"first": 0, "lead": lead_place, "opportunity": opportunity}
        anchors["close"] = len(touches) - 1
        rows = []
        for place, touch in enumerate(touches):
            values = joined(
                touch.campaign_id,
                touch.occurred_at,
                str(place + 1),
                " ".join(name for name, of in anchors.items() if of == place),
                win.currency,
                win.signed_on,
                *(str(Decimal(parts[place]).scaleb(-decimals)) for parts in by_model),
            )
            item = joined(win.deal_id, str(touch.position))
            rows.append((0, item, win.occurred_at, INFINITY, values))
        return rows


def _win(fact: Fact, openings: tuple[tuple[str, str], ...]) -> _Win:
    deal = fact[DEAL]
    opened_at = next((at for opened, at in openings if opened == deal), "")
    return _Win(fact[0], deal, fact[AMOUNT], fact[CURRENCY], fact[SIGNED_ON], opened_at)


def _without(openings: tuple[Any, ...], deal: str) -> tuple[Any, ...]:
    return tuple(opening for opening in openings if opening[0] != deal)
