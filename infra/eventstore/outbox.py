"""The log's side of its way to Kafka: the relay's lease, its cursor, and the rows to carry on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from infra.eventstore.feed import Head, partition_of
from infra.kafka import OUTGOING_COLUMNS, Outgoing
from infra.postgres import Pool

_CHUNK = 50_000


class LeaseLost(RuntimeError):
    """Another relay publishes now. Nothing was saved."""


class LogChanged(RuntimeError):
    """The log is not the one that was read so far: it was restored. Nothing of it is published
    until it was held against the saved cursor and the topic."""


class GapInLog(RuntimeError):
    """Positions are missing in the log: it was damaged. What comes after them is not published."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the log is in Kafka: every event up to `position` was acknowledged.

    By partition: `previous` is the last event's position up to there (0: none), `offsets` the
    topic's end after what was acknowledged; a negative one is ~offset, where the partition went on
    although more had been acknowledged: what lay from there on was lost.
    """

    position: int
    store_epoch: UUID
    topic: str
    topic_id: UUID
    previous: list[int]
    offsets: list[int]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is in the log and, as far as the cursor tells, not in Kafka; the oldest one's age."""

    events: int
    oldest_seconds: float


class Outbox:
    """The log and the row `relay`, as one relay sees them. From any thread.

    The lease is by the database's clock: a holder that was stopped, or whose clock is wrong, loses
    it like any other. Statements raise what the database raises.
    """

    def __init__(self, pool: Pool, holder: str, lease_seconds: float) -> None:
        """`pool`: of role crm_relay, autocommit. `holder`: nobody else's name."""
        self._pool = pool
        self._holder = holder
        self._lease = lease_seconds
        self._epoch: int | None = None

    @property
    def epoch(self) -> int | None:
        """Number of the lease that this relay holds, as far as it knows; none on standby."""
        return self._epoch

    def take(self) -> bool:
        """Take the lease if it is nobody's; whether it was."""
        return self._take("WHERE expires_at <= clock_timestamp()")

    def seize(self) -> None:
        """Take the lease from whoever holds it, who notices when saving."""
        self._take("")

    def _take(self, condition: str) -> bool:
        rows = self._rows(
            "UPDATE relay SET holder = %s, epoch = epoch + 1,"
            f" expires_at = clock_timestamp() + make_interval(secs => %s) {condition}"
            " RETURNING epoch",
            [self._holder, self._lease],
        )
        if rows:
            self._epoch = rows[0][0]
        return bool(rows)

    def renew(self) -> None:
        """Hold the lease for another `lease_seconds`. Raises `LeaseLost`."""
        self._update("expires_at = clock_timestamp() + make_interval(secs => %s)", [self._lease])

    def release(self) -> None:
        """Let a standby have the lease at once."""
        if self._epoch is not None:
            try:
                # Without a holder, so that a renewal under way in another thread comes to nothing.
                self._update("expires_at = clock_timestamp(), holder = NULL", [])
            except LeaseLost:
                return
            self._epoch = None

    def save(self, cursor: Cursor) -> None:
        """Save the cursor, and renew the lease. Raises `LeaseLost`."""
        self._update(
            "position = %s, store_epoch = %s, topic = %s, topic_id = %s, previous = %s::bigint[],"
            " offsets = %s::bigint[], saved_at = clock_timestamp(),"
            " expires_at = clock_timestamp() + make_interval(secs => %s)",
            [
                cursor.position,
                cursor.store_epoch,
                cursor.topic,
                cursor.topic_id,
                cursor.previous,
                cursor.offsets,
                self._lease,
            ],
        )

    def _update(self, columns: str, values: Sequence[Any]) -> None:
        epoch = self._epoch
        if epoch is None:
            raise LeaseLost("not held")
        mine = "holder = %s AND epoch = %s"
        found = self._rows(
            f"UPDATE relay SET {columns} WHERE {mine} RETURNING epoch",
            [*values, self._holder, epoch],
        )
        if not found:
            if self._epoch == epoch:
                self._epoch = None
            raise LeaseLost(f"lease {epoch} is no longer ours")

    def cursor(self) -> Cursor | None:
        """The cursor as it was last saved; none if nothing was ever published."""
        rows = self._rows(
            "SELECT position, store_epoch, topic, topic_id, previous, offsets FROM relay"
            " WHERE position IS NOT NULL"
        )
        return Cursor(*rows[0]) if rows else None

    def head(self) -> Head:
        """The position of the last event, and which log this is."""
        return Head(*self._rows("SELECT position, store_epoch FROM head")[0])

    def backlog(self) -> Backlog:
        """How far the cursor is behind, whoever holds the lease."""
        rows = self._rows(
            "SELECT greatest(head.position - coalesce(relay.position, 0), 0),"
            " coalesce(greatest(extract(epoch FROM clock_timestamp() - oldest.recorded_at), 0), 0)"
            " FROM head, relay"
            " LEFT JOIN events AS oldest ON oldest.position = coalesce(relay.position, 0) + 1"
        )
        return Backlog(int(rows[0][0]), float(rows[0][1]))

    def fetch(self, after: int, limit: int, size: int) -> list[Outgoing]:
        """The events after position `after`, without a gap: at most `limit`, and of bodies only as
        many as stay within `size` bytes, but one at least. Raises `GapInLog`."""
        rows = self._rows(
            f"SELECT {OUTGOING_COLUMNS} FROM (SELECT *, sum(octet_length(state))"
            " OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS size"
            " FROM events WHERE position > %s AND position <= %s) AS event"
            " WHERE size <= %s OR position = %s ORDER BY position",
            [after, after + limit, size, after + 1],
        )
        found = list(map(Outgoing._make, rows))
        if found and found[-1].position != after + len(found):
            raise GapInLog(f"the log lacks events after position {after:,}; see crm doctor")
        return found

    def identities(self, positions: Sequence[int]) -> dict[int, tuple[UUID, int]]:
        """Stream and version of the events at these positions, where there are any."""
        rows = self._rows(
            "SELECT position, stream_id, version FROM events WHERE position = ANY(%s)",
            [list(positions)],
        )
        return {position: (stream, version) for position, stream, version in rows}

    def previous(
        self, position: int, partitions: int, step: Callable[[int], object] = lambda _: None
    ) -> list[int]:
        """By partition the position of the last event up to `position`, 0 if none: the whole log
        is read up to there. `step` hears every now and then how far it is."""
        previous = [0] * partitions
        for after in range(0, position, _CHUNK):
            through = min(after + _CHUNK, position)
            # the last of each key will do: a key has one partition
            rows = self._rows(
                "SELECT max(position), partition_key FROM events"
                " WHERE position > %s AND position <= %s GROUP BY partition_key",
                [after, through],
            )
            for last, key in rows:
                partition = partition_of(key, partitions)
                previous[partition] = max(previous[partition], last)
            step(through)
        return previous

    def _rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()


def begin_epoch(writers: Pool) -> UUID:
    """Give the log another identity, since its positions are used again for other events.

    `writers`: of role crm_writer. Readers of the former refuse what comes until they are rebuilt.
    """
    with writers.connection() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE head SET store_epoch = gen_random_uuid() RETURNING store_epoch")
        found: UUID = cursor.fetchone()[0]  # type: ignore[index]
        return found
