"""A share of the log into the empty tables of a new set: whole keys, folded in memory.

A key's rows are closed before they are written, so that all there is to do is COPY: nothing is
read back, and no row is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import psycopg2
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.crashpoints import reach
from infra.eventstore.feed import Recorded
from infra.postgres import Pool
from projections import account
from projections.collector import CollectorPause
from projections.folding import Counters, Folding, Keyed
from projections.projection import Projection
from projections.projector import Feed, LateOwner
from projections.writing import refused, use_schema

ROWS = 5_000
"""Events in memory at once, or those of one key where they are more."""

AT_ONCE = 1_000_000
"""Positions of the log that one share is about: what a crash costs, and what the server sorts."""


class FillingFailed(RuntimeError):
    """A process could not fill its share, or died of it. Nothing of that share was written."""


class WholeLog(Feed, Protocol):
    """A feed that can tell the log key after key, too."""

    def by_key(
        self, share: Collection[int], partitions: int, through: int, rows: int
    ) -> Iterator[list[Recorded]]: ...


def shares(partitions: Sequence[int], through: int, workers: int) -> list[list[int]]:
    """The partitions in groups, each of which is filled at once: as many for each worker."""
    if not partitions:
        return []
    rounds = -(-through // (AT_ONCE * workers))
    count = min(len(partitions), max(1, rounds) * workers)
    return [list(partitions[first::count]) for first in range(count)]


def fill(
    projection: Projection,
    feed: WholeLog,
    pool: Pool,
    *,
    schema: str,
    share: Collection[int],
    partitions: int,
    through: int,
    rows: int = ROWS,
    told: Callable[[int], None] = lambda events: None,
) -> None:
    """Bring these partitions from nothing to the position `through`, in one transaction: all of
    them or none. `told` hears how many events were read, from time to time.

    Raises LateOwner where another process has filled some of them, and what the feed and the
    database raise.
    """
    folding = Folding(projection, Counters(), 0)
    sums: account.Sums = {}
    pause = CollectorPause()
    with pool.connection() as connection, connection, connection.cursor() as cursor:
        use_schema(cursor, schema)
        # What a crash of the server may lose here is whole transactions, rows and position.
        cursor.execute("SET LOCAL synchronous_commit TO off")
        # Locks them: who was left over from an interrupted rebuild and is still at it goes first.
        cursor.execute(
            "UPDATE position SET position = %s, moved_at = clock_timestamp()"
            " WHERE projection = %s AND partition = ANY(%s) AND position = 0",
            [through, projection.id, sorted(share)],
        )
        if cursor.rowcount != len(share):
            raise LateOwner(f"{projection.id}: another process filled the partitions")
        try:
            for events in feed.by_key(share, partitions, through, rows):
                pause.hold()
                keyed = folding.keyed(events)
                account.add(sums, account.summed((event for _, event in keyed), partitions))
                _take_in(cursor, folding, keyed)
                folding.forget()
                pause.done(more=True)
                told(len(events))
                reach("rebuild.in_share")
        finally:
            pause.release()
        account.enter(cursor, projection.id, sums)
        reach("rebuild.before_commit")
    reach("rebuild.after_commit")


def _take_in(cursor: Cursor, folding: Folding, keyed: Keyed) -> None:
    cursor.execute("SAVEPOINT keys")
    try:
        folding.write(cursor, *folding.fold(cursor, keyed, begun=True))
    except (psycopg2.Error, UnicodeEncodeError) as error:
        if not refused(error):
            raise
        cursor.execute("ROLLBACK TO SAVEPOINT keys")
        folding.forget()
        folding.by_key(cursor, keyed)
    cursor.execute("RELEASE SAVEPOINT keys")
