"""What goes into the log and what comes out of it: plain values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from eventsourcing.persistence import DatabaseError, OperationalError, StoredEvent, Tracking
from msgspec import Struct, field

NIL = UUID(int=0)


@dataclass(frozen=True)
class LedgerEvent(StoredEvent):
    """A stored event with the columns that the library does not know."""

    class_version: int = 1
    occurred_at: datetime | None = None
    """When it was true; the time of recording if it is not given."""


class Envelope(Struct, frozen=True):
    """Who asked, for what reason and caused by what: one for all events of a command.

    `traceparent` is the W3C trace context of the command, where it is traced.
    """

    actor: str
    command_id: UUID
    correlation_id: UUID
    causation_id: UUID | None = None
    reason: str | None = None
    traceparent: str | None = None


NO_ENVELOPE = Envelope(actor="", command_id=NIL, correlation_id=NIL)


class Receipt(Struct, frozen=True):
    """The answer to a command, kept under its idempotency key in the events' transaction.

    `position` is filled in by the log: the last event of the command or, where it added
    none, the end of the log at that moment.
    """

    scope: str
    key: str
    request_hash: bytes
    status: int
    id: UUID
    version: int
    extra: Mapping[str, Any] | None = None
    position: int = 0


class Append(Struct):
    """One command's events and receipt: recorded together or not at all."""

    events: list[StoredEvent]
    envelope: Envelope = NO_ENVELOPE
    partition_keys: Mapping[UUID | str, UUID | str] = field(default_factory=dict)
    receipt: Receipt | None = None
    tracking: Tracking | None = None

    def size(self) -> int:
        """Bytes of the bodies, roughly what the append adds to a statement."""
        size = 512 * len(self.events)
        for event in self.events:
            size += len(event.state)
        return size


class Appended(Struct, frozen=True):
    """Where a command went: `last` is its last event's position, `count` its number of events.

    Without events, `last` is the end of the log that the command saw.
    """

    last: int
    count: int

    def positions(self) -> list[int]:
        """The positions of the command's events, in order."""
        return list(range(self.last - self.count + 1, self.last + 1))


class AlreadyDone(DatabaseError):
    """The idempotency key has a receipt: the command was done before, and this try did nothing."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__(f"key already used for {receipt.id}")
        self.receipt = receipt


class OutcomeUnknown(OperationalError):
    """The connection was lost while the command was being committed.

    It may be recorded or not. A retry with the same idempotency key tells.
    """


class LogUnavailable(OperationalError):
    """The command is certainly not recorded: the log could not take it in time."""
