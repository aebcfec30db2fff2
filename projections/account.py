"""The account of what was applied: by partition and range of the log, how many events and which.

It is written in the transaction of the rows. Compared with the log it tells whether an event was
left out or taken in twice, which a position cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import md5
from uuid import UUID

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.eventstore.feed import Recorded, partition_of

RANGE = 65_536
"""Positions of the log to a range: range n holds positions n * RANGE + 1 to (n + 1) * RANGE."""

DIGEST_SQL = "('x' || left(md5(stream_id::text || ':' || version::text), 16))::bit(64)::bigint"
"""`digest_of` an event in a row of the log."""

Sums = dict[tuple[int, int], tuple[int, int]]
"""(partition, range) → how many events, and the XOR of their digests."""


def range_of(position: int) -> int:
    """The range that a position lies in."""
    return (position - 1) // RANGE


def digest_of(stream_id: UUID, version: int) -> int:
    """The first 8 bytes of the event's id, an integer of 64 bits with a sign."""
    return _digest(f"{stream_id}:{version}")


def _digest(name: str) -> int:
    return int.from_bytes(md5(name.encode(), usedforsecurity=False).digest()[:8], signed=True)


def summed(events: Iterable[Recorded], partitions: int) -> Sums:
    """What these events add to the account."""
    counts: dict[tuple[int, int], int] = {}
    digests: dict[tuple[int, int], int] = {}
    # A UUID takes longer to be written out than to be looked up by its integer.
    names: dict[int, str] = {}
    homes: dict[int, int] = {}
    for event in events:
        stream, key = event.stream_id.int, event.partition_key.int
        name, home = names.get(stream), homes.get(key)
        if name is None:
            name = names[stream] = f"{event.stream_id}:"
        if home is None:
            home = homes[key] = partition_of(event.partition_key, partitions)
        at = home, (event.position - 1) // RANGE
        counts[at] = counts.get(at, 0) + 1
        digests[at] = digests.get(at, 0) ^ _digest(f"{name}{event.version}")
    return {at: (count, digests[at]) for at, count in counts.items()}


def add(sums: Sums, more: Sums) -> None:
    """Add to these sums those of other events."""
    for at, (count, digest) in more.items():
        before = sums.get(at, (0, 0))
        sums[at] = before[0] + count, before[1] ^ digest


def enter(cursor: Cursor, projection: str, sums: Sums) -> None:
    """Add to the account of the projection with this id."""
    if sums:
        cursor.execute(entering(cursor, projection, sums))


def entering(cursor: Cursor, projection: str, sums: Sums, where: str = "true") -> bytes:
    """The statement for it, which does nothing unless `where` is true."""
    places = sorted(sums)
    written: bytes = cursor.mogrify(
        "INSERT INTO applied (projection, partition, range, events, digest)"
        " SELECT %s, added.* FROM"
        " unnest(%s::int[], %s::bigint[], %s::bigint[], %s::bigint[]) AS added"
        f" WHERE {where} ON CONFLICT (projection, partition, range) DO UPDATE SET"
        " events = applied.events + excluded.events, digest = applied.digest # excluded.digest",
        [
            projection,
            [partition for partition, _ in places],
            [number for _, number in places],
            [sums[place][0] for place in places],
            [sums[place][1] for place in places],
        ],
    )
    return written
