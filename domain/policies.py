"""Policies (process managers): events in, commands out, and timers for what time itself brings.

Pure: no clock and nothing read or written. A policy takes in the events of its topics one after the
other, in the order of the log; what it remembers of a key in between is at most one timer. So the
timers are a fold of the log: any reader that goes through the same events comes to the same ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeAlias
from uuid import UUID

from domain.aggregate import LedgerAggregate
from domain.application import CRM
from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.values import Silence


@dataclass(frozen=True, slots=True)
class Cause:
    """The event that a timer or a command rests on."""

    event_id: UUID
    position: int
    stream_id: UUID
    correlation_id: UUID


@dataclass(frozen=True, slots=True)
class Happened:
    """An event as the log has it. `key` is its partition key: the customer it belongs to."""

    cause: Cause
    key: UUID
    occurred_at: datetime
    event: LedgerAggregate.Event


@dataclass(frozen=True, slots=True)
class Timer:
    """Fires when `due_at` has come, unless it is moved or cancelled before. One for each key."""

    key: UUID
    due_at: datetime
    cause: Cause


@dataclass(frozen=True, slots=True)
class Cancel:
    """Of the timer of this key, if there is one."""

    key: UUID


@dataclass(frozen=True, slots=True)
class Command:
    """A method of the application, to be called with `target` and `arguments`.

    It decides on the present state, which may have moved on: it must do nothing that has become
    wrong since, and nothing twice.
    """

    method: Callable[..., Any]
    target: UUID
    arguments: Mapping[str, Any] = field(default_factory=dict)


Decision: TypeAlias = Command | Timer | Cancel
"""A `Timer` sets or moves the one of its key."""


class Policy(ABC):
    """One rule about what is to be done when something has happened, or has not for a while."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised when the rule changes: the log is then read again from its beginning."""
    topics: ClassVar[tuple[str, ...]]
    """The kinds of events that `react` wants."""

    @property
    def id(self) -> str:
        """Name and version; another configuration is another id."""
        return f"{self.name}/{self.version}"

    @abstractmethod
    def react(self, happened: Happened, timer: Timer | None) -> Sequence[Decision]:
        """What follows from the event, where `timer` is the one of its key."""

    @abstractmethod
    def due(self, timer: Timer) -> Command:
        """What follows from nothing having moved or cancelled the timer."""


class PassiveLoss(Policy):
    """A customer in a relationship who has bought nothing for `days` days is lost (R65).

    Orders, contracts and win-backs keep a relationship; one that is recorded late counts from when
    it took place, so it never shortens the time that is left.
    """

    name = "silence"
    version = 1
    topics = (
        Customer.OrderPlaced.TOPIC,
        Customer.RelationshipStarted.TOPIC,
        Customer.WonBack.TOPIC,
        Customer.Churned.TOPIC,
        Opportunity.ContractSigned.TOPIC,
    )

    def __init__(self, days: int) -> None:
        self.days = days
        self._patience = timedelta(days=days)

    @property
    def id(self) -> str:
        return f"{super().id}:{self.days}"

    def react(self, happened: Happened, timer: Timer | None) -> Sequence[Decision]:
        if isinstance(happened.event, Customer.Churned):
            return self._lost(happened, timer)
        due_at = happened.occurred_at + self._patience
        if timer is not None and timer.due_at > due_at:
            return ()
        return (Timer(happened.key, due_at, happened.cause),)

    def _lost(self, happened: Happened, timer: Timer | None) -> Sequence[Decision]:
        if timer is None:
            return ()
        since = self._since(timer)
        if since <= happened.occurred_at:
            return (Cancel(timer.key),)
        if timer.cause.stream_id == timer.key:
            return ()
        # A contract that is later than the loss keeps the relationship, and the customer's own
        # stream does not know of it: it was signed while the loss was being recorded, or before.
        resume = Command(
            CRM.start_relationship,
            timer.key,
            {"opportunity_id": timer.cause.stream_id, "occurred_at": since},
        )
        return (resume,)

    def due(self, timer: Timer) -> Command:
        silence = Silence(
            rule=self.id,
            since=self._since(timer),
            days=self.days,
            event_id=timer.cause.event_id,
        )
        arguments = {"silence": silence, "occurred_at": timer.due_at}
        return Command(CRM.churn_silent, timer.key, arguments)

    def _since(self, timer: Timer) -> datetime:
        return timer.due_at - self._patience
