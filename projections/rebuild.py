"""Filling a read model anew, from the log, beside the live one; then taking its place at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from psycopg2.errors import LockNotAvailable
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.postgres import Pool, quote
from projections import offsets, origin
from projections.projection import Fold, PeriodTable, Projection, fact_columns, period_columns
from projections.projector import Feed, Projector
from projections.reading import NEWEST
from projections.summaries import POSITIONS, Summarizer, hold
from projections.writing import (
    drop_views,
    make_indexes,
    make_tables,
    make_views,
    use_schema,
)

log = structlog.get_logger(__name__)

_SHARED = ("position", "parked", "applied", "origin", "summarised")
"""The tables that all projections share, of which a rebuild fills its own."""

_BATCH = 15_000
_CACHED_FACTS = 60_000
_BLOCKS_AT_ONCE = 512
_SHOWN = 5
_SWAP_TRIES = 300
_SWAP_WAIT_MS = 100
_SWAP_PAUSE = 0.05

# Who took a snapshot before something came in, and looks for the tables only after the swap, would
# find the new ones without it: after the last writing, readers get this many seconds to have begun.
_SETTLE = 0.25


class ReadersInTheWay(RuntimeError):
    """Long queries kept the tables locked through all tries; the live tables are as they were."""


class RebuildRunning(RuntimeError):
    """Another process rebuilds this projection just now."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A table as the live set and the new one have it, at the same position.

    `differing`: the first rows that only one of the two has, as "live: …" or "rebuilt: …".
    """

    table: str
    live_rows: int
    rebuilt_rows: int
    same: bool
    differing: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found. `compared` is empty when the live set was of another version."""

    projection: str
    position: int
    seconds: float
    compared: list[Compared]

    @property
    def same(self) -> bool:
        """Whether the live set was what the log says (True where there was none to compare)."""
        return all(table.same for table in self.compared)


