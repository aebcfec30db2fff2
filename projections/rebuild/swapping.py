"""One set of tables takes the place of the live one, which is kept, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from psycopg2.errors import LockNotAvailable
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.crashpoints import reach
from infra.eventstore.feed import Head
from infra.postgres import Pool, quote
from projections import origin
from projections.origin import LogBehind, NewerProgram, OtherLog, RebuildNeeded
from projections.projection import Projection
from projections.rebuild.sets import SHARED, alone, drop, former_schema, size
from projections.summaries import hold
from projections.writing import drop_views, make_views, use_schema

_TRIES = 300
_WAIT_MS = 100
_PAUSE = 0.05

_OF_PROJECTION = "split_part(projection, '/', 1) = %s"
_KEPT = (*SHARED, "kafka_offset")
"""What is kept with a former set, so that it can be gone on with."""


class ReadersInTheWay(RuntimeError):
    """Long queries kept the tables locked through all tries; the live tables are as they were."""


class NoWayBack(RuntimeError):
    """There is no former set, or not one that this program can go on with from this log."""


@dataclass(frozen=True, slots=True)
class Former:
    """A kept set: what it is, where it was left, and its size in bytes."""

    id: str
    position: int
    kept_since: datetime
    size: int


def hold_live(cursor: Cursor, projection: Projection, schema: str) -> list[tuple[str, int, int]]:
    """Hold up the live set's projector until the transaction ends; its positions."""
    use_schema(cursor, schema)
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"{schema}.{projection.name}"])
    cursor.execute(
        "SELECT projection, partition, position FROM position WHERE projection LIKE %s FOR UPDATE",
        [f"{projection.name}/%"],
    )
    partitions: list[tuple[str, int, int]] = cursor.fetchall()
    hold(cursor, projection, schema)
    return partitions


class Swap:
    """Puts the set of another schema into the live one's place, in the caller's transaction."""

    def __init__(self, projection: Projection, schema: str, bi_schema: str | None) -> None:
        self._projection = projection
        self._schema = schema
        self._bi_schema = bi_schema
        self._former = former_schema(projection, schema)
        self._names = (*projection.tables(), *projection.sums())

    def lock(self, cursor: Cursor) -> None:
        """Have the live tables for ourselves. Raises ReadersInTheWay."""
        for attempt in range(_TRIES):
            if self._locked(cursor, attempt):
                return
            time.sleep(_PAUSE)
        raise ReadersInTheWay(f"{self._projection.id}: the tables stayed locked by readers")

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
        cursor.execute(f"SET LOCAL lock_timeout TO {_WAIT_MS}")
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

    def put(self, cursor: Cursor, coming: str) -> None:
        """Exchange the sets: what is live becomes the former set, in the place of the one there."""
        reach("rebuild.in_swap")
        if self._bi_schema is not None:
            drop_views(cursor, self._projection, read=self._schema, bi=self._bi_schema)
        leaving = f"{self._former}_new"
        kept = self._leave(cursor, leaving)
        self._come(cursor, coming)
        for gone in {coming, self._former}:
            drop(cursor, gone)
        if kept:
            cursor.execute(f"ALTER SCHEMA {quote(leaving)} RENAME TO {quote(self._former)}")
        if self._bi_schema is not None:
            make_views(cursor, self._projection, read=self._schema, bi=self._bi_schema)
        reach("rebuild.swapped")

    def _leave(self, cursor: Cursor, leaving: str) -> bool:
        """Move what is live aside; whether there was anything."""
        live, away, name = quote(self._schema), quote(leaving), self._projection.name
        cursor.execute(
            "SELECT min(projection), min(position), transaction_timestamp()"
            f" FROM {live}.position WHERE {_OF_PROJECTION}",
            [name],
        )
        id_, position, now = cursor.fetchall()[0]
        if id_ is not None:
            cursor.execute(f"CREATE SCHEMA {away}")
            said = f"{id_} at {position} since {now.isoformat()}"
            cursor.execute(f"COMMENT ON SCHEMA {away} IS %s", [said])
            for table in _KEPT:
                cursor.execute(f"CREATE TABLE {away}.{table} (LIKE {live}.{table} INCLUDING ALL)")
                cursor.execute(
                    f"INSERT INTO {away}.{table} SELECT * FROM {live}.{table}"
                    f" WHERE {_OF_PROJECTION}",
                    [name],
                )
        for table in self._there(cursor, self._schema):
            # Tables without a position were never filled.
            change = f"DROP TABLE {live}.{table}"
            if id_ is not None:
                change = f"ALTER TABLE {live}.{table} SET SCHEMA {away}"
            cursor.execute(change)
        return id_ is not None

    def _come(self, cursor: Cursor, coming: str) -> None:
        live, new, name = quote(self._schema), quote(coming), self._projection.name
        for table in self._there(cursor, coming):
            cursor.execute(f"ALTER TABLE {new}.{table} SET SCHEMA {live}")
        for table in _KEPT:
            # By name: a set may be of before a migration that added some.
            cursor.execute(
                "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
                " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
                [f"{new}.{table}"],
            )
            columns = cursor.fetchall()[0][0]
            if columns is not None:
                cursor.execute(f"DELETE FROM {live}.{table} WHERE {_OF_PROJECTION}", [name])
                cursor.execute(
                    f"INSERT INTO {live}.{table} ({columns}) SELECT {columns} FROM {new}.{table}"
                )

    def _there(self, cursor: Cursor, schema: str) -> list[str]:
        """Those of the set's tables that the schema has."""
        cursor.execute(
            "SELECT name FROM unnest(%s) AS name WHERE to_regclass(%s || name) IS NOT NULL",
            [list(self._names), f"{quote(schema)}."],
        )
        there = {row[0] for row in cursor.fetchall()}
        return [name for name in self._names if name in there]

    def missing(self, cursor: Cursor, schema: str) -> list[str]:
        """Those that it does not have."""
        there = self._there(cursor, schema)
        return [name for name in self._names if name not in there]


