"""Whether a read model has taken in every event of the log once: its account against the log's.

A read model's position says how far it came, not that nothing was left out on the way: lag can
read zero over a hole. So the events of the projection's topics are counted and digested in both,
by range of positions (see `account`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from infra.eventstore.feed import partition_of
from infra.postgres import Pool, quote
from projections.account import DIGEST_SQL, RANGE, Sums, digest_of, range_of
from projections.projection import Projection

_AT_ONCE = 64
"""Ranges that the log sums up in one statement."""

_ROWS = 8_192
"""Positions read at once where partitions are to be told apart."""


@dataclass(frozen=True, slots=True)
class RangeFinding:
    """A range of positions in which a read model's account is not the log's.

    `expected`: events of its topics in the log up to the positions of their partitions; `applied`:
    those it took in. The counts may be equal: then it took in others. `partitions`: where.
    """

    projection: str
    first: int
    last: int
    expected: int
    applied: int
    partitions: tuple[int, ...]

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.partitions))
        return (
            f"positions {self.first:,} to {self.last:,}: the log has {self.expected:,} events,"
            f" {self.applied:,} were taken in (partitions {listed})"
        )


def check(
    log_pool: Pool,
    read_pool: Pool,
    projection: Projection,
    partitions: int,
    *,
    log_schema: str = "log",
    read_schema: str = "read",
) -> list[RangeFinding]:
    """The ranges in which something is missing or too much, in order; all of the log is looked at.

    Projectors may go on meanwhile. Raises what the databases raise.
    """
    return Completeness(
        log_pool, read_pool, projection, partitions, log_schema=log_schema, read_schema=read_schema
    ).look()


class Completeness:
    """Checks one read model again and again; what was found good and has not grown is not looked
    at again, but for the newest range."""

    def __init__(
        self,
        log_pool: Pool,
        read_pool: Pool,
        projection: Projection,
        partitions: int,
        *,
        log_schema: str = "log",
        read_schema: str = "read",
    ) -> None:
        self.position = 0
        """Up to here all partitions were, at the last look."""
        self._log_pool = log_pool
        self._read_pool = read_pool
        self._projection = projection
        self._partitions = partitions
        self._log_schema = log_schema
        self._read_schema = read_schema
        self._filled: UUID | None = None
        self._good: dict[int, tuple[int, ...]] = {}  # range → how far in it each partition was

    def look(self) -> list[RangeFinding]:
        """The ranges that are not complete, in order. Raises what the databases raise."""
        positions, applied, filled = self._account()
        if filled != self._filled:
            self._filled, self._good = filled, {}
        self.position = min(positions.values(), default=0)
        there = {number for _, number in applied}
        last = max([range_of(max(positions.values(), default=0)), *there], default=-1)
        reached = {
            number: tuple(
                min(max(positions[p] - number * RANGE, 0), RANGE) for p in sorted(positions)
            )
            for number in range(last + 1)
        }
        wanted = [n for n in reached if n == last or self._good.get(n) != reached[n]]
        # Where all partitions are equally far, the log can sum up all of them at once.
        even = {n: n * RANGE + reached[n][0] for n in wanted if len(set(reached[n])) == 1}
        doubtful = sorted({*wanted} - {*self._agreeing(even, applied)})
        found = list(self._findings(doubtful, positions, applied))
        bad = {range_of(one.first) for one in found}
        self._good.update((n, reached[n]) for n in wanted if n not in bad)
        for number in bad:
            self._good.pop(number, None)
        return found

    def _account(self) -> tuple[dict[int, int], Sums, UUID | None]:
        """Positions, account and filling, in one statement: projectors go on all the while."""
        with self._read_pool.connection() as connection, connection.cursor() as cursor:
            schema = quote(self._read_schema)
            cursor.execute(
                "SELECT partition, position, range, events, digest, filled"
                f" FROM {schema}.position"
                f" LEFT JOIN {schema}.applied USING (projection, partition)"
                f" LEFT JOIN {schema}.origin USING (projection) WHERE projection = %s",
                [self._projection.id],
            )
            rows = cursor.fetchall()
        positions = {row[0]: row[1] for row in rows}
        applied: Sums = {(row[0], row[2]): (row[3], row[4]) for row in rows if row[2] is not None}
        return positions, applied, rows[0][5] if rows else None

    def _agreeing(self, ends: Mapping[int, int], applied: Sums) -> Iterator[int]:
        """Those of the ranges in which the sums over all partitions agree, as far as these ends."""
        own: dict[int, tuple[int, int]] = {}
        for (_, number), (events, digest) in applied.items():
            before = own.get(number, (0, 0))
            own[number] = before[0] + events, before[1] ^ digest
        ranges = sorted(ends)
        for start in range(0, len(ranges), _AT_ONCE):
            some = {number: ends[number] for number in ranges[start : start + _AT_ONCE]}
            in_log = self._summed_by_the_log(some)
            yield from (n for n in some if own.get(n, (0, 0)) == in_log.get(n, (0, 0)))

    def _summed_by_the_log(self, ends: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        with self._log_pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT number, count(*), bit_xor(digest)"
                " FROM unnest(%s::bigint[], %s::bigint[]) AS range(number, through),"
                f" LATERAL (SELECT {DIGEST_SQL} AS digest FROM {quote(self._log_schema)}.events"
                "  WHERE position > number * %s AND position <= through"
                "  AND topic = ANY(%s)) AS event"
                " GROUP BY number",
                [list(ends), list(ends.values()), RANGE, self._projection.topics],
            )
            return {number: (events, digest) for number, events, digest in cursor.fetchall()}

    def _findings(
        self, ranges: Iterable[int], positions: dict[int, int], applied: Sums
    ) -> Iterator[RangeFinding]:
        """Compares partition by partition, each as far as its position."""
        for number in ranges:
            own = {p: sums for (p, n), sums in applied.items() if n == number}
            in_log = self._summed_by_partition(number, positions)
            nothing = (0, 0)
            differing = sorted(
                p
                for p in own.keys() | in_log.keys()
                if own.get(p, nothing) != in_log.get(p, nothing)
            )
            if differing:
                first, furthest = number * RANGE + 1, max(positions.values())
                yield RangeFinding(
                    self._projection.id,
                    first,
                    max(first, min((number + 1) * RANGE, furthest)),
                    sum(events for events, _ in in_log.values()),
                    sum(events for events, _ in own.values()),
                    tuple(differing),
                )

    def _summed_by_partition(
        self, number: int, positions: dict[int, int]
    ) -> dict[int, tuple[int, int]]:
        sums: dict[int, tuple[int, int]] = {}
        after, end = number * RANGE, min((number + 1) * RANGE, max(positions.values(), default=0))
        while after < end:
            through = min(after + _ROWS, end)
            with self._log_pool.connection() as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT position, partition_key, stream_id, version"
                    f" FROM {quote(self._log_schema)}.events"
                    " WHERE position > %s AND position <= %s AND topic = ANY(%s)",
                    [after, through, self._projection.topics],
                )
                rows = cursor.fetchall()
            for position, partition_key, stream_id, version in rows:
                partition = partition_of(partition_key, self._partitions)
                if position <= positions.get(partition, 0):
                    events, digest = sums.get(partition, (0, 0))
                    sums[partition] = events + 1, digest ^ digest_of(stream_id, version)
            after = through
        return sums
