"""Carries the log into a read model: rows and position in one transaction, each event once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import psycopg2
import structlog
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.eventstore.feed import Batch, Recorded, Undecodable, partition_of
from infra.postgres import Pool
from projections import parking
from projections.collector import CollectorPause
from projections.projection import (
    Changes,
    Fold,
    Projection,
    fact_line,
    instant,
)
from projections.states import States
from projections.writing import make_tables, make_views, refused, use_indexes, use_schema, write

log = structlog.get_logger(__name__)


class LateOwner(RuntimeError):
    """Another owner moved a partition on meanwhile. Nothing of the batch was written."""


class RebuildNeeded(RuntimeError):
    """The tables were filled by another version of the projection, or for another number of
    partitions: rebuild it."""


class Feed(Protocol):
    """Where events come from: the log itself, or a broker."""

    def read(self, after: int, limit: int) -> Batch: ...


@dataclass(slots=True)
class Counters:
    """What a projector has done since it was made; only ever grow, but for `parked`."""

    events: int = 0
    batches: int = 0
    rows_added: int = 0
    rows_closed: int = 0
    late_owner: int = 0
    refused_batches: int = 0
    parked: int = 0


class Projector:
    """Applies a feed's events to the tables of one projection, for the partitions it owns.

    Not thread-safe: one thread calls `step`. Several projectors may share the tables if each owns
    other partitions; if two own the same, one of them gets LateOwner and loses nothing.
    """

    def __init__(
        self,
        projection: Projection,
        feed: Feed,
        pool: Pool,
        *,
        partitions: int = 12,
        owned: Sequence[int] | None = None,
        schema: str = "read",
        bi_schema: str | None = "bi",
        batch: int = 10_000,
        cached_facts: int = 60_000,
    ) -> None:
        """`batch`: positions of the log per transaction. `bi_schema` None: without views."""
        self.projection = projection
        self.counters = Counters()
        self._feed = feed
        self._pool = pool
        self._partitions = partitions
        self._owned = list(range(partitions)) if owned is None else sorted(owned)
        self._schema = schema
        self._bi_schema = bi_schema
        self._batch = batch
        each = cached_facts // len(projection.folds)
        self._states = [States(fold, each) for fold in projection.folds]
        self._positions: dict[int, int] | None = None
        self._parked: set[UUID] = set()
        self._routes: dict[str, tuple[int, Fold, Callable[[Recorded], tuple[str, ...] | None]]] = {
            topic: (number, fold, extract)
            for number, fold in enumerate(projection.folds)
            for topic, extract in fold.extract.items()
        }
        self._pause = CollectorPause()
        self._ahead: tuple[int, Future[Batch]] | None = None
        self._reader = ThreadPoolExecutor(1, f"{projection.name}-feed")

    def prepare(self) -> dict[int, int]:
        """Make tables, views and positions where they are missing; the positions by partition.

        The other methods do it when needed. Raises RebuildNeeded when another version of the
        projection, or one for another number of partitions, filled the tables.
        """
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            use_schema(cursor, self._schema)
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtext(%s))",
                [f"{self._schema}.{self.projection.name}"],
            )
            cursor.execute(
                "SELECT projection, partition FROM position WHERE projection LIKE %s",
                [f"{self.projection.name}/%"],
            )
            found: list[tuple[str, int]] = cursor.fetchall()
            if not found:
                self._create(cursor)
            elif {name for name, _ in found} != {self.projection.id}:
                raise RebuildNeeded(f"{found[0][0]} is there, {self.projection.id} is wanted")
            elif {partition for _, partition in found} != set(range(self._partitions)):
                raise RebuildNeeded(
                    f"{self.projection.id} has {len(found)} partitions,"
                    f" {self._partitions} are wanted"
                )
        return self._load_positions()

    def _create(self, cursor: Cursor) -> None:
        make_tables(cursor, self.projection, self._schema, indexes=True)
        if self._bi_schema is not None:
            make_views(cursor, self.projection, read=self._schema, bi=self._bi_schema)
            use_schema(cursor, self._schema)
        cursor.execute(
            "INSERT INTO position (projection, partition, position)"
            " SELECT %s, number, 0 FROM generate_series(0, %s) AS number"
            " ON CONFLICT DO NOTHING",
            [self.projection.id, self._partitions - 1],
        )

    def _load_positions(self) -> dict[int, int]:
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            use_schema(cursor, self._schema)
            cursor.execute(
                "SELECT partition, position FROM position"
                " WHERE projection = %s AND partition = ANY(%s)",
                [self.projection.id, self._owned],
            )
            self._positions = dict(cursor.fetchall())
            self._parked = parking.keys(cursor, self.projection.id)
        self.counters.parked = len(self._parked)
        return self._positions

    def step(self, limit: int | None = None) -> int:
        """Apply the next batch; how many positions of the log it covers, 0 when there are none.

        Raises LateOwner, after which the next step starts from what the other owner wrote, and
        whatever the feed or the database raises. A step that raises has written nothing.
        """
        positions = self._positions or self.prepare()
        after = min(positions.values())
        wanted = limit or self._batch
        try:
            batch = self._read(after, wanted)
            if batch.through <= after:
                self._pause.release()
                self._look_at_parked()
                return 0
            moves = {p: (old, batch.through) for p, old in positions.items() if old < batch.through}
            events = self._unseen(batch.events, positions)
            more = wanted if batch.through - after >= wanted else 0
            self._pause.hold()
            self._apply(events, moves, batch.through, more)
            self._pause.done(more=more > 0)
        except BaseException as error:
            self.forget()
            if isinstance(error, LateOwner):
                self.counters.late_owner += 1
            raise
        for partition, (_, new) in moves.items():
            positions[partition] = new
        for states in self._states:
            states.trim()
        self.counters.batches += 1
        self.counters.events += len(events)
        return batch.through - after

    def _look_at_parked(self) -> None:
        if self._parked:
            with self._pool.connection() as connection, connection, connection.cursor() as cursor:
                use_schema(cursor, self._schema)
                self._held(cursor, [])

    def forget(self) -> None:
        """Drop everything in memory; the next step reads it from the database again."""
        self._clear()
        self._positions = None
        self._ahead = None
        self._pause.release()

    def _clear(self) -> None:
        for states in self._states:
            states.clear()

    def close(self) -> None:
        """Wait for the read ahead and stop its thread."""
        self._ahead = None
        self._pause.release()
        self._reader.shutdown(cancel_futures=True)

    def position(self) -> int:
        """Up to this position of the log, all is applied in the owned partitions."""
        return min((self._positions or self.prepare()).values())

    def position_of(self, partition_key: UUID) -> int:
        """Up to this position of the log, all is applied that belongs to this partition key."""
        partition = partition_of(partition_key, self._partitions)
        return (self._positions or self.prepare())[partition]

    def _read(self, after: int, limit: int) -> Batch:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == after:
            return ahead[1].result()
        return self._feed.read(after, limit)

    def _unseen(self, events: list[Recorded], positions: dict[int, int]) -> list[Recorded]:
        if len(positions) == self._partitions and len(set(positions.values())) == 1:
            return events
        partitions, everywhere = self._partitions, float("inf")
        return [
            event
            for event in events
            if event.position
            > positions.get(partition_of(event.partition_key, partitions), everywhere)
        ]

    def _apply(
        self, events: list[Recorded], moves: dict[int, tuple[int, int]], through: int, more: int
    ) -> None:
        """Fold and write a batch. While it is written, `more` positions after it are read."""
        try:
            with self._transaction(moves) as cursor:
                changes, failed = self._fold(cursor, events)
                if more:
                    self._ahead = (through, self._reader.submit(self._feed.read, through, more))
                self._write(cursor, changes, failed)
        except (psycopg2.Error, UnicodeEncodeError) as error:
            if not refused(error):
                raise
            log.warning("batch refused", projection=self.projection.id, error=str(error))
            self.counters.refused_batches += 1
            self._clear()
            with self._transaction(moves) as cursor:
                self._apply_by_key(cursor, _by_key(self._keyed(events)))

    @contextmanager
    def _transaction(self, moves: dict[int, tuple[int, int]]) -> Iterator[Cursor]:
        """Moves the positions first, which locks them; all or nothing."""
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            use_schema(cursor, self._schema)
            use_indexes(cursor)
            # What a crash of the server may lose here is whole transactions, rows and position.
            cursor.execute("SET LOCAL synchronous_commit TO off")
            partitions = sorted(moves)
            cursor.execute(
                "UPDATE position SET position = moved.new"
                " FROM unnest(%s::int[], %s::bigint[], %s::bigint[]) AS moved(partition, old, new)"
                " WHERE position.projection = %s AND position.partition = moved.partition"
                " AND position.position = moved.old",
                [
                    partitions,
                    [moves[partition][0] for partition in partitions],
                    [moves[partition][1] for partition in partitions],
                    self.projection.id,
                ],
            )
            if cursor.rowcount != len(partitions):
                raise LateOwner(f"{self.projection.id}: another owner moved on")
            yield cursor

    def _keyed(self, events: list[Recorded]) -> list[tuple[UUID, Recorded]]:
        routes = self._routes
        return [
            (routes[event.topic][1].key_of(event), event)
            for event in events
            if event.topic in routes
        ]

    def _fold(self, cursor: Cursor, events: list[Recorded]) -> tuple[list[Changes], list[_Failure]]:
        """The changes of each fold, and the events that cannot be folded or wait for such a one."""
        keyed = self._keyed(events)
        held = self._held(cursor, keyed)
        self._load(cursor, keyed)
        changes = [Changes() for _ in self.projection.folds]
        failed: list[_Failure] = []
        states, routes = self._states, self._routes
        for key, recorded in keyed:
            if held and key in held:
                failed.append((key, recorded, ""))
                continue
            number, _, extract = routes[recorded.topic]
            try:
                columns = extract(recorded)
                if columns is None:
                    continue
                fact = (instant(recorded.occurred_at), recorded.position, *columns)
                state = states[number][key]
                state.apply(fact, changes[number])
            except Exception as error:  # noqa: BLE001  (whatever it is, it holds back one key)
                held = held | {key}
                failed.append((key, recorded, _reason(recorded, error)))
                continue
            changes[number].facts.append(fact_line(state.key, fact))
        for own, change in zip(states, changes, strict=True):
            own.grown(len(change.facts))
        return changes, failed

    def _write(self, cursor: Cursor, changes: list[Changes], failed: list[_Failure]) -> None:
        write(cursor, self.projection.folds, changes)
        self._park(cursor, failed)
        for change in changes:
            self.counters.rows_added += len(change.added)
            self.counters.rows_closed += len(change.closed)

    def _held(self, cursor: Cursor, keyed: list[tuple[UUID, Recorded]]) -> set[UUID]:
        """The keys that wait. Somebody else may have tried them again: if one that this batch is
        about (or any, if it is about none) waited, look."""
        if self._parked and (not keyed or any(key in self._parked for key, _ in keyed)):
            now = parking.keys(cursor, self.projection.id)
            for key in self._parked - now:
                for states in self._states:
                    states.drop(key)
            self._parked = now
            self.counters.parked = len(now)
        return self._parked

    def _load(self, cursor: Cursor, keyed: list[tuple[UUID, Recorded]]) -> None:
        """States of all keys of a batch, one query for each fold."""
        routes = self._routes
        keys: list[dict[int, UUID]] = [{} for _ in self._states]
        for key, recorded in keyed:
            keys[routes[recorded.topic][0]][key.int] = key
        for states, wanted in zip(self._states, keys, strict=True):
            states.load(cursor, wanted.values())

    def _apply_by_key(self, cursor: Cursor, groups: list[tuple[UUID, list[Recorded]]]) -> None:
        """Halve a refused batch until the keys whose rows are refused stand alone."""
        if not groups:
            return
        cursor.execute("SAVEPOINT part")
        try:
            events = [event for _, events in groups for event in events]
            self._write(cursor, *self._fold(cursor, events))
            cursor.execute("RELEASE SAVEPOINT part")
            return
        except (psycopg2.Error, UnicodeEncodeError) as error:
            if not refused(error):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT part")
            cursor.execute("RELEASE SAVEPOINT part")
            self._clear()
            reason = f"{type(error).__name__}: {error}".strip()
        if len(groups) > 1:
            middle = len(groups) // 2
            self._apply_by_key(cursor, groups[:middle])
            self._apply_by_key(cursor, groups[middle:])
            return
        key, events = groups[0]
        if len(events) > 1:
            # Parking the first bad one makes the rest of the key wait.
            middle = len(events) // 2
            self._apply_by_key(cursor, [(key, events[:middle])])
            self._apply_by_key(cursor, [(key, events[middle:])])
            return
        self._park(cursor, [(key, events[0], reason)])

    def _park(self, cursor: Cursor, failed: list[_Failure]) -> None:
        if not failed:
            return
        for key, recorded, error in failed:
            if error:
                log.error(
                    "event parked",
                    projection=self.projection.id,
                    key=str(key),
                    position=recorded.position,
                    error=error,
                )
        parking.park(cursor, self.projection.id, failed)
        self._parked = self._parked | {key for key, _, _ in failed}
        self.counters.parked = len(self._parked)

    def parked_keys(self) -> list[parking.ParkedKey]:
        """The keys that wait, with the error that each waits for, oldest first."""
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            use_schema(cursor, self._schema)
            return parking.listed(cursor, self.projection.id)

    def retry(self, key: UUID) -> bool:
        """Apply the events of a parked key; whether all went in.

        Runs under the lock of the key's partition, so that its projector waits meanwhile, and
        writes the rows that would have been written then. If an event fails again, those before
        it are applied and the rest waits on. Raises KeyError for a key that is not parked.
        """
        if self._positions is None:
            self.prepare()
        self.forget()
        try:
            with self._pool.connection() as connection, connection, connection.cursor() as cursor:
                use_schema(cursor, self._schema)
                parking.lock(cursor, self.projection.id, key, self._partitions)
                events = parking.taken(cursor, self.projection.id, key)
                if not events:
                    raise KeyError(str(key))
                self._parked = parking.keys(cursor, self.projection.id)
                self._apply_by_key(cursor, [(key, events)])
                return key not in self._parked
        finally:
            self.forget()


_Failure = tuple[UUID, Recorded, str]


def _reason(recorded: Recorded, error: Exception) -> str:
    if isinstance(recorded.event, Undecodable):
        return recorded.event.error
    return f"{type(error).__name__}: {error}"


def _by_key(keyed: list[tuple[UUID, Recorded]]) -> list[tuple[UUID, list[Recorded]]]:
    groups: dict[UUID, list[Recorded]] = {}
    for key, recorded in keyed:
        groups.setdefault(key, []).append(recorded)
    return list(groups.items())
