"""Sums over a period table for any two times, from sums that were made before.

A row is a rectangle: true in [valid_from, valid_to), known in [known_from, known_to). It counts at
the moment (T, K) if the point lies in it, so a sum over the rows that do is a sum over corners with
valid ≤ T and known ≤ K: + for (valid_from, known_from) and (valid_to, known_to), − for the other
two. This holds row by row, as [from ≤ x < to] = [from ≤ x] − [to ≤ x] in both times.

Corners of the positions that all partitions have passed never change. So they are summed up once,
by blocks of positions, months and days; sixteen blocks make one of the next level, and both
stay. A question adds few blocks of few spans, and reads rows only for what lies behind the last
whole block, and for the part of a day up to T. Their keys are found by the facts: `known_*` are
positions of facts of the key, `valid_*` times at which some occurred.

What is summed up and what is not yet makes no difference to an answer, only to how long it takes.
Blocks are summed up by whichever process comes to it (`Summarizer`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.postgres import Pool
from projections.projection import Fold, PeriodTable, Projection, Summary
from projections.reading import NEWEST, Connection, Moment, fetch_one, truth
from projections.writing import use_schema

POSITIONS = 2_048
"""Positions of the log in a block of level 0."""

FANOUT = 16
"""Blocks of a level in one of the next."""

_TAIL = 8
"""Blocks not yet summed up that a question reads row by row; from more, all rows are read."""

_BUSY_DAY = 30_000
"""Facts in a part of a day that a question reads row by row; from more, all rows are read."""

_AT_ONCE = 64
"""Blocks that one transaction sums up."""

_CORNERS = """CROSS JOIN LATERAL (VALUES (1, valid_from, known_from), (-1, valid_to, known_from),
    (-1, valid_from, known_to), (1, valid_to, known_to)) AS corner(sign, valid, known)"""


# ---- reading ----


def net(
    connection: Connection,
    moment: Moment,
    fold: type[Fold],
    table: PeriodTable,
    where: str = "true",
) -> str:
    """A query that gives, by the summary's dimensions, `rows` and the measures over the rows true
    and known at the moment; for a FROM, in parentheses, to be run in the same snapshot.

    `where` is a condition on the dimensions. The query takes the moment's parameters. Rows are
    grouped by the dimensions, and groups without any left out.
    """
    summary = _summary(table)
    whole = _whole_blocks(connection, moment, fold, table)
    if whole is None:
        return _plain(moment, table, where)
    before, through = whole
    latest = moment.latest and moment.known_at is None
    recent = f"position > {through}"
    true = _between("valid", "< 'infinity'" if latest else "<= %(as_of)s")
    if moment.known_at is None:
        learnt = _between("known", f"> {through}", f"< {NEWEST}")
    else:
        recent += " AND position <= %(known_at)s"
        learnt = _between("known", f"> {through}", "<= %(known_at)s")
    parts = [_of_rows(fold, table, where, recent, true, learnt)]
    if before:
        parts.append(_of_cells(table, where, before, latest))
    if before and not latest:
        today = f"occurred_at >= {_DAY} AND occurred_at <= %(as_of)s AND position <= {through}"
        true = _between("valid", f">= {_DAY}", "<= %(as_of)s")
        learnt = _between("known", f"<= {through}")
        parts.append(_of_rows(fold, table, where, today, true, learnt))
    names = _names(summary)
    grouped = f" GROUP BY {', '.join(names)}" if names else ""
    sums = ", ".join(
        ("sum(rows)::bigint AS rows", *(f"sum({m.name}) AS {m.name}" for m in summary.measures))
    )
    return (
        f"SELECT {_listed(names)}{sums} FROM ({' UNION ALL '.join(parts)}) AS part"
        f"{grouped} HAVING sum(rows) <> 0"
    )


_DAY = "(date_trunc('day', %(as_of)s::timestamptz AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')"
_DATE = "date_trunc('day', %(as_of)s::timestamptz AT TIME ZONE 'UTC')::date"
_MONTH = "date_trunc('month', %(as_of)s::timestamptz AT TIME ZONE 'UTC')::date"


def _whole_blocks(
    connection: Connection, moment: Moment, fold: type[Fold], table: PeriodTable
) -> tuple[list[tuple[int, int]], int] | None:
    """The blocks (level, number) to add, and the position up to which they reach; None where it is
    better to read all rows."""
    kept = fetch_one(
        connection,
        f"""SELECT through, positions, furthest,
                (SELECT count(*) FROM (
                    SELECT FROM {fold.facts.name} WHERE occurred_at >= {_DAY}
                    AND occurred_at <= %(as_of)s LIMIT {_BUSY_DAY + 1}) AS fact) AS today
            FROM summarised, LATERAL (
                SELECT max(position) AS furthest FROM position
                WHERE position.projection = summarised.projection) AS reached
            WHERE table_name = %(table)s""",
        {**moment.parameters(), "table": table.name},
    )
    if kept is None or kept["furthest"] is None:
        return None
    positions: int = kept["positions"]
    end = kept["furthest"] if moment.known_at is None else moment.known_at
    through = min(kept["through"], max(end, 0) // positions * positions)
    if min(end, kept["furthest"]) - through > _TAIL * positions:
        return None
    if kept["today"] > _BUSY_DAY and not (moment.latest and moment.known_at is None):
        return None
    return list(_blocks(through, positions)), through


def _blocks(through: int, positions: int) -> Iterator[tuple[int, int]]:
    """The fewest whole blocks (level, number) that make up the positions 1 to `through`."""
    level = 0
    while positions * FANOUT ** (level + 1) <= through:
        level += 1
    reached = 0
    for below in range(level, -1, -1):
        size = positions * FANOUT**below
        while reached + size <= through:
            yield below, reached // size
            reached += size


def _plain(moment: Moment, table: PeriodTable, where: str) -> str:
    summary = _summary(table)
    names = _names(summary)
    grouped = f" GROUP BY {', '.join(names)}" if names else " HAVING count(*) > 0"
    sums = ", ".join(
        ("count(*) AS rows", *(f"sum({m.name}) AS {m.name}" for m in summary.measures))
    )
    return (
        f"SELECT {_listed(names)}{sums} FROM (SELECT {_columns(summary)} FROM {table.name}"
        f" WHERE ({summary.condition}) AND {truth(moment)}) AS row WHERE {where}{grouped}"
    )


def _between(time: str, *conditions: str) -> str:
    """+1 where only the beginning of a row meets the conditions, −1 where only its end does."""
    sides = (" AND ".join(f"{time}_{side} {c}" for c in conditions) for side in ("from", "to"))
    return " - ".join(f"({side})::int" for side in sides)


def _of_rows(
    fold: type[Fold], table: PeriodTable, where: str, facts: str, true: str, learnt: str
) -> str:
    """The corners that are between two times both ways, of the rows of those keys of which there
    are such facts."""
    summary, key = _summary(table), fold.key.name
    # OFFSET 0: key by key. The server, which takes rows of a key to lie apart, would at times
    # rather read the whole table.
    return f"""SELECT {_listed(_names(summary))}{_signed(summary)}
        FROM (SELECT DISTINCT {key} FROM {fold.facts.name} WHERE {facts}) AS touched
        CROSS JOIN LATERAL (
            SELECT {_columns(summary)}, ({true}) * ({learnt}) AS sign
            FROM {table.name} WHERE {table.name}.{key} = touched.{key}
            AND ({summary.condition}) OFFSET 0) AS row
        WHERE sign <> 0 AND ({where})"""


def _of_cells(
    table: PeriodTable, where: str, blocks: Iterable[tuple[int, int]], latest: bool
) -> str:
    summary = _summary(table)
    listed = ", ".join(f"({level}, {block}::bigint)" for level, block in blocks)
    columns = ", ".join((*_names(summary), "rows", *(m.name for m in summary.measures)))

    def cells(condition: str) -> str:
        return (
            f"SELECT {columns} FROM {table.sums} AS cell WHERE cell.level = whole.level"
            f" AND cell.block = whole.block AND {condition} AND ({where})"
        )

    months = cells("span = 'month'" if latest else f"span = 'month' AND since < {_MONTH}")
    days = cells(f"span = 'day' AND since >= {_MONTH} AND since < {_DATE}")
    both = months if latest else f"{months} UNION ALL {days}"
    return (
        f"SELECT cell.* FROM (VALUES {listed}) AS whole(level, block)"
        f" CROSS JOIN LATERAL ({both} OFFSET 0) AS cell"
    )


# ---- summing up ----


class Summarizer:
    """Sums up what all partitions of one projection have passed. Any number of processes may try:
    one at a time does it, the others have nothing to do."""

    def __init__(
        self,
        projection: Projection,
        pool: Pool,
        *,
        schema: str = "read",
        positions: int = POSITIONS,
        at_once: int = _AT_ONCE,
    ) -> None:
        """`positions` of the log make a block, `at_once` of which are summed up in one
        transaction. With another size than before, all is summed up anew."""
        self._projection = projection
        self._pool = pool
        self._schema = schema
        self._positions = positions
        self._at_once = at_once

    def step(self) -> int:
        """Sum up the next blocks of each table, each in a short transaction of its own; how many
        blocks, 0 when there are none. Raises what the database raises."""
        return sum(
            self._advance(fold, table)
            for fold in self._projection.folds
            for table in fold.periods
            if table.summary is not None
        )

    def _advance(self, fold: Fold, table: PeriodTable) -> int:
        with self._pool.connection() as connection, connection, connection.cursor() as cursor:
            use_schema(cursor, self._schema)
            through, end, same = self._next(cursor, table)
            if end <= through:
                return 0
            cursor.execute(
                "SELECT pg_try_advisory_xact_lock(hashtext(%s))",
                [_lock(self._schema, self._projection)],
            )
            if not cursor.fetchall()[0][0]:
                return 0
            through, end, same = self._next(cursor, table)
            # What a crash of the server may lose here is whole transactions, which are done again.
            cursor.execute("SET LOCAL synchronous_commit TO off; SET LOCAL work_mem TO '64MB'")
            if not same:
                cursor.execute(f"DELETE FROM {table.sums}")
            self._sum_up(cursor, fold, table, through, end)
            cursor.execute(
                "INSERT INTO summarised (projection, table_name, positions, through)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT (projection, table_name) DO UPDATE"
                " SET positions = excluded.positions, through = excluded.through",
                [self._projection.id, table.name, self._positions, end],
            )
            return (end - through) // self._positions

    def _next(self, cursor: Cursor, table: PeriodTable) -> tuple[int, int, bool]:
        """The positions between which blocks are to be summed up, and whether in blocks of the
        same size as before."""
        cursor.execute(
            "SELECT (SELECT min(position) FROM position WHERE projection = %s), positions, through"
            " FROM (SELECT) AS one LEFT JOIN summarised ON projection = %s AND table_name = %s",
            [self._projection.id, self._projection.id, table.name],
        )
        reached, positions, through = cursor.fetchall()[0]
        same = positions == self._positions
        start: int = through if same else 0
        whole = (reached or 0) // self._positions * self._positions
        return start, min(whole, start + self._at_once * self._positions), same

    def _sum_up(
        self, cursor: Cursor, fold: Fold, table: PeriodTable, through: int, end: int
    ) -> None:
        summary, size = _summary(table), self._positions
        cursor.execute(_days(fold, table, summary, size, through, end))
        cursor.execute(_months(table, summary, through // size, end // size))
        level = 1
        while through // (size * FANOUT) < end // (size * FANOUT):
            size *= FANOUT
            cursor.execute(_merged(table, summary, level, through // size, end // size))
            level += 1


def forget_from(cursor: Cursor, projection: Projection, schema: str, position: int) -> None:
    """Rows are about to change that were known from this position on: have the blocks summed up
    anew that it lies in or before. Nobody sums up until the transaction ends."""
    hold(cursor, projection, schema)
    for table in (t for fold in projection.folds for t in fold.periods if t.summary is not None):
        cursor.execute(
            "UPDATE summarised SET through = (%(position)s - 1) / positions * positions"
            " WHERE projection = %(id)s AND table_name = %(table)s AND through >= %(position)s"
            " RETURNING positions, through",
            {"position": position, "id": projection.id, "table": table.name},
        )
        for positions, through in cursor.fetchall():
            cursor.execute(
                f"DELETE FROM {table.sums}"
                f" WHERE (block + 1) * %s::bigint * power({FANOUT}, level)::bigint > %s",
                [positions, through],
            )


def hold(cursor: Cursor, projection: Projection, schema: str) -> None:
    """Wait for who sums up, and keep others from it until the transaction ends."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [_lock(schema, projection)])


