"""Demand: who is likely to need something again, by the buying cycle or the stock (R69, R76)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any
from uuid import UUID

from domain.application import CRM
from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.policies.account import DAY, instant, moment
from domain.policies.policy import Cause, Command, Happened, Judgement, Timer
from domain.values import AlertKind, RepeatType


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was so at an instant, in microseconds since 1970."""

    at: int
    cause: Cause

    @classmethod
    def of(cls, plain: list[Any]) -> Fact:
        at, *cause = plain
        return cls(at, Cause.of(cause))

    def plain(self) -> list[Any]:
        return [self.at, *self.cause.plain()]


@dataclass(slots=True)
class Needs:
    """What the policy remembers of a customer."""

    purchase: Fact | None = None
    """The latest, by order or contract."""
    described: Fact | None = None
    cycle: int | None = None
    """In days; None: not known, or none to be expected."""
    alert_below: Decimal | None = None
    reported: Fact | None = None
    """The latest report of the stock."""
    stock: Decimal | None = None
    low: Fact | None = None
    """Since when the stock has been too low, without having been enough in between."""
    alerted_cycle: str | None = None
    """The last purchase whose cycle was alerted."""
    alerted_stock: int | None = None
    """When the last alert of the stock was due."""
    decided_on: int | None = None
    """The latest that decides on whether the customer is lost, as the customer's stream has it."""
    lost: bool = False


@dataclass(frozen=True, slots=True)
class _Alert:
    kind: AlertKind
    due_at: int
    """When the need is to be expected."""
    at: int
    """From when on that is known."""
    cause: Cause


class Demand(Judgement[Needs]):
    """Alerts once when a buying cycle has gone by since the last purchase, and once each time that
    the stock falls below what the customer wants to be warned at.

    A later purchase moves the cycle's day, and is an answer to a stock that was low before it.
    There is no cycle for customers of projects, and no alert for one who is lost.
    """

    name = "demand"
    version = 1
    topics = (
        Customer.OrderPlaced.TOPIC,
        Customer.RelationshipStarted.TOPIC,
        Customer.WonBack.TOPIC,
        Customer.Churned.TOPIC,
        Customer.DemandDescribed.TOPIC,
        Customer.StockReported.TOPIC,
        Customer.DemandAlerted.TOPIC,
        Opportunity.ContractSigned.TOPIC,
    )

    def load(self, plain: Mapping[str, Any] | None) -> Needs:
        if plain is None:
            return Needs()
        read = dict(plain)
        for name in ("purchase", "described", "reported", "low"):
            read[name] = None if read[name] is None else Fact.of(read[name])
        for name in ("alert_below", "stock"):
            read[name] = None if read[name] is None else Decimal(read[name])
        return Needs(**read)

    def dump(self, state: Needs) -> dict[str, Any]:
        return {each.name: _plain(getattr(state, each.name)) for each in fields(state)}

    def fold(self, state: Needs, happened: Happened) -> None:
        fact = Fact(instant(happened.occurred_at), happened.cause)
        match happened.event:
            case Customer.OrderPlaced():
                self._purchase(state, fact)
                self._decide(state, fact, lost=False)
            case Opportunity.ContractSigned():
                self._purchase(state, fact)
            case Customer.RelationshipStarted():
                # By a contract, which is the cause if it is of the same instant; dated later
                # where the contract is older than the customer's own stream.
                if state.purchase is None or fact.at > state.purchase.at:
                    state.purchase = fact
                self._decide(state, fact, lost=False)
            case Customer.WonBack():
                self._decide(state, fact, lost=False)
            case Customer.Churned():
                self._decide(state, fact, lost=True)
            case Customer.DemandDescribed() as described:
                self._describe(state, fact, described)
            case Customer.StockReported(level=level):
                if _is_latest(fact, state.reported):
                    state.reported, state.stock = fact, level
                    self._measure(state, fact)
            case Customer.DemandAlerted(kind=AlertKind.CYCLE, event_id=event_id):
                state.alerted_cycle = str(event_id)
            case Customer.DemandAlerted(due_at=due_at):
                state.alerted_stock = max(state.alerted_stock or 0, instant(due_at))

    def plan(self, key: UUID, state: Needs) -> Timer | None:
        alert = self._pending(state)
        return None if alert is None else Timer(key, moment(alert.at), alert.cause)

    def due(self, timer: Timer, state: Needs) -> Command:
        alert = self._pending(state)
        if alert is None:
            raise ValueError("the timer does not follow from the state")
        arguments = {
            "kind": alert.kind,
            "rule": self.id,
            "due_at": moment(alert.due_at),
            "event_id": alert.cause.event_id,
            "occurred_at": timer.due_at,
        }
        return Command(CRM.alert_demand, timer.key, arguments)

    def _purchase(self, state: Needs, fact: Fact) -> None:
        if _is_latest(fact, state.purchase):
            state.purchase = fact

    def _decide(self, state: Needs, fact: Fact, *, lost: bool) -> None:
        if state.decided_on is None or fact.at >= state.decided_on:
            state.decided_on, state.lost = fact.at, lost

    def _describe(self, state: Needs, fact: Fact, described: Customer.DemandDescribed) -> None:
        if not _is_latest(fact, state.described):
            return
        one_off = described.repeat_type is RepeatType.PROJECT
        state.described = fact
        state.cycle = None if one_off else described.cycle_days
        state.alert_below = described.stock_alert_below
        self._measure(state, fact)

    def _measure(self, state: Needs, fact: Fact) -> None:
        stock, limit = state.stock, state.alert_below
        if stock is None or limit is None or stock >= limit:
            state.low = None
        elif state.low is None:
            state.low = fact

    def _cycle(self, state: Needs) -> _Alert | None:
        bought, described = state.purchase, state.described
        if bought is None or described is None or state.cycle is None:
            return None
        if state.alerted_cycle == str(bought.cause.event_id):
            return None
        due_at = bought.at + state.cycle * DAY
        return _Alert(AlertKind.CYCLE, due_at, self._from(state, due_at, described), bought.cause)

    def _stock(self, state: Needs) -> _Alert | None:
        if state.low is None or state.reported is None:
            return None
        if state.alerted_stock is not None and state.alerted_stock >= state.low.at:
            return None
        latest = max(state.low, state.reported, key=lambda fact: fact.at)
        if state.purchase is not None and state.purchase.at > latest.at:
            return None
        return _Alert(AlertKind.STOCK, latest.at, self._from(state, latest.at), latest.cause)

    def _from(self, state: Needs, due_at: int, *others: Fact) -> int:
        """An alert is not dated before what makes it one."""
        return max(due_at, state.decided_on or due_at, *(fact.at for fact in others))

    def _pending(self, state: Needs) -> _Alert | None:
        """The alert that is due first."""
        alerts = [] if state.lost else [self._cycle(state), self._stock(state)]
        return min((each for each in alerts if each), key=lambda each: each.at, default=None)


def _is_latest(fact: Fact, known: Fact | None) -> bool:
    return known is None or fact.at >= known.at


def _plain(value: object) -> Any:
    if isinstance(value, Fact):
        return value.plain()
    return str(value) if isinstance(value, Decimal) else value
