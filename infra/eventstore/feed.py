"""The store feed: the log, read in order of position, for projections on the same database."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from infra.eventstore.doorbell import Doorbell
from infra.eventstore.transcoder import decode_event
from infra.postgres import Pool


@dataclass(slots=True)
class Recorded:
    """An event as the log holds it. Personal fields of `event` are unopened: only their token.

    What few readers look at is left as text, which costs less to read.
    """

    position: int
    stream_id: UUID
    version: int
    topic: str
    partition_key: UUID
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    command_id: str
    correlation_id: str
    causation_id: str | None
    reason: str | None
    traceparent: str | None
    event: Any


@dataclass(slots=True)
class Undecodable:
    """Stands for an event whose body does not fit its class, so that the rest can be read."""

    class_version: int
    state: bytes
    error: str


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the log, and which log it is."""

    position: int
    epoch: UUID


@dataclass(slots=True)
class Batch:
    """Events in order of position, and how far they reach: all wanted ones up to `through`.

    `head`: the log's, not later than the events were read.
    """

    events: list[Recorded]
    through: int
    head: Head


_COLUMNS = """position, stream_id, version, topic, partition_key, occurred_at, recorded_at,
    actor, command_id::text, correlation_id::text, causation_id::text, reason, traceparent,
    class_version, state"""


_CRC32_SINCE = 180000
"""From this version on the server has a function for it."""


def partition_of(partition_key: UUID, partitions: int) -> int:
    """The partition of a key: CRC-32 of its 16 bytes, modulo the number of partitions."""
    return zlib.crc32(partition_key.bytes) % partitions


def crc32_sql(octets: str) -> str:
    """SQL for the CRC-32 of the 16 octets of a bytea, as a bigint.

    A CRC is affine: that of a message is that of zeros, XOR what each of its octets adds. Takes
    about a microsecond.
    """
    zeros = bytes(16)
    parts = [str(zlib.crc32(zeros))]
    for place in range(16):
        added = (
            zlib.crc32(zeros[:place] + bytes([octet]) + zeros[place + 1 :]) ^ zlib.crc32(zeros)
            for octet in range(256)
        )
        table = ",".join(str(one) for one in added)
        parts.append(f"('{{{table}}}'::bigint[])[get_byte({octets}, {place}) + 1]")
    return f"({' # '.join(parts)})"


def recorded(row: Sequence[Any]) -> Recorded:
    """The event in a row of `_COLUMNS`; `Undecodable` where its body does not fit its class."""
    event: Any
    try:
        event = decode_event(row[3], row[1], row[2], row[13], row[5], row[14])
    except Exception as error:  # noqa: BLE001  (a reader decides what one bad event holds up)
        event = Undecodable(row[13], bytes(row[14]), f"{type(error).__name__}: {error}")
    return Recorded(*row[:13], event)  # type: ignore[call-arg]


def _head(cursor: Any) -> Head:
    cursor.execute("SELECT position, store_epoch FROM head")
    return Head(*cursor.fetchone())


