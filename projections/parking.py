"""Events that a projection could not apply, and those of the same key that wait for them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)
from psycopg2.extras import execute_values

from infra.eventstore.feed import Recorded, Undecodable, partition_of, recorded
from infra.eventstore.transcoder import event_codec

_MAX_ERROR = 2_000


@dataclass(frozen=True, slots=True)
class ParkedKey:
    """A key that waits: the event it waits for, why, and how many events wait in all."""

    key: UUID
    position: int
    topic: str
    error: str
    parked_at: datetime
    events: int


def park(cursor: Cursor, projection: str, failed: Iterable[tuple[UUID, Recorded, str]]) -> None:
    """Keep the events until they are tried again. An empty error: it waits for another."""
    execute_values(
        cursor,
        "INSERT INTO parked (projection, key, position, event, error) VALUES %s"
        " ON CONFLICT (projection, key, position) DO UPDATE SET error = excluded.error",
        [
            (projection, str(key), event.position, _stored(event), _printable(error))
            for key, event, error in failed
        ],
        template="(%s, %s, %s, %s, %s)",
    )


def keys(cursor: Cursor, projection: str) -> set[UUID]:
    """The keys that wait."""
    cursor.execute("SELECT DISTINCT key::text FROM parked WHERE projection = %s", [projection])
    return {UUID(row[0]) for row in cursor.fetchall()}


def listed(cursor: Cursor, projection: str) -> list[ParkedKey]:
    """The keys that wait, oldest first."""
    cursor.execute(
        "SELECT DISTINCT ON (key) key::text, position, event->>'topic', error, parked_at,"
        " (SELECT count(*) FROM parked AS all_of WHERE all_of.projection = parked.projection"
        "  AND all_of.key = parked.key)"
        " FROM parked WHERE projection = %s ORDER BY key, position",
        [projection],
    )
    waiting = [ParkedKey(UUID(row[0]), *row[1:]) for row in cursor.fetchall()]
    return sorted(waiting, key=lambda one: one.position)


def lock(cursor: Cursor, projection: str, key: UUID, partitions: int) -> None:
    """Hold up the projector of the key's partition until the transaction ends.

    Raises KeyError for a key that is not parked, or whose read model is not there any more.
    """
    cursor.execute(
        "SELECT event->>'partition_key' FROM parked WHERE projection = %s AND key = %s LIMIT 1",
        [projection, str(key)],
    )
    row = cursor.fetchone()
    if row is None:
        raise KeyError(str(key))
    # Where a rebuild was waited for, the row is another now, and this one did not lock it.
    for _ in range(2):
        cursor.execute(
            "SELECT FROM position WHERE projection = %s AND partition = %s FOR UPDATE",
            [projection, partition_of(UUID(row[0]), partitions)],
        )
        if cursor.rowcount:
            return
    raise KeyError(str(key))


def taken(cursor: Cursor, projection: str, key: UUID) -> list[Recorded]:
    """The events of a key in order, out of the parking place."""
    cursor.execute(
        "DELETE FROM parked WHERE projection = %s AND key = %s RETURNING event::text",
        [projection, str(key)],
    )
    events = [_restored(orjson.loads(row[0])) for row in cursor.fetchall()]
    return sorted(events, key=lambda event: event.position)


def _printable(error: str) -> str:
    return error.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()[:_MAX_ERROR]


def _body(event: Any) -> tuple[bytes, int]:
    """The event's body as in the log, and the version of its layout. What cannot be written as
    JSON (and so never came from the log) is shown instead."""
    if isinstance(event, Undecodable):
        return event.state, event.class_version
    kind: type = type(event)
    codec = event_codec(kind)
    try:
        return codec.encode(vars(event)), codec.version
    except (UnicodeEncodeError, TypeError, ValueError):
        return ascii(vars(event)).encode(), codec.version


def _stored(event: Recorded) -> str:
    """The event as JSON. What jsonb cannot hold (U+0000) is kept as base64."""
    state, class_version = _body(event.event)
    row: dict[str, Any] = {
        "position": event.position,
        "stream_id": event.stream_id,
        "version": event.version,
        "topic": event.topic,
        "partition_key": event.partition_key,
        "occurred_at": event.occurred_at,
        "recorded_at": event.recorded_at,
        "actor": event.actor,
        "command_id": event.command_id,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "reason": event.reason,
        "traceparent": event.traceparent,
        "class_version": class_version,
    }
    try:
        body = None if rb"\u0000" in state else orjson.loads(state)
    except orjson.JSONDecodeError:
        body = None
    if body is None:
        row["state_base64"] = base64.b64encode(state).decode()
    else:
        row["state"] = body
    return orjson.dumps(row).decode()


def _restored(row: dict[str, Any]) -> Recorded:
    raw = row.get("state_base64")
    state = orjson.dumps(row["state"]) if raw is None else base64.b64decode(raw)
    return recorded(
        [
            row["position"],
            UUID(row["stream_id"]),
            row["version"],
            row["topic"],
            UUID(row["partition_key"]),
            datetime.fromisoformat(row["occurred_at"]),
            datetime.fromisoformat(row["recorded_at"]),
            row["actor"],
            row["command_id"],
            row["correlation_id"],
            row["causation_id"],
            row["reason"],
            row.get("traceparent"),  # not in what was parked before there were traces
            row["class_version"],
            state,
        ]
    )
