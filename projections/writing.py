"""Writing a batch's changes: one COPY per table for what is new, one UPDATE for what is closed; of
a small batch, all in one message to the server."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg2
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.postgres import quote
from projections.projection import (
    NULL,
    Changes,
    Entry,
    Fold,
    PeriodTable,
    Projection,
    entry_line,
    fact_columns,
    period_columns,
    quoted,
)
from projections.reading import NEWEST

_COPY_BUFFER = 1 << 18

_SMALL = 100
"""Rows up to which a batch goes as one message: each further one has to wait for its turn at the
interpreter, beside a busy API for longer than the server takes."""

# SQLSTATE classes in which the database refuses values, as against being unable to serve.
_REFUSALS = ("21", "22", "23", "54")


class StaleRows(RuntimeError):
    """The rows in the tables are not those that the key's facts lead to: somebody else wrote, or
    the fold was changed without a new version."""


def refused(error: BaseException) -> bool:
    """Whether the error is about the values of some row: bad text, a number out of range, …"""
    if isinstance(error, psycopg2.Error):
        return (error.pgcode or "")[:2] in _REFUSALS
    return isinstance(error, UnicodeEncodeError)


@dataclass(frozen=True, slots=True)
class Copy:
    """New rows of a table, as lines of COPY's text."""

    table: str
    columns: Sequence[str]
    lines: bytes
    rows: int

    def send(self, cursor: Cursor) -> None:
        cursor.copy_expert(
            f"COPY {self.table} ({', '.join(self.columns)}) FROM STDIN",
            io.BytesIO(self.lines),
            _COPY_BUFFER,
        )

    def insert(self, cursor: Cursor) -> bytes:
        """The same as an INSERT."""
        row = f"({', '.join(['%s'] * len(self.columns))})"
        lines = self.lines.decode().split("\n")[: self.rows]
        values = [value for line in lines for value in map(value_of, line.split("\t"))]
        written: bytes = cursor.mogrify(
            f"INSERT INTO {self.table} ({', '.join(self.columns)})"
            f" VALUES {', '.join([row] * self.rows)};",
            values,
        )
        return written


_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def value_of(field: str) -> str | None:
    """What COPY would read."""
    if field == NULL:
        return None
    if "\\" in field:
        return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), field)
    return field


@dataclass(frozen=True, slots=True)
class Close:
    """Rows of a period table that are no longer known: what finds each, and the position at which
    that was, in columns."""

    table: str
    names: Sequence[str]
    types: Sequence[str]
    columns: Sequence[str]
    rows: int

    def update(self, cursor: Cursor) -> bytes:
        """An UPDATE that returns a row for each."""
        arrays = ", ".join(f"%s::{kind}[]" for kind in (*self.types, "bigint"))
        matches = " AND ".join(f"row.{name} = gone.{name}" for name in self.names)
        written: bytes = cursor.mogrify(
            f"UPDATE {self.table} AS row SET known_to = gone.until"
            f" FROM unnest({arrays}) AS gone({', '.join(self.names)}, until)"
            f" WHERE {matches} AND row.known_to = {NEWEST} RETURNING 1",
            self.columns,
        )
        return written


Statements: TypeAlias = "list[Copy | Close]"


def statements(folds: Sequence[Fold], changes: Sequence[Changes]) -> Statements:
    """What writes the changes of each fold. From now on their rows count as written.

    Raises UnicodeEncodeError.
    """
    found: Statements = []
    for fold, change in zip(folds, changes, strict=True):
        if change.facts:
            found.append(_copy(fold.facts.name, fact_columns(fold), change.facts))
        lines: list[list[str]] = [[] for _ in fold.periods]
        for entry in change.added:
            lines[entry.row[0]].append(entry_line(entry))
            entry.written = True
        for number, table in enumerate(fold.periods):
            if lines[number]:
                found.append(_copy(table.name, period_columns(fold, table), lines[number]))
            closed = [entry for entry in change.closed if entry.row[0] == number]
            if closed:
                found.append(_close(fold, table, closed))
    return found


def send(cursor: Cursor, statements: Statements) -> None:
    """Raises psycopg2.Error, and StaleRows when a row to be closed is not there."""
    new = [statement for statement in statements if isinstance(statement, Copy)]
    closed = [statement for statement in statements if isinstance(statement, Close)]
    message: list[bytes] = []
    # COPY refuses the character U+0000 as a value like others; a literal cannot hold it.
    small = sum(each.rows for each in new) <= _SMALL
    if small and not any(b"\0" in each.lines for each in new):
        message += [each.insert(cursor) for each in new]
    else:
        for each in new:
            each.send(cursor)
    if closed:
        message.append(_all_closed(cursor, closed))
    if message:
        cursor.execute(b" ".join(message))
    if closed:
        (counts,) = cursor.fetchall()
        for part, found in zip(closed, counts, strict=True):
            if found != part.rows:
                raise StaleRows(f"{part.table}: {part.rows} rows to close, {found} found")