# ---- the former set ----


def former(cursor: Cursor, projection: Projection, schema: str = "read") -> Former | None:
    """The set that is kept, if there is one."""
    name = former_schema(projection, schema)
    bytes_there = size(cursor, name)
    if bytes_there is None:
        return None
    cursor.execute("SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", [quote(name)])
    said, _, since = (cursor.fetchall()[0][0] or "").partition(" since ")
    id_, _, position = said.partition(" at ")
    return Former(id_, int(position or 0), datetime.fromisoformat(since), bytes_there)


def back(
    projection: Projection,
    pool: Pool,
    head: Callable[[], Head],
    *,
    partitions: int,
    schema: str = "read",
    bi_schema: str | None = "bi",
) -> Former:
    """Put the former set into the live one's place again, which becomes the former one: so twice
    is as before. Projectors go on from where it was left.

    Raises NoWayBack, RebuildRunning and ReadersInTheWay; the live set is then untouched.
    """
    swap, name = Swap(projection, schema, bi_schema), former_schema(projection, schema)
    with (
        alone(pool, projection, schema),
        pool.connection() as connection,
        connection,
        connection.cursor() as cursor,
    ):
        hold_live(cursor, projection, schema)
        kept = former(cursor, projection, schema)
        if kept is None:
            raise NoWayBack(f"{projection.name}: no former set is kept")
        use_schema(cursor, name)
        _demand_fitting(cursor, projection, partitions, head)
        if lost := swap.missing(cursor, name):
            raise NoWayBack(f"{kept.id}: the former set is not whole, {', '.join(lost)} is missing")
        use_schema(cursor, schema)
        swap.lock(cursor)
        swap.put(cursor, name)
        # Who knew its rows before may not take them for known: they may have been changed since.
        use_schema(cursor, schema)
        cursor.execute(
            "UPDATE origin SET filled = gen_random_uuid() WHERE projection = %s", [projection.id]
        )
    return kept


def _demand_fitting(
    cursor: Cursor, projection: Projection, partitions: int, head: Callable[[], Head]
) -> None:
    """Raises NoWayBack unless the set in the search path's schema can be carried on."""
    try:
        origin.examined(cursor, projection, partitions, head)
    except NewerProgram:
        raise NoWayBack("a later version of the program filled the former set") from None
    except OtherLog:
        raise NoWayBack("another log filled the former set") from None
    except LogBehind:
        raise NoWayBack("the former set holds more than the log has") from None
    except RebuildNeeded as error:
        raise NoWayBack(f"of the former set, {error}") from None


def forget(projection: Projection, pool: Pool, schema: str = "read") -> Former | None:
    """Drop the former set; what it was, None where there was none. Raises RebuildRunning."""
    with (
        alone(pool, projection, schema),
        pool.connection() as connection,
        connection,
        connection.cursor() as cursor,
    ):
        kept = former(cursor, projection, schema)
        drop(cursor, former_schema(projection, schema))
    return kept
