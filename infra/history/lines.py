"""Rows of the log as lines of JSON, as people and programs that audit read them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from domain.values import Personal
from infra.eventstore.transcoder import codec_of, decode_body, personal_in
from infra.history.texts import Texts

COLUMNS: Final = """position, stream_id::text, version, topic, class_version, partition_key::text,
    occurred_at::text, recorded_at::text, actor, command_id::text, correlation_id::text,
    causation_id::text, reason, traceparent, state"""
"""What a `Row` is made of, in a session in UTC: the server writes ids and times, as they are only
handed on."""

_SEARCHED: Final = 1_000
"""Events before one in its own stream among which its cause is looked for."""
_POLICY: Final = "policy:"


class Row(NamedTuple):
    """An event as the log has it."""

    position: int
    stream_id: str
    version: int
    topic: str
    class_version: int
    partition_key: str
    occurred_at: str
    recorded_at: str
    actor: str
    command_id: str
    correlation_id: str
    causation_id: str | None
    reason: str | None
    traceparent: str | None
    state: memoryview


class _Stream(msgspec.Struct):
    kind: str
    id: str


class _Cause(msgspec.Struct, omit_defaults=True):
    """What follows from the event itself, so that a line is the same whenever it is read."""

    id: str
    stream_id: str | None = None
    version: int | None = None
    policy: str | None = None


class _Line(msgspec.Struct, omit_defaults=True):
    position: int
    stream: _Stream
    version: int
    event_id: str
    type: str
    class_version: int
    data: Any
    actor: str
    reason: str | None
    occurred_at: str
    recorded_at: str
    partition_key: str
    command_id: str
    correlation_id: str
    causation_id: str | None
    caused_by: _Cause | None
    traceparent: str | msgspec.UnsetType = msgspec.UNSET
    state_base64: str | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class Lines:
    """Makes lines; personal text as `texts` shows it.

    `data` is the body in the layout of its class's present version, as docs/contract describes it;
    `class_version` says in which one it was written. An event that cannot be read is shown as it is
    stored (`state_base64`), with what is wrong with it (`error`), and never holds up the others.
    """

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._encoder = msgspec.json.Encoder(enc_hook=self._custom)

    def of(self, rows: Iterable[Row]) -> bytes:
        """A line for each row, each ended by a newline. May ask the vault, once."""
        lines = []
        subjects: set[UUID] = set()
        personal: dict[str, tuple[str, ...]] = {}
        for row in rows:
            line = _line(row)
            topic = row.topic
            try:
                body = decode_body(topic, row.stream_id, row.version, row.class_version, row.state)
                names = personal.get(topic)
                if names is None:
                    names = personal[topic] = codec_of(topic).personal
                for name in names:
                    subjects.update(one.subject for one in personal_in(getattr(body, name)))
                line.data = body
            except Exception as error:  # noqa: BLE001  (whatever is wrong with one is told of it)
                _spoil(line, row, error)
            lines.append((line, row))
        self._texts.prepare(subjects)
        try:
            return self._encoder.encode_lines([line for line, _ in lines])
        except Exception:  # noqa: BLE001  (one by one, to find which it is)
            return b"".join(self._one(line, row) for line, row in lines)

    def value(self, value: Any) -> Any:
        """A value of an event or state as JSON has it. Its persons must have been prepared."""
        return msgspec.json.decode(self._encoder.encode(value))

    def _one(self, line: _Line, row: Row) -> bytes:
        try:
            return self._encoder.encode(line) + b"\n"
        except Exception as error:  # noqa: BLE001  (as a sealed text that was changed)
            _spoil(line, row, error)
            return self._encoder.encode(line) + b"\n"

    def _custom(self, value: Any) -> Any:
        if isinstance(value, Personal):
            return self._texts.shown(value)
        if isinstance(value, (set, frozenset)):
            return sorted(value)
        raise TypeError(f"{type(value).__name__} cannot be shown")


def kind_of(topic: str) -> str:
    """The kind of thing that a topic is about, as opportunity."""
    parts = topic.split(".")
    return parts[1] if len(parts) > 1 and parts[1] else topic


def rfc3339(text: str) -> str:
    """The server's text for an instant in UTC, with a T and a Z."""
    return f"{text[:10]}T{text[11:-3]}Z" if text.endswith("+00") else text


def cause_of(row: Row) -> _Cause | None:
    """What an event says of its cause: where in its own stream it lies, if it does, and which
    policy acted."""
    if row.causation_id is None:
        return None
    cause = _Cause(row.causation_id)
    if row.actor.startswith(_POLICY):
        cause.policy = row.actor.removeprefix(_POLICY)
    wanted = row.causation_id.replace("-", "")
    prefix = hashlib.md5(f"{row.stream_id}:".encode(), usedforsecurity=False)
    for version in range(row.version - 1, max(0, row.version - 1 - _SEARCHED), -1):
        digest = prefix.copy()
        digest.update(b"%d" % version)
        if digest.hexdigest() == wanted:
            cause.stream_id, cause.version = row.stream_id, version
            break
    return cause


def _line(row: Row) -> _Line:
    name = f"{row.stream_id}:{row.version}".encode()
    digest = hashlib.md5(name, usedforsecurity=False).hexdigest()
    return _Line(
        row.position,
        _Stream(kind_of(row.topic), row.stream_id),
        row.version,
        f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}",
        row.topic,
        row.class_version,
        None,
        row.actor,
        row.reason,
        rfc3339(row.occurred_at),
        rfc3339(row.recorded_at),
        row.partition_key,
        row.command_id,
        row.correlation_id,
        row.causation_id,
        None if row.causation_id is None else cause_of(row),
        msgspec.UNSET if row.traceparent is None else row.traceparent,
    )


def _spoil(line: _Line, row: Row, error: Exception) -> None:
    line.data = None
    line.state_base64 = base64.b64encode(row.state).decode()
    line.error = f"{type(error).__name__}: {error}"[:2000]


def rows_of(found: Sequence[Sequence[Any]]) -> list[Row]:
    return list(map(Row._make, found))
