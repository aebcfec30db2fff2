"""The log or a part of it, in order of position, batch by batch.

Each batch is read on a pooled connection that is given back before the batch is handed on: who
takes long over one keeps no connection, no transaction and no lock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from infra.history.lines import COLUMNS, Row, rows_of
from infra.postgres import Pool

BATCH: Final = 1_000
"""Events in memory at once, at most."""
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Of their bodies, with one more at most."""

_FOUND: Final = 10_000
"""Positions that a look for matching events brings."""
_WINDOW: Final = 50_000
"""Positions that the first look goes through; the next ones through more, as long as they find
little. So no statement takes long where there is much, nor are there many where there is little."""

_MICROSECOND: Final = timedelta(microseconds=1)

_BATCH_OF: Final = f"""
SELECT {COLUMNS} FROM (
    SELECT *, sum(octet_length(state)) OVER (ORDER BY position) - octet_length(state) AS before
    FROM events WHERE {{which}}
) AS counted
WHERE before < {BATCH_BYTES} ORDER BY position
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events; None and an empty tuple: whatever there is."""

    topics: tuple[str, ...] = ()
    actor: str | None = None
    command_id: UUID | None = None
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    stream_id: UUID | None = None

    def clause(self) -> tuple[str, list[Any]]:
        """A condition in SQL, empty if there is none, and its parameters."""
        parts: list[str] = []
        values: list[Any] = []
        if self.topics:
            parts.append(" AND topic = ANY(%s)")
            values.append(list(self.topics))
        for column in ("actor", "command_id", "correlation_id", "causation_id", "stream_id"):
            value = getattr(self, column)
            if value is not None:
                parts.append(f" AND {column} = %s")
                values.append(value)
        return "".join(parts), values


@dataclass(frozen=True, slots=True)
class Span:
    """Positions after `after`, up to `through`; `end` is the log's when it was asked."""

    after: int
    through: int
    end: int


def span(
    pool: Pool,
    *,
    after: int = 0,
    to: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Span:
    """The positions recorded from `since` on and before `until`, among those after `after` and up
    to `to`. What is recorded from now on is not among them."""
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT position FROM head")
        (end,) = cursor.fetchone() or (0,)
        through = end if to is None else min(to, end)
        if since is not None:
            cursor.execute("SELECT position_at(%s)", (since - _MICROSECOND,))
            after = max(after, (cursor.fetchone() or (0,))[0])
        if until is not None:
            cursor.execute("SELECT position_at(%s)", (until - _MICROSECOND,))
            through = min(through, (cursor.fetchone() or (0,))[0])
    return Span(after, max(after, through), end)


class Reading:
    """Reads what is wanted of a span, `limit` events at most. `position`: so far it has come."""

    def __init__(
        self, pool: Pool, where: Span, wanted: Wanted | None = None, limit: int | None = None
    ) -> None:
        self._pool = pool
        self._where = where
        self._clause, self._values = (wanted or Wanted()).clause()
        self._left = limit
        # One stream's events are found by its own index: there is nothing to go through.
        whole = wanted is not None and wanted.stream_id is not None
        self._window = max(where.through - where.after, _WINDOW) if whole else _WINDOW
        self._found: deque[int] = deque()
        self._seen = self.position = where.after

    @property
    def ended(self) -> bool:
        return self.position >= self._where.through or self._left == 0

    def next(self) -> list[Row]:
        """The next events, as many as a batch holds. An empty list before `ended` means that none
        were found so far: go on. Raises what the driver raises, and can then be called again."""
        if self.ended:
            return []
        rows = self._matching() if self._clause else self._all()
        if self._left is not None:
            self._left -= len(rows)
        return rows

    def _all(self) -> list[Row]:
        through = min(self.position + self._size(), self._where.through)
        rows = self._read("position > %s AND position <= %s", [self.position, through])
        self.position = rows[-1].position if _is_cut(rows) else through
        return rows

    def _matching(self) -> list[Row]:
        if not self._found:
            self._look()
        asked = [self._found[i] for i in range(min(self._size(), len(self._found)))]
        if not asked:
            self.position = self._seen
            return []
        rows = self._read("position = ANY(%s)", [asked])
        last = rows[-1].position if _is_cut(rows) else asked[-1]
        while self._found and self._found[0] <= last:
            self._found.popleft()
        self.position = last if self._found else max(last, self._seen)
        if self._left is not None and len(rows) == self._left:
            self.position = last
        return rows

    def _look(self) -> None:
        """Finds the next matching positions."""
        through = min(self._seen + self._window, self._where.through)
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"SELECT position FROM events WHERE position > %s AND position <= %s{self._clause}"
                " ORDER BY position LIMIT %s",
                [self._seen, through, *self._values, _FOUND],
            )
            self._found.extend(position for (position,) in cursor.fetchall())
        if len(self._found) < _FOUND:
            self._seen = through
            self._window *= 4
        else:
            self._seen = self._found[-1]
            self._window = max(_WINDOW, self._window // 4)

    def _read(self, which: str, values: list[Any]) -> list[Row]:
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(_BATCH_OF.format(which=which), values)
            return rows_of(cursor.fetchall())

    def _size(self) -> int:
        return BATCH if self._left is None else min(BATCH, self._left)


def _is_cut(rows: list[Row]) -> bool:
    """Whether there may have been more than their bytes allowed."""
    return sum(len(row.state) for row in rows) >= BATCH_BYTES
