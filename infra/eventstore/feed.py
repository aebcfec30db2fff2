"""The store feed: the log, read in order of position, for projections on the same database."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from infra.eventstore.doorbell import Doorbell
from infra.eventstore.transcoder import decode_event
from infra.postgres import Pool


@dataclass(slots=True)
class Recorded:
    """An event as the log holds it. Personal fields of `event` are unopened: only their token."""

    position: int
    stream_id: UUID
    version: int
    topic: str
    partition_key: UUID
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    command_id: UUID
    correlation_id: UUID
    causation_id: UUID | None
    reason: str | None
    event: Any


@dataclass(slots=True)
class Undecodable:
    """Stands for an event whose body does not fit its class, so that the rest can be read."""

    class_version: int
    state: bytes
    error: str


@dataclass(slots=True)
class Batch:
    """Events in order of position, and how far they reach: all wanted ones up to `through`."""

    events: list[Recorded]
    through: int


_COLUMNS = """position, stream_id, version, topic, partition_key, occurred_at, recorded_at,
    actor, command_id, correlation_id, causation_id, reason, class_version, state"""


def partition_of(partition_key: UUID, partitions: int) -> int:
    """The partition of a key: CRC-32 of its 16 bytes, modulo the number of partitions."""
    return zlib.crc32(partition_key.bytes) % partitions


def recorded(row: Sequence[Any]) -> Recorded:
    """The event in a row of `_COLUMNS`; `Undecodable` where its body does not fit its class."""
    event: Any
    try:
        event = decode_event(row[3], row[1], row[2], row[12], row[5], row[13])
    except Exception as error:  # noqa: BLE001  (a reader decides what one bad event holds up)
        event = Undecodable(row[12], bytes(row[13]), f"{type(error).__name__}: {error}")
    return Recorded(*row[:12], event)  # type: ignore[call-arg]


def _end(cursor: Any) -> int:
    cursor.execute("SELECT position FROM head")
    position: int = cursor.fetchone()[0]
    return position


class StoreFeed:
    """Reads events of the wanted topics (all, if none are named), from any position on."""

    def __init__(self, pool: Pool, doorbell: Doorbell, topics: Sequence[str] = ()) -> None:
        self._pool = pool
        self._doorbell = doorbell
        self._topics = list(topics)

    def end(self) -> int:
        """The position of the last event."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            return _end(cursor)

    def read(self, after: int, limit: int) -> Batch:
        """The wanted events among the next `limit` positions after `after`.

        The end of the log is read in a statement before the events': all up to there is committed.
        """
        with self._pool.connection() as connection, connection.cursor() as cursor:
            through = min(after + limit, _end(cursor))
            if through <= after:
                return Batch([], after)
            statement = f"SELECT {_COLUMNS} FROM events WHERE position > %s AND position <= %s"
            parameters: list[Any] = [after, through]
            if self._topics:
                statement += " AND topic = ANY(%s)"
                parameters.append(self._topics)
            cursor.execute(statement + " ORDER BY position", parameters)
            rows = cursor.fetchall()
        return Batch([recorded(row) for row in rows], through)

    def wait(self, after: int, timeout: float) -> bool:
        """Wait, at most `timeout` seconds, for events after `after`; whether there are any."""
        heard = self._doorbell.rings
        if self.end() > after:
            return True
        self._doorbell.wait(heard, timeout)
        return self.end() > after
