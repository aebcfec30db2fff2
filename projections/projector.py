"""Carries the log into a read model: rows and position in one transaction, each event once."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import psycopg2
import structlog
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra import tracing
from infra.crashpoints import reach
from infra.eventstore.feed import Batch, Head, Recorded, partition_of
from infra.postgres import Pool
from projections import account, offsets, origin, parking, summaries
from projections.collector import CollectorPause
from projections.folding import Counters, Failure, Folding, Keyed
from projections.origin import LogBehind, NewerProgram, Origin, OtherLog, RebuildNeeded
from projections.projection import Changes, Projection
from projections.writing import for_a_batch, make_tables, make_views, refused, use_schema

__all__ = [
    "Counters",
    "Feed",
    "LateOwner",
    "LogBehind",
    "NewerProgram",
    "OtherLog",
    "Projector",
    "RebuildNeeded",
]

log = structlog.get_logger(__name__)


class LateOwner(RuntimeError):
    """Another owner moved a partition on meanwhile, or the tables were filled anew. Nothing of
    the batch was written."""


class Feed(Protocol):
    """The log. `read` is needed by `step` alone: with `apply` events come another way."""

    def read(self, after: int, limit: int) -> Batch: ...

    def head(self) -> Head: ...


@dataclass(slots=True)
class _Known:
    """Where the owned partitions are, and the filling of the tables that this is true of."""

    positions: dict[int, int]
    origin: Origin

    def goes_on(self, before: _Known) -> bool:
        """Whether all that was owned before still is, and nobody has moved it meanwhile."""
        return before.origin == self.origin and before.positions.items() <= self.positions.items()


@dataclass(slots=True)
class _Work:
    """The new events of a batch; `folded`: what they change, if that is known already."""

    events: list[Recorded]
    keyed: Keyed
    sums: account.Sums
    folded: tuple[list[Changes], list[Failure]] | None = None


class Projector:
    """Applies events to the tables of one projection, for the partitions it owns.

    Two ways: `step` reads them from the feed; `own` and `apply` take what a broker delivered. In
    both, rows, positions and the account of what was applied change in one transaction, and the
    positions only from the values they were read at.

    While `step` writes a batch, a thread of its own reads and folds the next one: the states of the
    keys in memory are then ahead of the tables by what is being written, so these keys stay in
    memory until it is. What fails drops all states.

    Not thread-safe: one thread calls these. Several projectors may share the tables if each owns
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
        batch: int = 5_000,
        cached_facts: int = 60_000,
        traced: bool = False,
    ) -> None:
        """`batch`: positions of the log per transaction. `bi_schema` None: without views.
        `traced`: `step` tells each event's trace that it was applied."""
        self.projection = projection
        self.counters = Counters()
        self._feed = feed
        self._pool = pool
        self._partitions = partitions
        self._owned = list(range(partitions)) if owned is None else sorted(owned)
        self._schema = schema
        self._bi_schema = bi_schema
        self._batch = batch
        self._traced = traced
        self._folding = Folding(projection, self.counters, cached_facts)
        self._known: _Known | None = None
        self._promised: dict[int, int] = {}  # the positions that the caller of `apply` knows
        self._pause = CollectorPause()
        self._ahead: Future[tuple[Batch, _Work]] | None = None
        self._reader = ThreadPoolExecutor(1, f"{projection.name}-feed")
        self.caught_up = False
        """Whether the last `step` came to the end of the log as it was then."""

    def prepare(self) -> dict[int, int]:
        """Make tables, views and positions where they are missing; the positions by partition.

        The other methods do it when needed. Raises NewerProgram, OtherLog, LogBehind, and
        RebuildNeeded when another version of the projection, or one for another number of
        partitions, filled the tables.
        """
        self.forget()
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            use_schema(cursor, self._schema)
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtext(%s))",
                [f"{self._schema}.{self.projection.name}"],
            )
            cursor.execute(
                "SELECT EXISTS (SELECT FROM position WHERE projection LIKE %s)",
                [f"{self.projection.name}/%"],
            )
            if not cursor.fetchall()[0][0]:
                self._create(cursor)
            filled = origin.admitted(cursor, self.projection, self._partitions, self._feed.head)
            cursor.execute(
                "SELECT partition, position FROM position"
                " WHERE projection = %s AND partition = ANY(%s)",
                [self.projection.id, self._owned],
            )
            positions = dict(cursor.fetchall())
            self._folding.load_parked(cursor)
        self._known = _Known(positions, filled)
        return dict(positions)

    def _ready(self) -> _Known:
        if self._known is None:
            self.prepare()
        if self._known is None:
            raise RuntimeError("prepared, and yet not ready")
        return self._known

    def _create(self, cursor: Cursor) -> None:
        make_tables(cursor, self.projection, self._schema, indexes=True)
        if self._bi_schema is not None:
            make_views(cursor, self.projection, read=self._schema, bi=self._bi_schema)
            use_schema(cursor, self._schema)
        cursor.execute(
            "INSERT INTO position (projection, partition, position)"
            " SELECT %s, number, 0 FROM generate_series(0, %s) AS number",
            [self.projection.id, self._partitions - 1],
        )
        origin.begin(cursor, self.projection, self._feed.head())

    @property
    def epoch(self) -> UUID:
        """The log that the read model is of. Raises what `prepare` raises."""
        return self._ready().origin.epoch

    def own(self, partitions: Collection[int]) -> dict[int, int]:
        """From now on these partitions, and no others, are this projector's; their positions, read
        from the database. Raises what `prepare` raises.

        What is in memory of partitions that go on being owned is kept.
        """
        if self._ahead is not None:
            self.forget()
        before, memory = self._known, self._folding.memory
        self._owned = sorted(partitions)
        self.prepare()  # forgets all states
        now = self._ready()
        if before is not None and now.goes_on(before):
            self._folding.remember(memory)
        self._promised = dict(now.positions)
        return dict(now.positions)

    def offsets(self, partitions: Collection[int]) -> dict[int, tuple[UUID, int]]:
        """Where to go on reading partitions of the topic: its id and the first offset not yet
        read, as last given to `apply`. Missing where nothing is known."""
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            use_schema(cursor, self._schema)
            return offsets.load(cursor, self.projection.name, partitions)

    def apply(
        self,
        events: list[Recorded],
        reached: Mapping[int, int],
        offsets: Mapping[int, tuple[UUID, int]] | None = None,
    ) -> None:
        """Apply events that a broker delivered, in one transaction; afterwards each partition p of
        `reached` stands at reached[p], and reading goes on at its offset.

        Partitions may come in any interleaving, events of a partition in order, without a hole
        since the position that `own` told or the last `apply` reached. Events of topics that the
        projection does not read may be left out; those at or below a position are skipped.

        Raises LateOwner when a partition isn't this projector's any more, or isn't where it was
        left; then, and after any other error, nothing was written, and `own` tells where to go on.
        Raises OtherLog, LogBehind, NewerProgram, RebuildNeeded, and what the database raises.
        """
        try:
            after_an_error = self._known is None
            positions = self._ready().positions
            if after_an_error and any(positions.get(p) != self._promised.get(p) for p in reached):
                raise LateOwner(f"{self.projection.id}: not where it was left")
            if not reached.keys() <= positions.keys():
                raise LateOwner(f"{self.projection.id}: a partition is not owned any more")
            moves = {p: (positions[p], max(new, positions[p])) for p, new in reached.items()}
            unseen = self._delivered(events, moves)
            self._pause.hold()
            self._apply(self._work(unseen), moves, offsets or {})
            self._pause.done(more=False)
        except BaseException as error:
            self._failed(error)
            raise
        self._applied(moves, len(unseen))
        self._promised.update((partition, new) for partition, (_, new) in moves.items())

    def _delivered(
        self, events: list[Recorded], moves: dict[int, tuple[int, int]]
    ) -> list[Recorded]:
        """The events that are new. Raises ValueError for one beyond what is said to be reached."""
        unseen = []
        wants, partitions, nowhere = self._folding.wants, self._partitions, (-1, -1)
        for event in events:
            if not wants(event.topic):
                continue
            old, new = moves.get(partition_of(event.partition_key, partitions), nowhere)
            if event.position > new:
                raise ValueError(f"position {event.position} is beyond what is said to be reached")
            if event.position > old:
                unseen.append(event)
        return unseen

    def step(self, limit: int | None = None) -> int:
        """Apply the next batch of the feed; how many positions of the log it covers, 0 when there
        are none.

        Raises LateOwner, after which the next step starts from what the other owner wrote, what
        `prepare` raises, and whatever the feed or the database raises. A step that raises has
        written nothing.
        """
        self.caught_up = False
        positions = self._ready().positions
        if not positions:
            return 0
        after = min(positions.values())
        wanted = limit or self._batch
        try:
            batch, work = self._next(after, wanted, positions)
            self._demand_same_log(batch.head)
            if batch.through <= after:
                self._pause.release()
                self._look_at_parked()
                return 0
            moves = {p: (old, batch.through) for p, old in positions.items() if old < batch.through}
            more = wanted if batch.through - after >= wanted else 0
            self._pause.hold()
            began = time.time()
            self._apply(work, moves, {}, ahead=(batch.through, more))
            if self._traced:
                name = self.projection.name
                traces = (event.traceparent for event in work.events)
                tracing.finished(f"project {name}", traces, began, {"projection": name})
            self._pause.done(more=more > 0)
        except BaseException as error:
            self._failed(error)
            raise
        self._applied(moves, len(work.events))
        self.caught_up = self._ahead is None and batch.through >= batch.head.position
        return batch.through - after

    def look(self) -> None:
        """Ask the log whether it is still the one that filled the tables, and reaches as far: for
        a broker's reader that has nothing to do. Raises OtherLog and LogBehind, and LateOwner
        where the log is another one and nothing was applied of the former."""
        self._ready()
        self._demand_same_log(self._feed.head())
        self._look_at_parked()

    def _demand_same_log(self, head: Head) -> None:
        known = self._ready()
        furthest = max(known.positions.values(), default=0)
        origin.demand_same_log(self.projection.id, known.origin.epoch, furthest, head)
        if known.origin.epoch != head.epoch:
            # Nothing is applied yet: `prepare` takes the epoch that the log has now.
            raise LateOwner(f"{self.projection.id}: the log has got another identity")

    def _failed(self, error: BaseException) -> None:
        self.forget()
        if isinstance(error, LateOwner):
            self.counters.late_owner += 1

    def _applied(self, moves: dict[int, tuple[int, int]], events: int) -> None:
        self._ready().positions.update((partition, new) for partition, (_, new) in moves.items())
        if self._ahead is None:
            self._folding.trim()
        self.counters.batches += 1
        self.counters.events += events

    def _look_at_parked(self) -> None:
        if self._folding.parked:
            with self._pool.connection() as connection, connection, connection.cursor() as cursor:
                use_schema(cursor, self._schema)
                self._folding.look_at_parked(cursor)

    def forget(self) -> None:
        """Drop everything in memory; it is read from the database again when needed."""
        self._drop_ahead()
        self._folding.forget()
        self._known = None
        self._pause.release()

    def _drop_ahead(self) -> None:
        """Wait for what is being read and folded: nobody else may touch the states meanwhile."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            wait([ahead])

    def close(self) -> None:
        """Wait for what is read ahead and stop its thread."""
        self._drop_ahead()
        self._pause.release()
        self._reader.shutdown(cancel_futures=True)

    def reached(self) -> dict[int, int]:
        """The positions of the owned partitions as far as they are in memory; from any thread."""
        known = self._known
        return {} if known is None else dict(known.positions)

    def position(self) -> int:
        """Up to this position of the log, all is applied in the owned partitions."""
        return min(self._ready().positions.values(), default=0)

    def all_positions(self) -> dict[int, int]:
        """How far every partition is applied, also those that are others', by the database."""
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            use_schema(cursor, self._schema)
            cursor.execute(
                "SELECT partition, position FROM position WHERE projection = %s",
                [self.projection.id],
            )
            return dict(cursor.fetchall())

    def position_of(self, partition_key: UUID) -> int:
        """Up to this position of the log, all is applied that belongs to this partition key."""
        partition = partition_of(partition_key, self._partitions)
        return self._ready().positions[partition]

    def _next(self, after: int, limit: int, positions: dict[int, int]) -> tuple[Batch, _Work]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            return ahead.result()
        batch = self._feed.read(after, limit)
        return batch, self._work(self._unseen(batch.events, positions))

    def _look_ahead(
        self, after: int, limit: int, positions: dict[int, int], fold: bool
    ) -> tuple[Batch, _Work]:
        """The batch after the one that is being written, which ends with these positions. Its keys'
        rows, those in memory aside, are in the tables: there the batch under way changes nothing
        of them."""
        batch = self._feed.read(after, limit)
        work = self._work(self._unseen(batch.events, positions))
        if fold and work.keyed:
            self._folding.trim(latest=False)
            with self._pool.connection() as connection, connection, connection.cursor() as cursor:
                cursor.execute(for_a_batch(self._schema))
                work.folded = self._folding.fold(cursor, work.keyed)
        return batch, work

    def _work(self, events: list[Recorded]) -> _Work:
        keyed = self._folding.keyed(events)
        # Of the events as they came: whether they are applied or parked, and in how many tries,
        # makes no difference.
        return _Work(events, keyed, account.summed((event for _, event in keyed), self._partitions))

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
        self,
        work: _Work,
        moves: dict[int, tuple[int, int]],
        hints: Mapping[int, tuple[UUID, int]],
        ahead: tuple[int, int] = (0, 0),
    ) -> None:
        """Fold and write a batch. `ahead`: while it is written, so many positions after this one
        are read from the feed, and folded."""
        folding = self._folding
        try:
            with self._transaction(moves, hints, work.sums) as cursor:
                changes, failed = work.folded or folding.fold(cursor, work.keyed)
                reach("project.in_batch")
                statements = folding.statements(changes)
                through, more = ahead
                if more:
                    positions = {p: max(old, through) for p, old in self._ready().positions.items()}
                    # A key that has to wait is known to wait once that is written.
                    fold = not failed and not folding.parked
                    self._ahead = self._reader.submit(
                        self._look_ahead, through, more, positions, fold
                    )
                folding.send(cursor, statements, changes, failed)
        except (psycopg2.Error, UnicodeEncodeError) as error:
            if not refused(error):
                raise
            log.warning("batch refused", projection=self.projection.id, error=str(error))
            self.counters.refused_batches += 1
            self._drop_ahead()
            folding.forget()
            with self._transaction(moves, hints, work.sums) as cursor:
                folding.by_key(cursor, work.keyed)

    @contextmanager
    def _transaction(
        self,
        moves: dict[int, tuple[int, int]],
        hints: Mapping[int, tuple[UUID, int]],
        sums: account.Sums,
    ) -> Iterator[Cursor]:
        """Moves the positions first, which locks them; all or nothing."""
        filled = self._ready().origin.filled
        partitions = sorted(moves)
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            # What a crash of the server may lose here is whole transactions, rows and position.
            begin = for_a_batch(self._schema) + "SET LOCAL synchronous_commit TO off;"
            # Positions can be the same in a set filled anew whose rows are not those in memory.
            move: bytes = cursor.mogrify(
                "UPDATE position SET position = moved.new, moved_at = clock_timestamp()"
                " FROM unnest(%s::int[], %s::bigint[], %s::bigint[]) AS moved(partition, old, new)"
                " WHERE position.projection = %s AND position.partition = moved.partition"
                " AND position.position = moved.old AND EXISTS"
                " (SELECT FROM origin WHERE origin.projection = %s AND origin.filled = %s)"
                " RETURNING 1",
                [
                    partitions,
                    [moves[partition][0] for partition in partitions],
                    [moves[partition][1] for partition in partitions],
                    self.projection.id,
                    self.projection.id,
                    filled,
                ],
            )
            parts = [b"moved AS (%b)" % move]
            if sums:
                all_moved = f"(SELECT count(*) FROM moved) = {len(partitions)}"
                entered = account.entering(cursor, self.projection.id, sums, where=all_moved)
                parts.append(b"entered AS (%b)" % entered)
            cursor.execute(
                b"%b WITH %b SELECT count(*) FROM moved" % (begin.encode(), b", ".join(parts))
            )
            if cursor.fetchone() != (len(partitions),):
                raise LateOwner(f"{self.projection.id}: another owner moved on")
            offsets.save(cursor, self.projection.name, hints)
            yield cursor
            reach("project.before_commit")
        reach("project.after_commit")

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
        self._ready()
        self.forget()
        try:
            with self._pool.connection() as connection, connection, connection.cursor() as cursor:
                use_schema(cursor, self._schema)
                parking.lock(cursor, self.projection.id, key, self._partitions)
                events = parking.taken(cursor, self.projection.id, key)
                if not events:
                    raise KeyError(str(key))
                first = events[0].position
                summaries.forget_from(cursor, self.projection, self._schema, first)
                self._folding.load_parked(cursor)
                self._folding.by_key(cursor, [(key, event) for event in events])
                return key not in self._folding.parked
        finally:
            self.forget()
