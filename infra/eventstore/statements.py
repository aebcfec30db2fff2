"""What is sent to append commands to the log, and to read their receipts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from infra.eventstore.records import Append, LedgerEvent, Receipt

NOT_A_ROW = (ValueError, TypeError, AttributeError, LookupError)
"""What `rows_of` and `as_json` raise when a value in a command is of no use."""

_RECORD = """(n int, stream_id uuid, version int, topic text, class_version smallint,
    partition_key uuid, occurred_at timestamptz, actor text, command_id uuid,
    correlation_id uuid, causation_id uuid, reason text, traceparent text, state text,
    octets text, alone boolean, scope text, key text, request_hash text, status smallint, id uuid,
    answered int, extra jsonb)"""
"""What `rows_of` makes, as a table: the fewer octets to read, the sooner a group is in."""
_EVENTS = """
INSERT INTO events (position, stream_id, version, topic, class_version, partition_key, occurred_at,
    recorded_at, actor, command_id, correlation_id, causation_id, reason, traceparent, state)
SELECT {base} + e.n, e.stream_id, e.version, e.topic, coalesce(e.class_version, 1::smallint),
    coalesce(e.partition_key, e.stream_id), coalesce(e.occurred_at, {recorded_at}), {recorded_at},
    e.actor, e.command_id, coalesce(e.correlation_id, e.command_id), e.causation_id, e.reason,
    e.traceparent, coalesce(decode(e.octets, 'hex'), convert_to(e.state, 'UTF8'))
FROM {rows} WHERE e.alone IS NULL
"""
_RECEIPTS = """
INSERT INTO receipts (scope, key, request_hash, status, id, version, extra, position, recorded_at)
SELECT coalesce(e.scope, e.actor), e.key, decode(e.request_hash, 'hex'), e.status,
    coalesce(e.id, e.stream_id), e.answered, e.extra, {base} + e.n, {recorded_at}
FROM {rows} WHERE e.request_hash IS NOT NULL
"""

_IN_HEAD = {"base": "head.base", "recorded_at": "head.recorded_at", "rows": "head, row AS e"}
APPEND_GROUP = "EXECUTE append_group (%s, %s)"
"""With what `group_of` makes; gives the position before the group."""
_PREPARE_GROUP = f"""
PREPARE append_group (int, json) AS
WITH head AS (
    UPDATE head SET position = position + $1,
                    recorded_at = greatest(clock_timestamp(), recorded_at)
    RETURNING position - $1 AS base, recorded_at
), row AS MATERIALIZED (
    SELECT * FROM json_to_recordset($2) AS e {_RECORD}
), events_in AS ({_EVENTS.format(**_IN_HEAD)}), receipts_in AS ({_RECEIPTS.format(**_IN_HEAD)})
SELECT base, pg_notify('crm_' || current_schema(), '') FROM head
"""
# A group's shape never changes: planning it once saves a third of its time.
PREPARING = ("SET plan_cache_mode = force_generic_plan", _PREPARE_GROUP)
"""What a session is told before it appends groups."""
_GIVEN = {
    "base": "%(base)s",
    "recorded_at": "%(recorded_at)s",
    "rows": f"json_to_recordset(%(rows)s::json) AS e {_RECORD}",
}
INSERT_EVENTS = _EVENTS.format(**_GIVEN)
INSERT_RECEIPT = _RECEIPTS.format(**_GIVEN)
TRACK = """
INSERT INTO tracking (application_name, notification_id) VALUES (%s, %s)
ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id
WHERE tracking.notification_id < excluded.notification_id
"""
SELECT_RECEIPT = """
SELECT scope, key, request_hash, status, id, version, extra, position
FROM receipts WHERE scope = %s AND key = %s
"""
SELECT_RECEIPTS = """
SELECT scope, key, request_hash, status, id, version, extra, position
FROM receipts WHERE scope = %s AND key = ANY(%s)
"""


def receipt_of(row: Sequence[Any]) -> Receipt:
    """The receipt in a row of `SELECT_RECEIPT` or `SELECT_RECEIPTS`."""
    scope, key, request_hash, status, id_, version, extra, position = row
    return Receipt(scope, key, bytes(request_hash), status, id_, version, extra, position)


def _state(octets: bytes) -> dict[str, str]:
    if b"\0" not in octets:  # which no text of a database has
        with contextlib.suppress(UnicodeDecodeError):
            return {"state": octets.decode()}
    return {"octets": octets.hex()}


def rows_of(append: Append, first: int) -> list[dict[str, Any]]:
    """A row for each event; the receipt's columns are in the last one's, or alone in a row."""
    envelope, stream = append.envelope, None
    rows: list[dict[str, Any]] = []
    for n, event in enumerate(append.events, first):
        stream = event.originator_id
        row: dict[str, Any] = {
            "n": n,
            "stream_id": stream,
            "version": event.originator_version,
            "topic": event.topic,
            "actor": envelope.actor,
            "command_id": envelope.command_id,
        }
        row |= _state(event.state)
        partition_key = append.partition_keys.get(stream, stream)
        if partition_key != stream:
            row["partition_key"] = partition_key
        if isinstance(event, LedgerEvent):
            row["occurred_at"] = event.occurred_at
            if event.class_version != 1:
                row["class_version"] = event.class_version
        if envelope.correlation_id != envelope.command_id:
            row["correlation_id"] = envelope.correlation_id
        if envelope.causation_id is not None:
            row["causation_id"] = envelope.causation_id
        if envelope.reason is not None:
            row["reason"] = envelope.reason
        if envelope.traceparent is not None:
            row["traceparent"] = envelope.traceparent
        rows.append(row)
    receipt = append.receipt
    if receipt is None:
        return rows
    if not rows:
        rows.append({"n": first - 1, "alone": True})
    row = rows[-1]
    row["key"] = receipt.key
    row["request_hash"] = receipt.request_hash.hex()
    row["status"] = receipt.status
    row["answered"] = receipt.version
    if receipt.scope != row.get("actor"):
        row["scope"] = receipt.scope
    if receipt.id != stream:
        row["id"] = receipt.id
    if receipt.extra is not None:
        row["extra"] = receipt.extra
    return rows


def as_json(rows: list[dict[str, Any]]) -> str:
    """Rows as the statements take them."""
    return orjson.dumps(rows).decode()


def group_of(appends: Iterable[Append]) -> tuple[tuple[int, str], list[int]]:
    """Of commands that go in together: what `APPEND_GROUP` takes, and after how many events each
    of them ends. Raises one of `NOT_A_ROW`."""
    rows: list[dict[str, Any]] = []
    lasts: list[int] = []
    last = 0
    for append in appends:
        rows += rows_of(append, last + 1)
        last += len(append.events)
        lasts.append(last)
    return (last, as_json(rows)), lasts
