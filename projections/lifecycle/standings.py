"""Where customers stand: the fold of all four classifications, and of purchases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, TypeAlias
from uuid import UUID

import orjson

from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.values import LevelEvidence, Silence
from infra.eventstore.feed import Recorded
from projections.lifecycle.classifications import Classification
from projections.lifecycle.purchases import (
    NO_PURCHASE,
    PURCHASE,
    PURCHASES,
    ordered,
    purchase,
    signed,
)
from projections.projection import (
    FALSE,
    INFINITY,
    NULL,
    TRUE,
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
    text,
    turned,
)
from projections.reading import NEWEST

RULE = Column("rule", "text", "The rule that decided, with its version; null: somebody told it.")
EVIDENCE = Column(
    "evidence", "json", "What the rule rests on: its figures, and the event it was asked at."
)

_FACT = (
    Column("kind", "text NOT NULL", "Kind of event: the last part of its topic."),
    Column("deal_id", "uuid", "The deal that was opened or won."),
    Column("identified", "boolean", "Whether it is known from here on who the customer is."),
    Column("level", "text", "The level from here on."),
    Column("cause", "text", "Why the customer was lost; silence: passively."),
    RULE,
    EVIDENCE,
    Column("delivery_id", "text", "Id of the delivery; reference is that of its order or deal."),
    *PURCHASE,
)
_KIND, _DEAL, _IDENTIFIED, _LEVEL, _CAUSE, _RULE, _EVIDENCE, _DELIVERY, _PURCHASE = range(2, 11)

Extract = Callable[[Recorded], tuple[str, ...] | None]

Standing: TypeAlias = tuple[tuple[str, str], ...]
"""(value, cause) of each classification, in order."""

_N5, _N6 = (NULL,) * 5, (NULL,) * 6


def _registered(recorded: Recorded) -> tuple[str, ...]:
    identified = TRUE if recorded.event.identified else FALSE
    return ("registered", NULL, identified, *_N5, *NO_PURCHASE)


def _profile_changed(recorded: Recorded) -> tuple[str, ...] | None:
    identified: bool | None = recorded.event.identified
    if identified is None:
        return None
    told = TRUE if identified else FALSE
    return ("profile-changed", NULL, told, *_N5, *NO_PURCHASE)


def _level_changed(recorded: Recorded) -> tuple[str, ...]:
    event: Customer.LevelChanged = recorded.event
    rule, evidence = _level_evidence(event.evidence)
    level = event.level.value
    return ("level-changed", NULL, NULL, level, NULL, rule, evidence, NULL, *NO_PURCHASE)


def _level_evidence(evidence: LevelEvidence | None) -> tuple[str, str]:
    if evidence is None:
        return NULL, NULL
    return text(evidence.rule), _json({**evidence.figures, "event_id": str(evidence.event_id)})


def _churned(recorded: Recorded) -> tuple[str, ...]:
    event: Customer.Churned = recorded.event
    rule, evidence = _silence(event.silence)
    return ("churned", NULL, NULL, NULL, event.cause.value, rule, evidence, NULL, *NO_PURCHASE)


def _silence(silence: Silence | None) -> tuple[str, str]:
    if silence is None:
        return NULL, NULL
    evidence = {
        "since": silence.since.isoformat(),
        "days": str(silence.days),
        "event_id": str(silence.event_id),
    }
    return text(silence.rule), _json(evidence)


def _json(value: Mapping[str, str]) -> str:
    return text(orjson.dumps(value).decode())


def _ordered(recorded: Recorded) -> tuple[str, ...]:
    return ("order-placed", NULL, NULL, *_N5, *ordered(recorded))


def _delivered(recorded: Recorded) -> tuple[str, ...]:
    event: Customer.Delivered = recorded.event
    of = (text(event.order_id), *NO_PURCHASE[1:])
    return ("delivered", *_N6, text(event.delivery_id), *of)


def _opened(recorded: Recorded) -> tuple[str, ...]:
    deal = str(recorded.stream_id)
    return ("opened", deal, NULL, *_N5, *NO_PURCHASE)


def _signed(recorded: Recorded) -> tuple[str, ...]:
    deal = str(recorded.stream_id)
    return ("contract-signed", deal, NULL, *_N5, *signed(recorded))


def _bare(kind: str) -> Extract:
    columns = (kind, NULL, NULL, *_N5, *NO_PURCHASE)
    return lambda _: columns


class StandingFold(Fold):
    """Every classification has one value from the customer's first fact on.

    - type: prospect → responder (first response) → relationship (order or signed contract, also
      after a loss) → lost (churned; passively, where the cause is silence) → relationship (won
      back);
    - path: prospect → opportunity (first deal opened) → order → repeat (second order);
    - identification: to_be_identified until it is known who the customer is; from then on what
      the path says: prospect, sales_opportunity, order; user with the first delivery, also where
      no order was told before it;
    - level: none outside a relationship; new where one begins; then what was set.

    A signed contract counts as an order, once per deal: of several the first in time. Path and
    identification never go back. Every order and contract that counts is a purchase.
    """

    key = Column("customer_id", "uuid NOT NULL", "The customer.")
    facts = FactTable("standing_fact", "Events that may move a customer.", _FACT)
    periods = (
        PeriodTable(
            "standing_period",
            "Values of the classifications of customers, by when they were true and known.",
            (Column("classification", "text NOT NULL", "type, path, identification or level."),),
            (
                Column("value", "text NOT NULL", "The value."),
                Column(
                    "cause",
                    "text",
                    "Of lost: why; silence is a passive loss, all others are active.",
                ),
                RULE,
                EVIDENCE,
                Column("event", "bigint NOT NULL", "Position of the event that opened the period."),
            ),
            (
                (
                    "standing_period_open",  # the present: distributions
                    f"(classification, value) WHERE known_to = {NEWEST} AND valid_to = 'infinity'",
                ),
            ),
            Summary((Summed("classification", "text"), Summed("value", "text"))),
        ),
        PURCHASES,
    )
    start: ClassVar[State] = ((), (), FALSE, FALSE, 0, frozenset())
    extract: ClassVar[Mapping[str, Extract]] = {
        Customer.Created.TOPIC: _registered,
        Customer.ProfileChanged.TOPIC: _profile_changed,
        Customer.CampaignResponded.TOPIC: _bare("campaign-responded"),
        Customer.OrderPlaced.TOPIC: _ordered,
        Customer.Delivered.TOPIC: _delivered,
        Customer.LevelChanged.TOPIC: _level_changed,
        Customer.Churned.TOPIC: _churned,
        Customer.WonBack.TOPIC: _bare("won-back"),
        Opportunity.Created.TOPIC: _opened,
        Opportunity.ContractSigned.TOPIC: _signed,
    }

    def key_of(self, recorded: Recorded) -> UUID:
        """The customer: deals are kept with theirs."""
        return recorded.partition_key

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        """The state: (rows in the order of Classification, where the customer stands, identified,
        delivered to, orders counted up to two, the deals won)."""
        rows, before, identified, delivered, orders, won = state
        kind = fact[_KIND]
        if not rows:
            rows, before = _first(fact), _FIRST
        if fact[_IDENTIFIED] == TRUE:
            identified = TRUE
        if kind == "delivered":
            delivered = TRUE
        (customer_type, cause), (path, _), _, (level, _) = before
        bought = kind == "order-placed"
        if kind == "contract-signed" and fact[_DEAL] not in won:
            bought, won = True, won | {fact[_DEAL]}
        if bought:
            orders = min(orders + 1, 2)
            path = "order" if orders == 1 else "repeat"
        if kind == "opened" and path == "prospect":
            path = "opportunity"
        elif kind == "campaign-responded" and customer_type == "prospect":
            customer_type = "responder"
        elif (bought and customer_type != "relationship") or (
            kind == "won-back" and customer_type == "lost"
        ):
            customer_type, level, cause = "relationship", "new", NULL
        elif kind == "churned" and customer_type != "lost":  # who is lost is not lost again
            customer_type, level, cause = "lost", "none", fact[_CAUSE]
        elif kind == "level-changed" and customer_type == "relationship":
            level = fact[_LEVEL]
        identification = "user" if delivered == TRUE else _IDENTIFICATION[path]
        if identified == FALSE:
            identification = "to_be_identified"
        after = ((customer_type, cause), (path, NULL), (identification, NULL), (level, NULL))
        rows, settled = _moved(rows, before, after, fact)
        if bought:
            sort = "order" if kind == "order-placed" else "contract"
            settled += (purchase(1, sort, fact[_DEAL], fact[_PURCHASE:], fact),)
        return (rows, after, identified, delivered, orders, won), settled


_NAMES = tuple(name.value for name in Classification)
_FIRST: Standing = (
    ("prospect", NULL),
    ("prospect", NULL),
    ("to_be_identified", NULL),
    ("none", NULL),
)
_IDENTIFICATION = {
    "prospect": "prospect",
    "opportunity": "sales_opportunity",
    "order": "order",
    "repeat": "order",
}
_RULED = {("type", "churned"), ("level", "level-changed")}
"""Classifications, and the events whose rule is why a value of theirs was entered."""


def _first(fact: Fact) -> tuple[Row, ...]:
    return tuple(
        (0, name, fact[0], INFINITY, _values(name, standing, fact))
        for name, standing in zip(_NAMES, _FIRST, strict=True)
    )


def _values(name: str, standing: tuple[str, str], fact: Fact) -> str:
    ruled = (name, fact[_KIND]) in _RULED
    rule, evidence = (fact[_RULE], fact[_EVIDENCE]) if ruled else (NULL, NULL)
    return joined(*standing, rule, evidence, str(fact[1]))


def _moved(
    rows: tuple[Row, ...], before: Standing, after: Standing, fact: Fact
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The open rows from the fact on, and the settled ones; what stays is the same object."""
    if before == after:
        return rows, ()
    settled: tuple[Row, ...] = ()
    there = []
    for row, was, is_now in zip(rows, before, after, strict=True):
        if was == is_now:
            there.append(row)
        else:
            new, past = turned(row, fact[0], _values(row[1], is_now, fact))
            there.append(new)
            settled += past
    return tuple(there), settled
