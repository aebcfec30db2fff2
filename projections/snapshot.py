"""The views for BI, all at one position of the log.

Read models are carried on one apart from the other, so at no moment need they be equally far. But
their tables keep when each row was known: so of those that are ahead, what came later is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg2.errors
from psycopg2.extensions import connection as Connection  # noqa: N812  (it is a class)
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.postgres import quote
from projections.projection import Fold, Projection, View, period_columns
from projections.reading import NEWEST


class NotBuilt(RuntimeError):
    """A read model is not there, or another version of the program filled it."""


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """`type` as PostgreSQL writes it: bigint, numeric, timestamp with time zone, …"""

    name: str
    type: str
    comment: str | None


@dataclass(frozen=True, slots=True)
class BiView:
    name: str
    comment: str | None
    columns: tuple[ViewColumn, ...]


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a read model was: everything up to `position` was in its tables, and the events of
    `parked` keys were not."""

    id: str
    position: int
    parked: int


class Snapshot:
    """What `snapshot` opened: `reached` by name of the read model, and the views there are.

    Everything up to `position`, and nothing after it, is in the rows of `query`.
    """

    def __init__(
        self,
        reached: Mapping[str, Reached],
        position: int,
        even: bool,
        views: Sequence[BiView],
        projections: Iterable[Projection],
        read: str,
        bi: str,
    ) -> None:
        self.reached = reached
        self.position = position
        self.views = views
        self._even = even
        self._read = read
        self._bi = bi
        self._queries = {view.name: view for one in projections for view in one.views}
        self._tables = _tables_at(position, projections, read)

    def query(self, view: BiView) -> str:
        """A SELECT of all columns of the view, in order. To be run in the snapshot, with the
        schema of the read models' tables as search path."""
        made = self._queries.get(view.name)
        if self._even or made is None:
            return f"SELECT * FROM {quote(self._bi)}.{quote(view.name)}"
        named = ", ".join(quote(column) for column in made.columns)
        return f"WITH {self._tables} SELECT * FROM ({made.query}) AS made ({named})"


@contextmanager
def snapshot(
    connection: Connection,
    projections: Collection[Projection],
    *,
    read: str = "read",
    bi: str = "bi",
) -> Iterator[Snapshot]:
    """Begins a transaction on a connection in which none is open, and ends it.

    It may go on for hours: the tables stay locked against a rebuild's taking their place, and
    nothing else waits for it. Raises NotBuilt.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute(f"SET LOCAL search_path TO {quote(read)}")
            _lock(cursor, projections, bi)  # first: it is the first query that takes the snapshot
            reached, even = _reached(cursor, projections)
            views = _views(cursor, bi)
        position = min((one.position for one in reached.values()), default=0)
        yield Snapshot(reached, position, even, views, projections, read, bi)
    finally:
        connection.rollback()


def _lock(cursor: Cursor, projections: Iterable[Projection], bi: str) -> None:
    """Tables that took the place of others after the snapshot would be empty in it."""
    tables = [table for one in projections for table in one.tables()]
    views: list[View] = [view for one in projections for view in one.views]
    names = [*tables, *(f"{quote(bi)}.{quote(view.name)}" for view in views)]
    try:
        cursor.execute(f"LOCK TABLE {', '.join(names)} IN ACCESS SHARE MODE")
    except psycopg2.errors.UndefinedTable as error:
        missing = str(error).partition("\n")[0]
        raise NotBuilt(f"a read model has not been built yet: {missing}") from None


def _reached(cursor: Cursor, projections: Iterable[Projection]) -> tuple[dict[str, Reached], bool]:
    """And whether all partitions of all are at the same position."""
    cursor.execute(
        "SELECT projection, min(position), max(position),"
        " (SELECT count(DISTINCT key) FROM parked WHERE parked.projection = position.projection)"
        " FROM position GROUP BY projection"
    )
    found = {row[0]: row[1:] for row in cursor.fetchall()}
    reached: dict[str, Reached] = {}
    ends: set[int] = set()
    for one in projections:
        if one.id not in found:
            there = ", ".join(sorted(id_ for id_ in found if id_.startswith(f"{one.name}/")))
            raise NotBuilt(f"{there or 'nothing'} is there, {one.id} is wanted")
        least, most, parked = found[one.id]
        ends |= {least, most}
        reached[one.name] = Reached(one.id, least, parked)
    return reached, len(ends) <= 1


def _views(cursor: Cursor, bi: str) -> list[BiView]:
    """Those that may be read, by name."""
    cursor.execute(
        "SELECT c.relname, obj_description(c.oid, 'pg_class'), a.attname,"
        " format_type(a.atttypid, NULL), col_description(c.oid, a.attnum)"
        " FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0"
        " WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'v'"
        " AND has_table_privilege(c.oid, 'SELECT') ORDER BY c.relname, a.attnum",
        [quote(bi)],
    )
    rows = cursor.fetchall()
    comments = {row[0]: row[1] for row in rows}
    return [
        BiView(name, comment, tuple(ViewColumn(*row[2:]) for row in rows if row[0] == name))
        for name, comment in comments.items()
    ]


def _tables_at(position: int, projections: Iterable[Projection], read: str) -> str:
    """WITH-queries under the names of the tables, which hold what these held at the position."""
    parts = [
        f"{name} AS NOT MATERIALIZED ({select})"
        for one in projections
        for fold in one.folds
        for name, select in _fold_at(position, fold, quote(read))
    ]
    return ", ".join(parts)


def _fold_at(position: int, fold: Fold, read: str) -> Iterator[tuple[str, str]]:
    facts = fold.facts.name
    yield facts, f"SELECT * FROM {read}.{facts} WHERE position <= {position}"
    for table in fold.periods:
        *columns, _ = period_columns(fold, table)
        still = f"CASE WHEN known_to > {position} THEN {NEWEST} ELSE known_to END AS known_to"
        yield (
            table.name,
            f"SELECT {', '.join(columns)}, {still} FROM {read}.{table.name}"
            f" WHERE known_from <= {position}",
        )
