"""What is told of states, differences and commands: the same by HTTP and at the terminal."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any, Final

import msgspec

from domain.values import Personal
from infra.eventstore.transcoder import personal_in
from infra.history.lines import Lines, kind_of, rfc3339
from infra.history.states import Difference, Fact, State
from infra.history.texts import Texts
from infra.history.tracing import Trace

_NOTHING: Final = "nothing"


def told_state(found: State, texts: Texts) -> dict[str, Any]:
    """A state and which events it is of."""
    fields = found.fields()
    texts.prepare({one.subject for one in personal_in(fields)})
    return {
        "stream": _stream(found.last),
        "version": found.version,
        "events": found.events,
        "position": found.through,
        "last_event": told_fact(found.last),
        "state": Lines(texts).value(fields),
    }


def told_differences(found: list[Difference], texts: Texts) -> list[dict[str, Any]]:
    """Each difference in plain words, and with its values and the events that made it."""
    values = [(one.before, one.after) for one in found]
    texts.prepare({one.subject for one in personal_in(values)})
    lines = Lines(texts)
    return [
        {
            "what": one.place,
            "before": lines.value(one.before),
            "after": lines.value(one.after),
            "words": words(one, texts),
            "made_by": [told_fact(fact) for fact in one.made_by],
            "earlier_events": one.more,
        }
        for one in found
    ]


def words(found: Difference, texts: Texts) -> str:
    """As `stage: bid → negotiation, by ann on 2026-03-01, reason: they asked for it`."""
    by = found.made_by[-1]
    why = "" if by.reason is None else f", reason: {by.reason}"
    return (
        f"{found.place}: {_word(found.before, texts)} → {_word(found.after, texts)},"
        f" by {by.actor} on {by.occurred_at:%Y-%m-%d}{why}"
    )


def told_trace(found: Trace, texts: Texts) -> dict[str, Any]:
    """A command with its causes and consequences, without how far the read models are."""
    lines = Lines(texts)
    rows = found.events
    events = _decoded(lines.of(rows))
    first = rows[0]
    cause: dict[str, Any] | None = None
    if first.causation_id is not None:
        cause = {"id": first.causation_id, "kind": "unknown", "event": None}
        if found.cause is not None:
            cause["kind"] = "event" if found.cause_is_event else "command"
            cause["event"] = _decoded(lines.of([found.cause]))[0]
    caused: dict[str, dict[str, Any]] = {}
    for row in found.caused:
        one = caused.setdefault(
            row.command_id,
            {
                "command_id": row.command_id,
                "actor": row.actor,
                "causation_id": row.causation_id,
                "recorded_at": rfc3339(row.recorded_at),
                "events": [],
            },
        )
        one["events"].append(
            {
                "position": row.position,
                "stream": {"kind": kind_of(row.topic), "id": row.stream_id},
                "version": row.version,
                "type": row.topic,
            }
        )
    return {
        "command_id": first.command_id,
        "actor": first.actor,
        "reason": first.reason,
        "recorded_at": rfc3339(first.recorded_at),
        "correlation_id": first.correlation_id,
        "causation_id": first.causation_id,
        "traceparent": first.traceparent,
        "receipts": [{**one, "recorded_at": rfc3339(one["recorded_at"])} for one in found.receipts],
        "events": events,
        "more_events": found.more,
        "caused_by": cause,
        "caused": list(caused.values()),
        "more_caused": found.more_caused,
    }


def told_fact(fact: Fact) -> dict[str, Any]:
    return {
        "position": fact.position,
        "version": fact.version,
        "type": fact.topic,
        "actor": fact.actor,
        "reason": fact.reason,
        "occurred_at": instant(fact.occurred_at),
        "recorded_at": instant(fact.recorded_at),
        "command_id": fact.command_id,
    }


def instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _stream(fact: Fact) -> dict[str, str]:
    return {"kind": kind_of(fact.topic), "id": str(fact.stream_id)}


def _decoded(lines: bytes) -> list[Any]:
    return [msgspec.json.decode(line) for line in lines.splitlines()]


def _word(value: Any, texts: Texts) -> str:
    match value:
        case None:
            return _NOTHING
        case Personal():
            return texts.shown(value)
        case bool():
            return "yes" if value else "no"
        case Enum():
            return str(value.value)
        case datetime():
            return instant(value)
        case _:
            return str(value)
