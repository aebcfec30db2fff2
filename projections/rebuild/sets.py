"""The sets of tables beside the live one: the new one that is being filled, and the former one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.eventstore.feed import Head
from infra.postgres import Pool, quote
from projections import origin
from projections.projection import Projection
from projections.writing import make_tables

SHARED = ("position", "parked", "applied", "origin", "summarised")
"""The tables that all projections share, of which each set has its own."""

_SOURCES = Path(__file__).parents[2]
_MAKE_ROWS = ("domain", "infra/eventstore", "infra/migrations/read", "projections")


class RebuildRunning(RuntimeError):
    """Another process rebuilds this projection just now."""


def shadow_schema(projection: Projection, schema: str = "read") -> str:
    """Where a rebuild of the tables in `schema` puts the new set."""
    return f"{_prefix(schema)}shadow_{projection.name}"


def former_schema(projection: Projection, schema: str = "read") -> str:
    """Where the set is kept whose place a rebuild took."""
    return f"{_prefix(schema)}former_{projection.name}"


def _prefix(schema: str) -> str:
    return "" if schema == "read" else f"{schema}_"


def begin(
    cursor: Cursor, projection: Projection, head: Head, *, schema: str, partitions: int
) -> bool:
    """Have a new set: one that an interrupted rebuild left is gone on with (True), if the same
    program filled it from the same log for as many partitions; else an empty one is made.

    A set in which keys wait is made anew, too: the log may have been mended since.
    """
    shadow, mark = shadow_schema(projection, schema), _mark(projection, head, partitions)
    cursor.execute("SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", [quote(shadow)])
    if cursor.fetchall()[0][0] == mark:
        cursor.execute(
            f"SELECT NOT EXISTS (SELECT FROM {quote(shadow)}.parked)"
            f" AND (SELECT max(position) FROM {quote(shadow)}.position) BETWEEN 1 AND %s",
            [head.position],
        )
        if cursor.fetchall()[0][0]:
            return True
    drop(cursor, shadow)
    cursor.execute(f"CREATE SCHEMA {quote(shadow)}")
    for table in SHARED:
        cursor.execute(
            f"CREATE TABLE {quote(shadow)}.{table} (LIKE {quote(schema)}.{table} INCLUDING ALL)"
        )
    make_tables(cursor, projection, shadow, indexes=False)
    cursor.execute(
        "INSERT INTO position (projection, partition, position)"
        " SELECT %s, number, 0 FROM generate_series(0, %s) AS number",
        [projection.id, partitions - 1],
    )
    origin.adopt(cursor, projection, head)
    cursor.execute(f"COMMENT ON SCHEMA {quote(shadow)} IS %s", [mark])
    return False


def _mark(projection: Projection, head: Head, partitions: int) -> str:
    return f"{projection.id} of {head.epoch} in {partitions} partitions by {_program()}"


@cache
def _program() -> str:
    """Tells programs apart that may make other rows of the same log."""
    digest = hashlib.sha256()
    for part in _MAKE_ROWS:
        for path in sorted((_SOURCES / part).rglob("*.*")):
            if path.suffix in (".py", ".sql"):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def size(cursor: Cursor, schema: str) -> int | None:
    """The bytes that the tables of a set take; None if it is not there."""
    cursor.execute(
        "SELECT (SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class"
        " WHERE relnamespace = pg_namespace.oid AND relkind = 'r')"
        " FROM pg_namespace WHERE nspname = %s",
        [schema],
    )
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def unfinished_size(cursor: Cursor, projection: Projection, schema: str = "read") -> int | None:
    """The size of the new set that is being filled or was left unfinished, if there is one."""
    return size(cursor, shadow_schema(projection, schema))


def clean(pool: Pool, projection: Projection, schema: str = "read") -> None:
    """Drop what an interrupted rebuild left; one that is running is left alone."""
    shadow = shadow_schema(projection, schema)
    with only_one(pool, shadow) as free:
        if free:
            with pool.connection() as connection, connection, connection.cursor() as cursor:
                drop(cursor, shadow)


def drop(cursor: Cursor, schema: str) -> None:
    """Drop a set, if it is there."""
    cursor.execute("SET LOCAL client_min_messages TO warning")
    cursor.execute(f"DROP SCHEMA IF EXISTS {quote(schema)} CASCADE")


@contextmanager
def alone(pool: Pool, projection: Projection, schema: str) -> Iterator[None]:
    """Nobody else rebuilds this projection while it is entered. Raises RebuildRunning."""
    with only_one(pool, shadow_schema(projection, schema)) as free:
        if not free:
            raise RebuildRunning(f"{projection.name} is being rebuilt by another process")
        yield


@contextmanager
def only_one(pool: Pool, shadow: str) -> Iterator[bool]:
    """Whether no other session rebuilds into this schema; if so, none can meanwhile."""
    with pool.connection() as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [shadow])
            free = bool(cursor.fetchall()[0][0])
        try:
            yield free
        finally:
            if free and not connection.closed:
                with connection, connection.cursor() as cursor:
                    cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [shadow])
