"""Two sets of tables, held against each other as known at one position.

What was known at a position never changes while both sets go on. So neither has to stand still,
nor is a row locked: the live projector does not notice.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from infra.postgres import Pool, quote
from projections.projection import (
    Column,
    Fold,
    PeriodTable,
    Projection,
    Summed,
    fact_columns,
    period_columns,
)
from projections.reading import NEWEST
from projections.summaries import FANOUT

_SHOWN = 5


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
class _Part:
    """A table as known at a position: a SELECT, but for the schema. `columns` can be hashed, and
    what is hashed alike reads alike."""

    table: str
    columns: str
    where: str

    def of(self, schema: str) -> str:
        return f"SELECT {self.columns} FROM {quote(schema)}.{self.table} WHERE {self.where}"


def compare(
    pool: Pool, projection: Projection, *, live: str, new: str, at: int, threads: int = 2
) -> list[Compared]:
    """All tables of both sets as known at position `at`, which both have reached: rows counted,
    and summed up by a hash; sums as far as both have them in blocks of the same size."""
    parts = [
        *(part for fold in projection.folds for part in _of_fold(fold, at)),
        *_of_sums(pool, projection, live, new, at),
    ]
    with ThreadPoolExecutor(threads, "compare") as both:
        sums = [
            [both.submit(_summed, pool, part.of(schema)) for schema in (live, new)]
            for part in parts
        ]
        found = [[one.result() for one in pair] for pair in sums]
    compared = []
    for part, ((rows, digest), (new_rows, new_digest)) in zip(parts, found, strict=True):
        same = (rows, digest) == (new_rows, new_digest)
        differing = [] if same else _difference(pool, part.of(live), part.of(new))
        compared.append(Compared(part.table, rows, new_rows, same, differing))
    return compared


def _of_fold(fold: Fold, at: int) -> Iterator[_Part]:
    own = {column.name: column for column in fold.facts.columns}
    columns = (_hashed(name, own.get(name)) for name in fact_columns(fold))
    yield _Part(fold.facts.name, ", ".join(columns), f"position <= {at}")
    for table in fold.periods:
        yield _Part(table.name, _as_known(fold, table, at), f"known_from <= {at}")


def _as_known(fold: Fold, table: PeriodTable, at: int) -> str:
    own = {column.name: column for column in (*table.item, *table.values)}
    *names, _ = period_columns(fold, table)
    closed = f"CASE WHEN known_to <= {at} THEN known_to ELSE {NEWEST} END AS known_to"
    return ", ".join((*(_hashed(name, own.get(name)) for name in names), closed))


def _hashed(name: str, column: Column | Summed | None) -> str:
    """1.0 and 1.00 have the same hash, JSON has none; their texts have."""
    kind = "" if column is None else column.type.split()[0]
    return f"{name}::text AS {name}" if kind in ("numeric", "json", "jsonb") else name


def _of_sums(pool: Pool, projection: Projection, live: str, new: str, at: int) -> Iterator[_Part]:
    tables = {t.name: t for fold in projection.folds for t in fold.periods if t.summary is not None}
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT table_name, one.positions, least(one.through, other.through, %s)"
            f" FROM {quote(live)}.summarised AS one JOIN {quote(new)}.summarised AS other"
            " USING (projection, table_name, positions)"
            " WHERE projection = %s AND table_name = ANY(%s) ORDER BY table_name",
            [at, projection.id, sorted(tables)],
        )
        for name, positions, through in cursor.fetchall():
            columns = _of_summary(tables[name])
            whole = f"(block + 1) * {positions} * power({FANOUT}, level)::bigint <= {through}"
            yield _Part(tables[name].sums, columns, whole)


def _of_summary(table: PeriodTable) -> str:
    summary = table.summary
    if summary is None:
        raise ValueError(f"{table.name} has no summary")
    own = (_hashed(one.name, one) for one in (*summary.dimensions, *summary.measures))
    return ", ".join(("level", "block", "span", "since", "rows", *own))


def _summed(pool: Pool, source: str) -> tuple[int, int]:
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(sum(hash_record_extended(row, 0)::numeric), 0)"
            f" FROM ({source}) AS row"
        )
        rows, digest = cursor.fetchall()[0]
    return rows, digest


def _difference(pool: Pool, live: str, new: str) -> list[str]:
    one, other = (f"SELECT row::text FROM ({source}) AS row" for source in (live, new))
    found = []
    with pool.connection() as connection, connection.cursor() as cursor:
        for name, query in (
            ("live", f"{one} EXCEPT ALL {other}"),
            ("rebuilt", f"{other} EXCEPT ALL {one}"),
        ):
            cursor.execute(f"{query} ORDER BY 1 LIMIT {_SHOWN}")
            found += [f"{name}: {row[0]}" for row in cursor.fetchall()]
    return found