def _lock(schema: str, projection: Projection) -> str:
    return f"{schema}.{projection.name} summaries"


def _days(
    fold: Fold, table: PeriodTable, summary: Summary, size: int, through: int, end: int
) -> str:
    key = fold.key.name
    # Of few blocks, the keys' rows are looked up; for many, the server may read all of them.
    fence = " OFFSET 0" if end - through <= _TAIL * size else ""
    return _insert(
        table,
        summary,
        "0",
        f"(known - 1) / {size}",
        "'day'",
        "(valid AT TIME ZONE 'UTC')::date",
        f"""(SELECT {_listed(_names(summary))}{_signed(summary)}, valid, known
            FROM (SELECT DISTINCT {key} FROM {fold.facts.name}
                WHERE position > {through} AND position <= {end}) AS touched
            CROSS JOIN LATERAL (
                SELECT {_columns(summary)}, valid_from, valid_to, known_from, known_to
                FROM {table.name} WHERE {table.name}.{key} = touched.{key}
                AND ({summary.condition})
                AND (known_from > {through} AND known_from <= {end}
                    OR known_to > {through} AND known_to <= {end}){fence}) AS row
            {_CORNERS}
            WHERE known > {through} AND known <= {end} AND valid < 'infinity') AS corner""",
    )


def _months(table: PeriodTable, summary: Summary, first: int, last: int) -> str:
    return _insert(
        table, summary, "0", "block", "'month'", "date_trunc('month', since)::date",
        f"{table.sums} WHERE level = 0 AND block >= {first} AND block < {last} AND span = 'day'",
    )  # fmt: skip


