"""The leaf: one canonical byte string per event, over every column of ``log.events``.

All integers are big-endian. Fixed part, 95 bytes: layout 0x01, position int8, stream_id (16),
version int4, class_version int2, partition_key (16), occurred_at int8, recorded_at int8,
command_id (16), correlation_id (16). Then causation_id, topic, actor, reason, traceparent and
state, each as int4 length and bytes; −1 stands for NULL. Times are microseconds since
2000-01-01 UTC, text is UTF-8, and state is as it is stored: personal text in it stays encrypted.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

LAYOUT = 1

POSITION_BYTES = slice(1, 9)
"""Where a leaf holds its position."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIXED = struct.Struct(">Bq16sih16sqq16s16s")
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)


@dataclass(frozen=True, slots=True)
class Row:
    """An event as the log stores it, every column; in the order in which the leaf holds them.

    Times know their offset. `state` is bytes, as stored.
    """

    position: int
    stream_id: UUID
    version: int
    class_version: int
    partition_key: UUID
    occurred_at: datetime
    recorded_at: datetime
    command_id: UUID
    correlation_id: UUID
    causation_id: UUID | None
    topic: str
    actor: str
    reason: str | None
    traceparent: str | None
    state: bytes


COLUMNS = tuple(field.name for field in fields(Row))
"""Every column of ``log.events``, in the order of `Row`."""

SELECT_COLUMNS = ", ".join(COLUMNS)


FIXED_SQL = " || ".join(
    [
        f"'\\x{LAYOUT:02x}'::bytea",
        "int8send(position)",
        "uuid_send(stream_id)",
        "int4send(version)",
        "int2send(class_version)",
        "uuid_send(partition_key)",
        "timestamptz_send(occurred_at)",
        "timestamptz_send(recorded_at)",
        "uuid_send(command_id)",
        "uuid_send(correlation_id)",
    ]
)
"""The fixed part of the leaf of a row of ``log.events``, as an SQL expression of type bytea."""

FIXED_BYTES = _FIXED.size

VARIABLE = COLUMNS[9:]
"""The columns after it. The leaf has them as PostgreSQL's binary formats do: length and bytes, for
text in the session's encoding."""


def leaf(row: Row) -> bytes:
    """The leaf of the row.

    Errors: `ValueError` for a number that its column could not hold and for a time without offset.
    """
    return packed(
        (
            row.position,
            row.stream_id.bytes,
            row.version,
            row.class_version,
            row.partition_key.bytes,
            _microseconds(row.occurred_at),
            _microseconds(row.recorded_at),
            row.command_id.bytes,
            row.correlation_id.bytes,
        ),
        (
            None if row.causation_id is None else row.causation_id.bytes,
            row.topic.encode(),
            row.actor.encode(),
            None if row.reason is None else row.reason.encode(),
            None if row.traceparent is None else row.traceparent.encode(),
            row.state,
        ),
    )


def packed(fixed: Sequence[int | bytes], variable: Sequence[bytes | None]) -> bytes:
    """The leaf of these columns, in the order of `COLUMNS`: nine that are never NULL, ids as 16
    bytes and times in microseconds since 2000-01-01 UTC; then the others.

    Errors: `ValueError` for a number that its column could not hold.
    """
    try:
        first = _FIXED.pack(LAYOUT, *fixed)
    except struct.error as error:
        raise ValueError(f"event {fixed[0]!r}: {error}") from None
    return b"".join((first, *map(_with_length, variable)))


def _with_length(value: bytes | None) -> bytes:
    return _NULL if value is None else _LENGTH.pack(len(value)) + value


def _microseconds(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError("a time without offset is no moment")
    return (moment - _EPOCH) // _MICROSECOND


def json_of_row(row: Row) -> dict[str, Any]:
    """The row for an export: ids and times as text (ISO 8601, UTC, six decimals), state in
    base64."""
    return {
        "position": row.position,
        "stream_id": str(row.stream_id),
        "version": row.version,
        "class_version": row.class_version,
        "partition_key": str(row.partition_key),
        "occurred_at": _iso(row.occurred_at),
        "recorded_at": _iso(row.recorded_at),
        "command_id": str(row.command_id),
        "correlation_id": str(row.correlation_id),
        "causation_id": None if row.causation_id is None else str(row.causation_id),
        "topic": row.topic,
        "actor": row.actor,
        "reason": row.reason,
        "traceparent": row.traceparent,
        "state": base64.b64encode(row.state).decode(),
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def row_of_json(fields: Mapping[str, Any]) -> Row:
    """The row behind an object of `json_of_row`; members that no column has are ignored.

    Errors: `ValueError`, which names the member that is missing or cannot be read.
    """
    return Row(
        position=_whole(fields, "position"),
        stream_id=_uuid(fields, "stream_id"),
        version=_whole(fields, "version"),
        class_version=_whole(fields, "class_version"),
        partition_key=_uuid(fields, "partition_key"),
        occurred_at=_moment(fields, "occurred_at"),
        recorded_at=_moment(fields, "recorded_at"),
        command_id=_uuid(fields, "command_id"),
        correlation_id=_uuid(fields, "correlation_id"),
        causation_id=(
            None if fields.get("causation_id", "") is None else _uuid(fields, "causation_id")
        ),
        topic=_string(fields, "topic"),
        actor=_string(fields, "actor"),
        reason=None if fields.get("reason", "") is None else _string(fields, "reason"),
        traceparent=(
            None if fields.get("traceparent", "") is None else _string(fields, "traceparent")
        ),
        state=_base64(fields, "state"),
    )


def _string(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is missing or no text")
    return value


def _whole(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is missing or no whole number")
    return value


def _uuid(fields: Mapping[str, Any], name: str) -> UUID:
    try:
        return UUID(_string(fields, name))
    except ValueError:
        raise ValueError(f"{name} is missing or no UUID") from None


def _moment(fields: Mapping[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_string(fields, name))
    except ValueError:
        raise ValueError(f"{name} is missing or no time in ISO 8601") from None
    if moment.tzinfo is None:
        raise ValueError(f"{name} has no offset")
    return moment


def _base64(fields: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(_string(fields, name), validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(f"{name} is missing or not in base64") from None