class StoreFeed:
    """Reads events of the wanted topics (all, if none are named), from any position on."""

    def __init__(self, pool: Pool, doorbell: Doorbell, topics: Sequence[str] = ()) -> None:
        self._pool = pool
        self._doorbell = doorbell
        self._topics = list(topics)
        # Rings before the last `read`, and the end of the log that it then saw.
        self._looked: tuple[int, int] | None = None

    def end(self) -> int:
        """The position of the last event."""
        return self.head().position

    def epoch(self) -> UUID:
        """Which log this is: a log begun anew, or restored and given up on, has another."""
        return self.head().epoch

    def head(self) -> Head:
        """The position of the last event, and the log's epoch."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            return _head(cursor)

    def read(self, after: int, limit: int) -> Batch:
        """The wanted events among the next `limit` positions after `after`.

        One statement sees the end of the log and the events: all up to there is committed.
        """
        heard, self._looked = self._doorbell.rings, None
        wanted = "position > %s AND position <= %s"
        parameters: list[Any] = [after, after + limit]
        if self._topics:
            wanted += " AND topic = ANY(%s)"
            parameters.append(self._topics)
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"""SELECT event.*, head.position, head.store_epoch::text FROM head
                LEFT JOIN (SELECT {_COLUMNS} FROM events WHERE {wanted}) AS event
                ON event.position <= head.position ORDER BY event.position""",
                parameters,
            )
            rows = cursor.fetchall()
        end, epoch = rows[0][-2:]
        if rows[0][0] is None:
            rows = []
        self._looked = heard, end
        through = max(after, min(after + limit, end))
        return Batch([recorded(row) for row in rows], through, Head(end, UUID(epoch)))

    def by_key(
        self, share: Collection[int], partitions: int, through: int, rows: int
    ) -> Iterator[list[Recorded]]:
        """The wanted events up to `through` of these of so many partitions, key after key: about
        `rows` of them at once, all of a partition key together, of each in order of position.

        The server sorts them. Takes up a connection, and has it in a transaction, until the end.
        """
        with self._pool.connection() as connection, connection.cursor() as cursor:
            wanted = "position <= %s"
            parameters: list[Any] = [through]
            if self._topics:
                wanted += " AND topic = ANY(%s)"
                parameters.append(self._topics)
            statement = f"SELECT {_COLUMNS} FROM events WHERE {wanted}"
            if len(share) < partitions:
                known = connection.server_version >= _CRC32_SINCE
                crc32 = "crc32(octets)" if known else crc32_sql("octets")
                statement = f"""SELECT {_COLUMNS} FROM (
                        SELECT *, uuid_send(partition_key) AS octets FROM events
                        WHERE {wanted} OFFSET 0) AS event
                    WHERE {crc32} %% %s = ANY(%s::bigint[])"""
                parameters += [partitions, sorted(share)]
            cursor.execute("BEGIN READ ONLY; SET LOCAL work_mem TO '64MB'")
            try:
                cursor.execute(
                    f"DECLARE by_key NO SCROLL CURSOR FOR {statement}"
                    " ORDER BY partition_key, position",
                    parameters,
                )
                for some in _whole_keys(cursor, rows):
                    yield [recorded(row) for row in some]
            finally:
                if not connection.closed:
                    cursor.execute("ROLLBACK")

    def wait(self, after: int, timeout: float) -> bool:
        """Wait, at most `timeout` seconds, for events after `after`; false if none were heard of.

        Right after a `read` the log is not asked again.
        """
        looked, self._looked = self._looked, None
        heard, end = looked or (self._doorbell.rings, self.end())
        return end > after or self._doorbell.wait(heard, timeout)


_KEY = 4  # the place of partition_key among _COLUMNS


def _whole_keys(cursor: Any, rows: int) -> Iterator[list[Any]]:
    """What the cursor `by_key` gives, in pieces that end where a partition key does."""
    held: list[Any] = []
    while True:
        cursor.execute(f"FETCH {int(rows)} FROM by_key")
        fetched = cursor.fetchall()
        held += fetched
        if len(fetched) < rows:
            if held:
                yield held
            return
        last = held[-1][_KEY]
        if held[0][_KEY] == last:
            continue
        cut = len(held) - 1
        while held[cut - 1][_KEY] == last:
            cut -= 1
        yield held[:cut]
        del held[:cut]


class PartitionKeys:
    """The partition keys of streams, which are fixed when a stream is begun. Thread-safe; the
    latest `limit` answers are remembered."""

    def __init__(self, pool: Pool, limit: int = 10_000) -> None:
        self._pool = pool
        self._limit = limit
        self._known: OrderedDict[UUID, UUID] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, stream_id: UUID) -> UUID | None:
        """The partition key of a stream, if it's remembered."""
        with self._lock:
            if stream_id in self._known:
                self._known.move_to_end(stream_id)
            return self._known.get(stream_id)

    def find(self, stream_id: UUID) -> UUID | None:
        """The partition key of a stream; None if there is no such stream."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT partition_key FROM events WHERE stream_id = %s AND version = 1",
                [str(stream_id)],
            )
            row = cursor.fetchone()
        if row is None:
            return None
        key: UUID = row[0]
        with self._lock:
            self._known[stream_id] = key
            while len(self._known) > self._limit:
                self._known.popitem(last=False)
        return key
