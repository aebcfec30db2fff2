"""Snapshots against the events that they are said to be the state of. They are no evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from eventsourcing.utils import TopicError, resolve_topic

from infra.eventstore.transcoder import decode_event, state_codec
from infra.postgres import Connection

_CHUNK = 200


@dataclass(frozen=True, slots=True)
class WrongSnapshot:
    """A snapshot that is not the state that its stream's events lead to."""

    stream_id: UUID
    version: int
    text: str

    def __str__(self) -> str:
        return f"snapshot {self.stream_id} version {self.version}: {self.text}"


def wrong_snapshots(connection: Connection) -> Iterator[WrongSnapshot]:
    """Folds each stream that has snapshots, and names those that disagree.

    Personal text stays encrypted, and is compared so. Holds one aggregate and some rows at a time.
    The connection's search path leads to the log; it is in a transaction.
    """
    with connection.cursor("snapshots") as cursor:
        cursor.itersize = _CHUNK
        cursor.execute(
            "SELECT stream_id, version, topic, class_version, state FROM snapshots"
            " ORDER BY stream_id, version"
        )
        fold: _Fold | None = None
        for stream_id, version, topic, class_version, state in cursor:
            if fold is None or fold.stream_id != stream_id:
                fold = _Fold(connection, stream_id)
            text = _difference(fold, version, topic, class_version, bytes(state))
            if text is not None:
                yield WrongSnapshot(stream_id, version, text)


class _Fold:
    """A stream's state, which goes on from version to version."""

    def __init__(self, connection: Connection, stream_id: UUID) -> None:
        self._connection = connection
        self.stream_id = stream_id
        self.version = 0
        self.aggregate: Any = None

    def to(self, version: int) -> Any:
        """The aggregate at that version; none if the stream does not go so far."""
        while self.version < version:
            with self._connection.cursor() as cursor:
                cursor.execute(
                    "SELECT topic, version, class_version, occurred_at, state FROM events"
                    " WHERE stream_id = %s AND version > %s AND version <= %s"
                    " ORDER BY version LIMIT %s",
                    [self.stream_id, self.version, version, _CHUNK],
                )
                rows = cursor.fetchall()
            if not rows:
                return None
            for topic, number, class_version, occurred_at, state in rows:
                event = decode_event(
                    topic, self.stream_id, number, class_version, occurred_at, bytes(state)
                )
                self.aggregate = event.mutate(self.aggregate)
                self.version = number
        return self.aggregate if self.version == version else None


def _difference(
    fold: _Fold, version: int, topic: str, class_version: int, state: bytes
) -> str | None:
    try:
        aggregate = fold.to(version)
    except Exception as error:  # noqa: BLE001  (whatever a changed event does to a fold)
        return f"its events cannot be folded ({type(error).__name__})"
    if aggregate is None:
        return "its stream has no such version"
    try:
        cls = resolve_topic(topic)
        codec = state_codec(cls)
        said = codec.encode(codec.fields(codec.decode(state, class_version)))
    except (TopicError, ValueError, TypeError, AttributeError, KeyError) as error:
        return f"it cannot be read ({type(error).__name__})"
    if type(aggregate) is not cls:
        return f"its stream is no {topic}"
    follows = msgspec.json.decode(codec.encode(vars(aggregate)))
    found = msgspec.json.decode(said)
    names = sorted(name for name in {*follows, *found} if follows.get(name) != found.get(name))
    return f"it differs from its events in {', '.join(names)}" if names else None
