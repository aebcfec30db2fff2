"""The rebuild of one read model: fill, compare, swap; or only fill, compare and drop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import psycopg2
import structlog
from psycopg2.errors import DiskFull
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.crashpoints import reach
from infra.postgres import Pool, quote
from projections import offsets, origin, parking
from projections.projection import Projection
from projections.projector import Projector
from projections.rebuild.comparing import Compared, compare
from projections.rebuild.filling import ROWS, FillingFailed, WholeLog, fill, shares
from projections.rebuild.sets import alone, begin, drop, shadow_schema
from projections.rebuild.swapping import ReadersInTheWay, Swap, hold_live
from projections.summaries import POSITIONS, Summarizer
from projections.writing import use_schema

log = structlog.get_logger(__name__)

_BATCH = 15_000
_CACHED_FACTS = 60_000
_BLOCKS_AT_ONCE = 512

# Who took a snapshot before something came in, and looks for the tables only after the swap, would
# find the new ones without it: after the last writing, readers get this many seconds to have begun.
_SETTLE = 0.25

_LEFT_TO_GO_ON = (
    ReadersInTheWay, FillingFailed, KeyboardInterrupt, psycopg2.OperationalError,
    psycopg2.InterfaceError,
)  # fmt: skip
"""What ends a rebuild without fault of the new set: the next one goes on from there."""


class NothingToCompare(RuntimeError):
    """There is no live set of this version of the read model."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found. `compared` is empty when the live set was of another version.

    `position`: up to there the new set was filled. `at`: where the two were compared. `resumed`:
    an interrupted rebuild was gone on with. `parked` and `live_parked`: keys that wait in the new
    set and in the live one, whose rows stand still; they may be what differs.
    """

    projection: str
    position: int
    at: int
    seconds: float
    compared: list[Compared]
    resumed: bool
    parked: int
    live_parked: int

    @property
    def same(self) -> bool:
        """Whether the live set was what the log says (True where there was none to compare)."""
        return all(table.same for table in self.compared)


class Fillers(Protocol):
    """Processes that fill shares of new sets. `fill` raises FillingFailed."""

    workers: int

    def fill(
        self,
        projection: Projection,
        schema: str,
        parts: Sequence[Sequence[int]],
        partitions: int,
        through: int,
        told: Callable[[int], None],
    ) -> None: ...


class Gentle:
    """Leaves a machine that has other work to do most of the time."""

    batch = 500
    """Positions of the log at once."""

    rest = 3.0
    """Seconds of rest for each second of work."""

    def pause(self, worked: float) -> None:
        time.sleep(self.rest * worked)


class Rebuild:
    """Rebuilds one projection. The live tables are read and written all the while.

    The new set stands in schema `shadow_<name>` with positions of its own. Once it has come to the
    end of the log, both sets are compared as known there. Then the live projector is held up (its
    readers are not) for as long as it takes to bring the new set to where it is and to move it
    into its place, in one transaction. What was live is kept in schema `former_<name>`.

    A rebuild that was killed is gone on with by the next one, see `sets.begin`.

    The new set is of the log that is there now, whatever log filled the live one, and however far
    that came: this is the way out of OtherLog and LogBehind.
    """

    def __init__(
        self,
        projection: Projection,
        feed: WholeLog,
        pool: Pool,
        *,
        partitions: int = 12,
        schema: str = "read",
        bi_schema: str | None = "bi",
        batch: int = _BATCH,
        block: int = POSITIONS,
        backwards: bool = False,
        fillers: Fillers | None = None,
        gentle: Gentle | None = None,
        on_progress: Callable[[int], None] = lambda position: None,
    ) -> None:
        """`block`: positions of the log in a block of the summaries. `backwards`: also where a
        later version of the program filled the live set. `fillers`: processes that share the work;
        without, this one does it. `gentle`: slowly, instead. `on_progress` is told how many
        positions of the log are done, from time to time."""
        self._projection = projection
        self._feed = feed
        self._pool = pool
        self._partitions = partitions
        self._schema = schema
        self._bi_schema = bi_schema
        self._batch = batch
        self._block = block
        self._backwards = backwards
        self._fillers = fillers
        self._gentle = gentle
        self._on_progress = on_progress
        self._threads = 1 if fillers is None else fillers.workers  # at the server's work
        self._tables = projection.tables()
        self._swap = Swap(projection, schema, bi_schema)
        self.shadow = shadow_schema(projection, schema)
        self._written = time.monotonic()  # when something was last written to the new set

    def run(self) -> Rebuilt:
        """Fill, compare, swap. Raises RebuildRunning, ReadersInTheWay, NewerProgram, and what the
        database or the feed raises; the live set is then untouched."""
        return self._made(swap=True)

    def verify(self) -> Rebuilt:
        """Fill, compare, drop: the live set is only read. Raises RebuildRunning, NothingToCompare,
        NewerProgram, OtherLog, LogBehind, and what the database or the feed raises."""
        return self._made(swap=False)

    def _made(self, *, swap: bool) -> Rebuilt:
        started = time.monotonic()
        with alone(self._pool, self._projection, self._schema):
            if not swap:
                self._demand_live()
            with self._transaction() as cursor:
                if swap:
                    self._refuse_newer(cursor)
                resumed = begin(
                    cursor,
                    self._projection,
                    self._feed.head(),
                    schema=self._schema,
                    partitions=self._partitions,
                )
            try:
                rebuilt = self._filled(started, resumed, swap)
            except BaseException as error:
                if not isinstance(error, _LEFT_TO_GO_ON) or _for_want_of_disk(error):
                    self._drop()
                raise
            self._drop()
        return rebuilt

    def _filled(self, started: float, resumed: bool, swap: bool) -> Rebuilt:
        if self._gentle is None:
            self._fill()
        reach("rebuild.filled")
        shadow = Projector(
            self._projection,
            self._feed,
            self._pool,
            partitions=self._partitions,
            schema=self.shadow,
            bi_schema=None,
            cached_facts=_CACHED_FACTS,
        )
        try:
            self._catch_up(shadow)
            self._finish()
            reach("rebuild.indexed")
            self._catch_up(shadow)
            reach("rebuild.caught_up")
            at, compared = self._compared(shadow.position())
            if not swap and not compared:
                raise NothingToCompare(f"{self._projection.id}: another version has taken over")
            parked, live_parked = self._parked()
            if swap:
                with self._transaction() as cursor:
                    self._take_the_place(cursor, shadow)
            return Rebuilt(
                self._projection.id,
                shadow.position(),
                at,
                time.monotonic() - started,
                compared,
                resumed,
                parked,
                live_parked,
            )
        finally:
            shadow.close()

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            yield cursor

    def _drop(self) -> None:
        with self._transaction() as cursor:
            drop(cursor, self.shadow)

    # ---- filling ----

    def _fill(self) -> None:
        """All partitions that are empty, up to the end of the log."""
        with self._transaction() as cursor:
            cursor.execute(
                f"SELECT partition FROM {quote(self.shadow)}.position WHERE position = 0"
                " ORDER BY partition"
            )
            empty = [row[0] for row in cursor.fetchall()]
        through = self._feed.head().position
        if not empty or not through:
            return
        # They only grow; what there is to be done is done once, by `_finish`.
        self._execute(*(f"ALTER TABLE {t} SET (autovacuum_enabled = off)" for t in self._tables))
        done = 0

        def told(events: int) -> None:
            nonlocal done
            done += events
            self._on_progress(min(done, through))

        parts = shares(empty, through, self._fillers.workers if self._fillers else 1)
        if self._fillers is not None:
            self._fillers.fill(
                self._projection, self.shadow, parts, self._partitions, through, told
            )
        else:
            for share in parts:
                fill(
                    self._projection,
                    self._feed,
                    self._pool,
                    schema=self.shadow,
                    share=share,
                    partitions=self._partitions,
                    through=through,
                    rows=min(self._batch, ROWS),
                    told=told,
                )
        self._written = time.monotonic()

    def _catch_up(self, shadow: Projector) -> None:
        """To the end of the log, or near it: where events come in all the while, there is none."""
        batch = self._batch if self._gentle is None else self._gentle.batch
        done = batch
        while done >= batch:
            began = time.monotonic()
            done = shadow.step(batch)
            self._written = time.monotonic()
            self._on_progress(shadow.position())
            if self._gentle is not None:
                self._gentle.pause(self._written - began)

    def _finish(self) -> None:
        """Statistics and what index-only scans need; then indexes and sums, beside each other where
        several share the work."""
        with ThreadPoolExecutor(self._threads, "finish") as together:

            def each(*tasks: Callable[[], None]) -> None:
                for begun in [together.submit(task) for task in tasks]:
                    begun.result()

            each(*(partial(self._vacuum, table) for table in self._tables))
            indexes = self._projection.indexes()
            each(self._sum_up, *(partial(self._execute, index) for index in indexes))
        self._execute(*(f"ALTER TABLE {t} RESET (autovacuum_enabled)" for t in self._tables))

    def _execute(self, *statements: str) -> None:
        with self._transaction() as cursor:
            use_schema(cursor, self.shadow)
            for statement in statements:
                cursor.execute(statement)

    def _vacuum(self, table: str) -> None:
        with self._pool.connection() as connection:
            before, connection.autocommit = connection.autocommit, True
            try:
                with connection.cursor() as cursor:
                    cursor.execute(f"VACUUM (ANALYZE) {quote(self.shadow)}.{table}")
            finally:
                if not connection.closed:
                    connection.autocommit = before

    def _sum_up(self) -> None:
        summarizer = Summarizer(
            self._projection,
            self._pool,
            schema=self.shadow,
            positions=self._block,
            at_once=_BLOCKS_AT_ONCE,
        )
        if not summarizer.step():
            return
        while summarizer.step():
            pass
        self._written = time.monotonic()
        self._execute(*(f"ANALYZE {table}" for table in self._projection.sums()))

    # ---- comparing ----

    def _live(self) -> list[tuple[str, int]]:
        """The ids and positions of the live set."""
        with self._transaction() as cursor:
            cursor.execute(
                f"SELECT projection, position FROM {quote(self._schema)}.position"
                " WHERE projection LIKE %s",
                [f"{self._projection.name}/%"],
            )
            return cursor.fetchall()

    def _demand_live(self) -> None:
        with self._transaction() as cursor:
            use_schema(cursor, self._schema)
            try:
                origin.examined(cursor, self._projection, self._partitions, self._feed.head)
            except origin.RebuildNeeded as reason:
                raise NothingToCompare(f"{self._projection.name}: {reason}") from None

    def _compared(self, reached: int) -> tuple[int, list[Compared]]:
        """Where both sets have come to, and what they have there."""
        live = self._live()
        at = min([reached, *(position for _, position in live)])
        if {id_ for id_, _ in live} != {self._projection.id}:
            return at, []
        return at, compare(
            self._pool,
            self._projection,
            live=self._schema,
            new=self.shadow,
            at=at,
            threads=self._threads,
        )

    def _parked(self) -> tuple[int, int]:
        found = []
        for schema in (self.shadow, self._schema):
            with self._transaction() as cursor:
                use_schema(cursor, schema)
                found.append(len(parking.keys(cursor, self._projection.id)))
        return found[0], found[1]

    # ---- swapping ----

    def _take_the_place(self, cursor: Cursor, shadow: Projector) -> None:
        """In one transaction: hold up the live projector, catch up, swap."""
        live = hold_live(cursor, self._projection, self._schema)
        self._refuse_newer(cursor)
        if live:
            furthest = max(position for _, _, position in live)
            # A log that ends before the live set does ends this, too.
            while shadow.position() < furthest and shadow.step():
                self._written = time.monotonic()
            # Who knows how far the live set is summed up may find the new one in its place.
            self._sum_up()
            time.sleep(max(0.0, self._written + _SETTLE - time.monotonic()))
        self._swap.lock(cursor)
        misleading = self._hints_mislead(cursor, live, shadow)
        self._swap.put(cursor, self.shadow)
        if misleading:
            use_schema(cursor, self._schema)
            offsets.clear(cursor, self._projection.name)

    def _refuse_newer(self, cursor: Cursor) -> None:
        if self._backwards:
            return
        cursor.execute(
            f"SELECT DISTINCT projection FROM {quote(self._schema)}.position"
            " WHERE projection LIKE %s",
            [f"{self._projection.name}/%"],
        )
        origin.refuse_newer(self._projection, {row[0] for row in cursor.fetchall()})

    def _hints_mislead(
        self, cursor: Cursor, live: list[tuple[str, int, int]], shadow: Projector
    ) -> bool:
        """Whether what is known of where in the topic the live set was is wrong for the new one.

        What lies before such an offset was applied to the live set. Of the same log and in the
        same partitions, the new set has all of that, if it is nowhere behind. But if it's of
        another log, or of one that ends earlier, events that are still to come to it may lie
        before the offset; and another number of partitions is another topic, or another meaning
        of it. Then partitions are read from the beginning, and positions sort out what is there.
        """
        cursor.execute(
            "SELECT count(*) FROM origin WHERE projection LIKE %s AND store_epoch <> %s",
            [f"{self._projection.name}/%", str(shadow.epoch)],
        )
        other_log = bool(cursor.fetchall()[0][0])
        same = {partition for _, partition, _ in live} == set(range(self._partitions))
        behind = any(position > shadow.position() for _, _, position in live)
        return other_log or behind or not same


def _for_want_of_disk(error: BaseException) -> bool:
    """Then what is there is in the way."""
    return isinstance(error, DiskFull) or "DiskFull" in str(error)