def _all_closed(cursor: Cursor, closed: Sequence[Close]) -> bytes:
    """One statement that gives a row: of each table, how many rows were found."""
    parts = [b"gone_%d AS (%b)" % (n, each.update(cursor)) for n, each in enumerate(closed)]
    counts = [b"(SELECT count(*) FROM gone_%d)" % n for n in range(len(closed))]
    return b"WITH %b SELECT %b" % (b", ".join(parts), b", ".join(counts))


def _copy(table: str, columns: Sequence[str], lines: list[str]) -> Copy:
    return Copy(table, columns, "\n".join([*lines, ""]).encode(), len(lines))


def _close(fold: Fold, table: PeriodTable, closed: Sequence[Entry]) -> Close:
    names = [fold.key.name, *(column.name for column in table.item), "valid_from", "known_from"]
    types = ["uuid", *(column.type.split()[0] for column in table.item), "timestamptz", "bigint"]
    columns: list[list[str]] = [
        [entry.key for entry in closed],
        *(
            list(part)
            for part in zip(*(e.row[1].split("\t") for e in closed if e.row[1]), strict=True)
        ),
        [entry.row[2] for entry in closed],
        [str(entry.known_from) for entry in closed],
        [str(entry.known_to) for entry in closed],
    ]
    return Close(table.name, names, types, [_array(column) for column in columns], len(closed))


def _array(values: Iterable[str]) -> str:
    """An array's literal; ids, numbers, times and words of our own need no quoting, but get it
    for the space in times."""
    return '{"' + '","'.join(values) + '"}'


def use_schema(cursor: Cursor, schema: str) -> None:
    """Look up unqualified names in this schema until the transaction ends."""
    cursor.execute(f"SET LOCAL search_path TO {quote(schema)}")


def for_a_batch(schema: str) -> str:
    """What a batch's transaction begins with: rows are looked up one by one. For a few thousand the
    server would otherwise read whole tables, as it knows little about tables that grow fast."""
    return (
        f"SET LOCAL search_path TO {quote(schema)}; SET LOCAL enable_hashjoin TO off;"
        " SET LOCAL enable_mergejoin TO off; SET LOCAL enable_seqscan TO off;"
    )


def make_tables(cursor: Cursor, projection: Projection, schema: str, *, indexes: bool) -> None:
    """The projection's tables in the schema, with read access for those roles that exist."""
    use_schema(cursor, schema)
    for statement in projection.ddl():
        cursor.execute(statement)
    if indexes:
        make_indexes(cursor, projection)
    for role in _roles(cursor, ("crm_reader",)):
        tables = (*projection.tables(), *projection.sums())
        cursor.execute(f"GRANT SELECT ON {', '.join(tables)} TO {quote(role)}")


def make_indexes(cursor: Cursor, projection: Projection) -> None:
    """The indexes besides the primary keys, in the search path's schema."""
    for statement in projection.indexes():
        cursor.execute(statement)


def make_views(cursor: Cursor, projection: Projection, *, read: str, bi: str) -> None:
    """The projection's views in schema `bi` on the tables in schema `read`, made anew."""
    use_schema(cursor, read)
    for view in projection.views:
        name = f"{quote(bi)}.{quote(view.name)}"
        cursor.execute(f"DROP VIEW IF EXISTS {name}")
        listed = ", ".join(quote(column) for column in view.columns)
        cursor.execute(f"CREATE VIEW {name} ({listed}) AS {view.query}")
        cursor.execute(f"COMMENT ON VIEW {name} IS {quoted(view.comment)}")
        for column, comment in view.columns.items():
            cursor.execute(f"COMMENT ON COLUMN {name}.{quote(column)} IS {quoted(comment)}")
        for role in _roles(cursor, ("bi_reader", "crm_bi", "crm_reader")):
            cursor.execute(f"GRANT SELECT ON {name} TO {quote(role)}")


def drop_views(cursor: Cursor, projection: Projection, *, read: str, bi: str) -> None:
    """Remove the projection's views, and those that an earlier version had on its tables."""
    cursor.execute(
        "SELECT DISTINCT view.relname FROM pg_depend AS uses"
        " JOIN pg_rewrite ON pg_rewrite.oid = uses.objid"
        " JOIN pg_class AS view ON view.oid = pg_rewrite.ev_class"
        " JOIN pg_class AS used ON used.oid = uses.refobjid"
        " WHERE view.relnamespace = to_regnamespace(%s) AND view.relkind = 'v'"
        " AND used.relnamespace = to_regnamespace(%s) AND used.relname = ANY(%s)",
        [quote(bi), quote(read), projection.tables()],
    )
    former = {row[0] for row in cursor.fetchall()}
    for name in sorted(former | {view.name for view in projection.views}):
        cursor.execute(f"DROP VIEW IF EXISTS {quote(bi)}.{quote(name)}")


def _roles(cursor: Cursor, wanted: Sequence[str]) -> list[str]:
    cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(wanted)])
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return sorted(row[0] for row in rows)
