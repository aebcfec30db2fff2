"""A command's trace: what it recorded, what gave rise to it and what it gave rise to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from infra.history.lines import COLUMNS, Row, rows_of
from infra.ids import event_id
from infra.postgres import Connection, Pool

EVENTS: Final = 1_000
"""Of a command, at most, that are shown; and of what it gave rise to."""
ASKED: Final = 100
"""Of a command's events, those whose consequences are looked for."""

# The expressions are those of the index events_audit.
_ID: Final = "md5(stream_id::text || ':' || version::text)::uuid"


@dataclass(frozen=True, slots=True)
class Trace:
    """What the log knows of a command. `cause` is the event that gave rise to it, or the first of
    the command that did; `caused` are the events of commands that it, or one of its events, gave
    rise to. `more` and `more_caused`: there are others beside those that are given."""

    events: list[Row]
    more: bool
    receipts: list[dict[str, Any]]
    cause: Row | None
    cause_is_event: bool
    caused: list[Row]
    more_caused: bool


def trace(pool: Pool, command_id: UUID) -> Trace | None:
    """None if the log has no event of such a command: one that recorded nothing leaves none."""
    with pool.connection() as connection:
        events = _events(connection, "command_id = %s", [command_id], 0, EVENTS + 1)
        if not events:
            return None
        first = events[0]
        cause, is_event = _cause(connection, first)
        ids = [command_id, *(event_id(one.stream_id, one.version) for one in events[:ASKED])]
        caused = _events(connection, "causation_id = ANY(%s)", [ids], first.position, EVENTS + 1)
        return Trace(
            events=events[:EVENTS],
            more=len(events) > EVENTS,
            receipts=_receipts(connection, events[-1]) if len(events) <= EVENTS else [],
            cause=cause,
            cause_is_event=is_event,
            caused=caused[:EVENTS],
            more_caused=len(caused) > EVENTS or len(events) > ASKED,
        )


def _events(
    connection: Connection, which: str, values: Sequence[Any], after: int, limit: int
) -> list[Row]:
    """In order of position. The positions make the planner see how little an index leaves over."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT position FROM head")
        (end,) = cursor.fetchone() or (0,)
        cursor.execute(
            f"SELECT {COLUMNS} FROM events WHERE position > %s AND position <= %s AND {which}"
            " ORDER BY position LIMIT %s",
            [after, end, *values, limit],
        )
        return rows_of(cursor.fetchall())


def _cause(connection: Connection, effect: Row) -> tuple[Row | None, bool]:
    if effect.causation_id is None:
        return None, False
    event = _events(connection, f"{_ID} = %s", [effect.causation_id], 0, 1)
    if event:
        return event[0], True
    command = _events(connection, "command_id = %s", [effect.causation_id], 0, 1)
    return (command[0] if command else None), False


def _receipts(connection: Connection, last: Row) -> list[dict[str, Any]]:
    """Those of the command that this is the last event of, while they are kept.

    Receipts do not name their command. They have its time and last position; so has, at times,
    one that the same principal was given in the same moment for a command that recorded nothing.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT scope, key, status, id::text, version, position, recorded_at::text"
            " FROM receipts WHERE recorded_at = %s AND scope = %s AND position = %s"
            " ORDER BY key LIMIT 10",
            [last.recorded_at, last.actor, last.position],
        )
        names = ("scope", "key", "status", "id", "version", "position", "recorded_at")
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
