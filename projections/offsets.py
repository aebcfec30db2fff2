"""Where to go on reading the topic: kept in the transaction of the rows, as Kafka's own are not.

Only a hint that saves reading a partition from its beginning. It is right as long as every event
after the partition's position lies at or after the offset.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from uuid import UUID

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)


def load(cursor: Cursor, name: str, partitions: Collection[int]) -> dict[int, tuple[UUID, int]]:
    """By partition: the topic's id, and the first offset not yet read. `name`: the projection's,
    without its version."""
    cursor.execute(
        "SELECT partition, topic_id, next_offset FROM kafka_offset"
        " WHERE projection = %s AND partition = ANY(%s)",
        [name, list(partitions)],
    )
    return {partition: (topic, following) for partition, topic, following in cursor.fetchall()}


def save(cursor: Cursor, name: str, offsets: Mapping[int, tuple[UUID, int]]) -> None:
    """Keep these, by partition."""
    if not offsets:
        return
    partitions = sorted(offsets)
    cursor.execute(
        "INSERT INTO kafka_offset (projection, partition, topic_id, next_offset)"
        " SELECT %s, given.* FROM unnest(%s::int[], %s::uuid[], %s::bigint[]) AS given"
        " ON CONFLICT (projection, partition) DO UPDATE SET"
        " topic_id = excluded.topic_id, next_offset = excluded.next_offset",
        [
            name,
            partitions,
            [str(offsets[partition][0]) for partition in partitions],
            [offsets[partition][1] for partition in partitions],
        ],
    )


def clear(cursor: Cursor, name: str) -> None:
    """Know nothing: partitions are read from their beginning."""
    cursor.execute("DELETE FROM kafka_offset WHERE projection = %s", [name])