def _merged(table: PeriodTable, summary: Summary, level: int, first: int, last: int) -> str:
    return _insert(
        table, summary, str(level), f"block / {FANOUT}", "span", "since",
        f"{table.sums} WHERE level = {level - 1} AND block >= {first * FANOUT}"
        f" AND block < {last * FANOUT}",
    )  # fmt: skip


def _insert(
    table: PeriodTable,
    summary: Summary,
    level: str,
    block: str,
    span: str,
    since: str,
    source: str,
) -> str:
    names, measures = _names(summary), [m.name for m in summary.measures]
    columns = ", ".join(("level", "block", "span", "since", *names, "rows", *measures))
    sums = ", ".join(f"sum({name})" for name in ("rows", *measures))
    grouped = ", ".join(str(place) for place in range(1, 5 + len(names)))
    some = " OR ".join(f"sum({name}) <> 0" for name in ("rows", *measures))
    return (
        f"INSERT INTO {table.sums} ({columns}) SELECT {level}, {block}, {span}, {since},"
        f" {_listed(names)}{sums} FROM {source} GROUP BY {grouped} HAVING {some} ORDER BY {grouped}"
    )


# ---- columns ----


def _summary(table: PeriodTable) -> Summary:
    if table.summary is None:
        raise ValueError(f"{table.name} has no summary")
    return table.summary


def _names(summary: Summary) -> list[str]:
    return [dimension.name for dimension in summary.dimensions]


def _listed(names: list[str]) -> str:
    return "".join(f"{name}, " for name in names)


def _columns(summary: Summary) -> str:
    """Dimensions and measures of a row."""
    parts: list[Any] = [f"{d.sql} AS {d.name}" for d in summary.dimensions]
    parts += [f"coalesce({m.sql}, 0) AS {m.name}" for m in summary.measures]
    return ", ".join(parts) or "1 AS one"


def _signed(summary: Summary) -> str:
    return ", ".join(("sign AS rows", *(f"sign * {m.name} AS {m.name}" for m in summary.measures)))
