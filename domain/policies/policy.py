"""What policies are told and what they decide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar
from uuid import UUID

from domain.aggregate import LedgerAggregate


@dataclass(frozen=True, slots=True)
class Cause:
    """The event that a timer or a command rests on."""

    event_id: UUID
    position: int
    stream_id: UUID
    correlation_id: UUID

    def plain(self) -> list[Any]:
        """As JSON has it."""
        return [
            str(self.event_id),
            self.position,
            str(self.stream_id),
            str(self.correlation_id),
        ]

    @classmethod
    def of(cls, plain: Sequence[Any]) -> Cause:
        event_id, position, stream_id, correlation_id = plain
        return cls(UUID(event_id), position, UUID(stream_id), UUID(correlation_id))


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
    """The kinds of events that it wants."""

    @property
    def id(self) -> str:
        """Name and version; another configuration is another id."""
        return f"{self.name}/{self.version}"


class Reaction(Policy):
    """Remembers nothing but the timer."""

    @abstractmethod
    def react(self, happened: Happened, timer: Timer | None) -> Sequence[Decision]:
        """What follows from the event, where `timer` is the one of its key."""

    @abstractmethod
    def due(self, timer: Timer) -> Command:
        """What follows from nothing having moved or cancelled the timer."""


State = TypeVar("State")


class Judgement(Policy, Generic[State]):
    """Remembers a state of each key, and the timer follows from it alone.

    What has to be done at once is due at an instant of the past. So nothing is decided before the
    log has been taken in to its end, and what is found out late counts.
    """

    @abstractmethod
    def load(self, plain: Mapping[str, Any] | None) -> State:
        """The state as `dump` gave it; of a key that nothing is known of where there is none."""

    @abstractmethod
    def dump(self, state: State) -> dict[str, Any]:
        """The state as JSON has it, without fractions of numbers."""

    @abstractmethod
    def fold(self, state: State, happened: Happened) -> None:
        """Takes the event into the state."""

    @abstractmethod
    def plan(self, key: UUID, state: State) -> Timer | None:
        """What is to be done next, if nothing else happens: perhaps long ago."""

    @abstractmethod
    def due(self, timer: Timer, state: State) -> Command:
        """What to do, now that the time has come. What comes of it is an event, after which there
        is a new plan."""