class Rebuild:
    """Rebuilds one projection. The live tables are read and written all the while.

    The new set stands in schema `shadow_<name>` with positions of its own. At the end the live
    projector is held up (its readers are not), the new set is brought to where it is, compared
    with it and moved into its place in one transaction. What an interrupted rebuild left is
    dropped at the next start.

    The new set is of the log that is there now, whatever log filled the live one, and however far
    that came: this is the way out of OtherLog and LogBehind.
    """

    def __init__(
        self,
        projection: Projection,
        feed: Feed,
        pool: Pool,
        *,
        partitions: int = 12,
        schema: str = "read",
        bi_schema: str | None = "bi",
        batch: int = _BATCH,
        block: int = POSITIONS,
        backwards: bool = False,
        on_progress: Callable[[int], None] = lambda position: None,
    ) -> None:
        """`block`: positions of the log in a block of the summaries. `backwards`: also where a
        later version of the program filled the live set. `on_progress` is told the position
        reached after each batch."""
        self._projection = projection
        self._feed = feed
        self._pool = pool
        self._partitions = partitions
        self._schema = schema
        self._bi_schema = bi_schema
        self._batch = batch
        self._block = block
        self._backwards = backwards
        self._on_progress = on_progress
        self.shadow = shadow_schema(projection, schema)
        self._written = time.monotonic()  # when something was last written to the new set

    def run(self) -> Rebuilt:
        """Fill, compare, swap. Raises RebuildRunning, ReadersInTheWay, NewerProgram, and what the
        database or the feed raises; the live set is then untouched."""
        started = time.monotonic()
        with _only_one(self._pool, self.shadow) as free:
            if not free:
                raise RebuildRunning(f"{self._projection.name} is being rebuilt by another process")
            try:
                position, compared = self._rebuild()
            finally:
                _drop(self._pool, self.shadow)
        return Rebuilt(self._projection.id, position, time.monotonic() - started, compared)

    def _rebuild(self) -> tuple[int, list[Compared]]:
        _drop(self._pool, self.shadow)
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            self._refuse_newer(cursor)
            self._make_shadow(cursor)
        shadow = Projector(
            self._projection,
            self._feed,
            self._pool,
            partitions=self._partitions,
            schema=self.shadow,
            bi_schema=None,
            batch=self._batch,
            cached_facts=_CACHED_FACTS,
        )
        try:
            self._catch_up(shadow)
            with self._pool.connection() as connection, connection, connection.cursor() as cursor:
                use_schema(cursor, self.shadow)
                make_indexes(cursor, self._projection)
                cursor.execute(f"ANALYZE {', '.join(self._projection.tables())}")
            self._sum_up()
            self._catch_up(shadow)
            with self._pool.connection() as connection, connection, connection.cursor() as cursor:
                compared = self._take_the_place(cursor, shadow)
            return shadow.position(), compared
        finally:
            shadow.close()

    def _catch_up(self, shadow: Projector) -> None:
        while shadow.step():
            self._written = time.monotonic()
            self._on_progress(shadow.position())

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
        for table in self._projection.sums():
            with self._pool.connection() as connection, connection.cursor() as cursor:
                cursor.execute(f"ANALYZE {quote(self.shadow)}.{table}")

    def _make_shadow(self, cursor: Cursor) -> None:
        cursor.execute(f"CREATE SCHEMA {quote(self.shadow)}")
        for table in _SHARED:
            cursor.execute(
                f"CREATE TABLE {quote(self.shadow)}.{table}"
                f" (LIKE {quote(self._schema)}.{table} INCLUDING ALL)"
            )
        make_tables(cursor, self._projection, self.shadow, indexes=False)
        cursor.execute(
            "INSERT INTO position (projection, partition, position)"
            " SELECT %s, number, 0 FROM generate_series(0, %s) AS number",
            [self._projection.id, self._partitions - 1],
        )

    def _take_the_place(self, cursor: Cursor, shadow: Projector) -> list[Compared]:
        """In one transaction: hold up the live projector, catch up, compare, swap."""
        use_schema(cursor, self._schema)
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtext(%s))",
            [f"{self._schema}.{self._projection.name}"],
        )
        cursor.execute(
            "SELECT projection, partition, position FROM position WHERE projection LIKE %s"
            " FOR UPDATE",
            [f"{self._projection.name}/%"],
        )
        partitions: list[tuple[str, int, int]] = cursor.fetchall()
        hold(cursor, self._projection, self._schema)
        self._refuse_newer(cursor)
        live = [(name, position) for name, _, position in partitions]
        if live:
            furthest = max(position for _, position in live)
            # A log that ends before the live set does ends this, too.
            while shadow.position() < furthest and shadow.step():
                self._written = time.monotonic()
            # Who knows how far the live set is summed up may find the new one in its place.
            self._sum_up()
            time.sleep(max(0.0, self._written + _SETTLE - time.monotonic()))
        compared: list[Compared] = []
        if live and {name for name, _ in live} == {self._projection.id}:
            at = min(*(position for _, position in live), shadow.position())
            compared = [self._compare(cursor, *one, at) for one in _columns(self._projection)]
        for attempt in range(_SWAP_TRIES):
            if self._locked(cursor, attempt):
                self._forget_hints(cursor, partitions, shadow)
                self._move(cursor)
                return compared
            time.sleep(_SWAP_PAUSE)
        raise ReadersInTheWay(f"{self._projection.id}: the tables stayed locked by readers")

    def _refuse_newer(self, cursor: Cursor) -> None:
        if self._backwards:
            return
        cursor.execute(
            f"SELECT DISTINCT projection FROM {quote(self._schema)}.position"
            " WHERE projection LIKE %s",
            [f"{self._projection.name}/%"],
        )
        origin.refuse_newer(self._projection, {row[0] for row in cursor.fetchall()})

    def _forget_hints(
        self, cursor: Cursor, live: list[tuple[str, int, int]], shadow: Projector
    ) -> None:
        """Forget where in the topic the live set was, unless that is right for the new one, too.

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
        if other_log or behind or not same:
            offsets.clear(cursor, self._projection.name)

    def _locked(self, cursor: Cursor, attempt: int) -> bool:
        """Try to have the live tables for ourselves.

        Gives up soon, since readers that come later wait for us. A reader that holds one table
        and wants another that we have already would wait for ever: so the order, in which readers
        mostly take them first, differs from try to try.
        """
        order = self._in_the_way(cursor)
        if not order:
            return True
        turn = attempt % len(order)
        tables = ", ".join((*order[turn:], *order[:turn]))
        cursor.execute(f"SET LOCAL lock_timeout TO {_SWAP_WAIT_MS}")
        cursor.execute("SAVEPOINT swap")
        try:
            cursor.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
        except LockNotAvailable:
            cursor.execute("ROLLBACK TO SAVEPOINT swap")
            return False
        finally:
            cursor.execute("SET LOCAL lock_timeout TO DEFAULT")
        return True

    def _in_the_way(self, cursor: Cursor) -> list[str]:
        """The live views and tables there are, in the order in which readers mostly take them."""
        tables = [
            name
            for fold in reversed(self._projection.folds)
            for name in (
                *(table.sums for table in fold.periods if table.summary is not None),
                *(table.name for table in fold.periods),
                fold.facts.name,
            )
        ]
        wanted = [f"{quote(self._schema)}.{name}" for name in tables]
        if self._bi_schema is not None:
            views = (quote(view.name) for view in self._projection.views)
            wanted = [*(f"{quote(self._bi_schema)}.{view}" for view in views), *wanted]
        cursor.execute(
            "SELECT name FROM unnest(%s) AS name WHERE to_regclass(name) IS NOT NULL", [wanted]
        )
        there = {row[0] for row in cursor.fetchall()}
        return [name for name in wanted if name in there]

    def _move(self, cursor: Cursor) -> None:
        live, new = quote(self._schema), quote(self.shadow)
        if self._bi_schema is not None:
            drop_views(cursor, self._projection, read=self._schema, bi=self._bi_schema)
        for table in (*self._projection.tables(), *self._projection.sums()):
            cursor.execute(f"DROP TABLE IF EXISTS {live}.{table}")
            cursor.execute(f"ALTER TABLE {new}.{table} SET SCHEMA {live}")
        if self._bi_schema is not None:
            make_views(cursor, self._projection, read=self._schema, bi=self._bi_schema)
        like = [f"{self._projection.name}/%"]
        for table in _SHARED:
            cursor.execute(f"DELETE FROM {live}.{table} WHERE projection LIKE %s", like)
            cursor.execute(f"INSERT INTO {live}.{table} SELECT * FROM {new}.{table}")

    def _compare(
        self, cursor: Cursor, table: str, columns: list[str], where: str, at: int
    ) -> Compared:
        """Both sets as known at position `at`: rows counted and summed up by a hash."""
        listed = ", ".join(columns)
        sources = [
            f"SELECT {listed} FROM {quote(schema)}.{table} {where}"
            for schema in (self._schema, self.shadow)
        ]
        parameters = {"at": at}
        sums: list[Any] = []
        for source in sources:
            cursor.execute(
                "SELECT count(*), coalesce(sum(hashtextextended(row::text, 0)::numeric), 0)"
                f" FROM ({source}) AS row",
                parameters,
            )
            sums.append(cursor.fetchone())
        (live_rows, live_sum), (new_rows, new_sum) = sums
        same = (live_rows, live_sum) == (new_rows, new_sum)
        differing = [] if same else _difference(cursor, sources, parameters)
        return Compared(table, live_rows, new_rows, same, differing)


def _difference(cursor: Cursor, sources: list[str], parameters: dict[str, int]) -> list[str]:
    live, new = (f"SELECT row::text FROM ({source}) AS row" for source in sources)
    found = []
    for name, query in (
        ("live", f"{live} EXCEPT ALL {new}"),
        ("rebuilt", f"{new} EXCEPT ALL {live}"),
    ):
        cursor.execute(f"{query} ORDER BY 1 LIMIT {_SHOWN}", parameters)
        found += [f"{name}: {row[0]}" for row in cursor.fetchall()]
    return found


def _columns(projection: Projection) -> list[tuple[str, list[str], str]]:
    """(table, columns as known at position %(at)s, condition that a row was known) of each."""
    return [one for fold in projection.folds for one in _fold_columns(fold)]


def _fold_columns(fold: Fold) -> list[tuple[str, list[str], str]]:
    tables = [(fold.facts.name, fact_columns(fold), "WHERE position <= %(at)s")]
    for table in fold.periods:
        tables.append((table.name, _at(fold, table), "WHERE known_from <= %(at)s"))
    return tables


def _at(fold: Fold, table: PeriodTable) -> list[str]:
    closed = f"CASE WHEN known_to <= %(at)s THEN known_to ELSE {NEWEST} END AS known_to"
    return [*period_columns(fold, table)[:-1], closed]


def shadow_schema(projection: Projection, schema: str = "read") -> str:
    """Where a rebuild of the tables in `schema` puts the new set."""
    prefix = "" if schema == "read" else f"{schema}_"
    return f"{prefix}shadow_{projection.name}"


def clean(pool: Pool, projection: Projection, schema: str = "read") -> None:
    """Drop what an interrupted rebuild left; one that is running is left alone."""
    shadow = shadow_schema(projection, schema)
    with _only_one(pool, shadow) as free:
        if free:
            _drop(pool, shadow)


def _drop(pool: Pool, shadow: str) -> None:
    with pool.connection() as connection, connection, connection.cursor() as cursor:
        cursor.execute("SET LOCAL client_min_messages TO warning")
        cursor.execute(f"DROP SCHEMA IF EXISTS {quote(shadow)} CASCADE")


@contextmanager
def _only_one(pool: Pool, shadow: str) -> Iterator[bool]:
    """Whether no other session rebuilds into this schema; if so, none can meanwhile."""
    with pool.connection() as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [shadow])
            free = bool(cursor.fetchall()[0][0])
        try:
            yield free
        finally:
            if free:
                with connection, connection.cursor() as cursor:
                    cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [shadow])
