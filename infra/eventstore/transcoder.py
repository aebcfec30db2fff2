"""Events as plain JSON, read back by their annotations.

No type tags: whatever a client sends stays data. Personal text is sealed before it is encoded
and stays sealed until `open_personal` is asked for.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast
from uuid import UUID

import msgspec
from eventsourcing.domain import DomainEventProtocol, Snapshot
from eventsourcing.persistence import Mapper, StoredEvent, Transcoder
from eventsourcing.utils import TopicError, get_topic, resolve_topic

import domain.application  # noqa: F401  (the classes that topics name)
from domain.aggregate import LedgerAggregate
from domain.values import Personal
from infra.eventstore.records import LedgerEvent
from infra.vault import Vault

# In columns of their own, or fixed by the topic.
_NOT_IN_BODY = ("originator_id", "originator_version", "timestamp", "originator_topic")


def _encode_custom(value: Any) -> Any:
    if isinstance(value, Personal):
        if value.sealed is None:
            raise ValueError("personal text must be sealed before it is stored")
        return value.sealed
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _decode_custom(kind: type, value: Any) -> Any:
    if kind is Personal:
        return Vault.unopened(value)
    raise TypeError(f"{kind.__name__} cannot be read")


_encoder = msgspec.json.Encoder(enc_hook=_encode_custom)


class EventTranscoder(Transcoder):
    """Plain JSON, for values that carry no Python types."""

    def encode(self, obj: Any) -> bytes:
        """JSON in UTF-8. Errors: `TypeError` for a value that JSON has no form for."""
        return _encoder.encode(obj)

    def decode(self, data: bytes) -> Any:
        """What JSON says, with nothing read into it."""
        return msgspec.json.decode(data)


@dataclasses.dataclass(frozen=True, slots=True)
class _Codec:
    """How one class is written to and read from its body."""

    cls: type
    version: int
    names: tuple[str, ...]
    body: Any
    decoder: msgspec.json.Decoder[Any]
    personal: tuple[str, ...]
    """The fields that may hold personal text."""

    @property
    def holds_personal(self) -> bool:
        return bool(self.personal)

    def encode(self, values: dict[str, Any]) -> bytes:
        given = {name: values[name] for name in self.names if name in values}
        return _encoder.encode(self.body(**given))

    def decode(self, state: bytes | memoryview, class_version: int) -> Any:
        """The body, brought up to the class's present version first: the one place where that is
        done, whoever reads. A structure with the class's fields as attributes.

        Errors: `ValueError` for what does not fit the class, or was written by a later program.
        """
        if class_version == self.version:
            return self.decoder.decode(state)
        if class_version > self.version:
            raise ValueError(f"{self.cls.__qualname__} of a later version, {class_version}")
        raw = msgspec.json.decode(state)
        for version in range(class_version, self.version):
            getattr(self.cls, f"upcast_v{version}_v{version + 1}")(raw)
        return msgspec.convert(raw, self.body, dec_hook=_decode_custom)

    def fields(self, body: Any) -> dict[str, Any]:
        """What a decoded body holds, by name."""
        return msgspec.structs.asdict(body)


def _mentions_personal(hint: Any, seen: frozenset[Any] = frozenset()) -> bool:
    if hint is Personal:
        return True
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint not in seen:
        hints = typing.get_type_hints(hint)
        return any(_mentions_personal(part, seen | {hint}) for part in hints.values())
    return any(_mentions_personal(part, seen) for part in typing.get_args(hint))


def _codec(cls: type, declared: list[dataclasses.Field[Any]]) -> _Codec:
    every = typing.get_type_hints(cls)
    hints = {field.name: every[field.name] for field in declared}
    fields: list[Any] = []
    for field in declared:
        hint = hints[field.name]
        if field.default is not dataclasses.MISSING:
            fields.append((field.name, hint, field.default))
        elif field.default_factory is not dataclasses.MISSING:
            default = msgspec.field(default_factory=field.default_factory)
            fields.append((field.name, hint, default))
        elif type(None) in typing.get_args(hint):
            fields.append((field.name, hint, None))
        else:
            fields.append((field.name, hint))
    body = msgspec.defstruct(f"{cls.__name__}Body", fields, kw_only=True, omit_defaults=True)
    return _Codec(
        cls=cls,
        version=getattr(cls, "class_version", 1),
        names=tuple(hints),
        body=body,
        decoder=msgspec.json.Decoder(body, dec_hook=_decode_custom),
        personal=tuple(name for name, hint in hints.items() if _mentions_personal(hint)),
    )


@cache
def event_codec(cls: type) -> _Codec:
    """The codec of an event class. An absent optional field reads as none."""
    return _codec(cls, [f for f in dataclasses.fields(cls) if f.name not in _NOT_IN_BODY])


def codec_of(topic: str) -> _Codec:
    """The codec of the event class of a topic. Errors: `TopicError` where there is none."""
    return event_codec(resolve_topic(topic))


def later_version(topic: str, class_version: int) -> bool:
    """Whether a later version of the program wrote an event of this topic and version."""
    try:
        return class_version > event_codec(resolve_topic(topic)).version
    except TopicError:  # one that this program does not have
        return True


@cache
def state_codec(cls: type) -> _Codec:
    """The codec of an aggregate's state, for its snapshots."""
    return _codec(cls, list(dataclasses.fields(cls)))


def personal_in(value: Any) -> Iterator[Personal]:
    """Each piece of personal text in a value of an event or state."""
    if isinstance(value, Personal):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from personal_in(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from personal_in(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for name in _may_hold_personal(type(value)):
            yield from personal_in(getattr(value, name))


@cache
def _may_hold_personal(cls: type) -> tuple[str, ...]:
    """The fields of a dataclass in which personal text may be."""
    hints = typing.get_type_hints(cls)
    names = (field.name for field in dataclasses.fields(cls))
    return tuple(
        name for name in names if _says_nothing(hints[name]) or _mentions_personal(hints[name])
    )


def _says_nothing(hint: Any) -> bool:
    """Whether anything may be in what the hint is of, as Any or dict[str, Any]."""
    return hint is Any or hint is object or any(map(_says_nothing, typing.get_args(hint)))


def _rebuilt(value: Any, change: Callable[[Personal], Personal]) -> Any:
    """The same value with each piece of personal text changed."""
    if isinstance(value, Personal):
        return change(value)
    if isinstance(value, dict):
        return {key: _rebuilt(part, change) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_rebuilt(part, change) for part in value)
    if dataclasses.is_dataclass(value) and any(True for _ in personal_in(value)):
        parts = {
            field.name: _rebuilt(getattr(value, field.name), change)
            for field in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **parts)  # type: ignore[type-var]
    return value


def _place(stream: UUID | str, version: int) -> str:
    """Names an event to the vault."""
    return f"{stream}:{version}"


def _check_places(codec: _Codec, body: Any, stream: UUID | str, version: int) -> None:
    place = _place(stream, version)
    for name in codec.personal:
        for personal in personal_in(getattr(body, name)):
            if not Vault.is_for(personal, event=place, field=name):
                raise ValueError(f"{name} holds a text that was sealed for another place")


def decode_body(
    topic: str, stream_id: UUID | str, version: int, class_version: int, state: bytes | memoryview
) -> Any:
    """The body in a row of the log, as the present version of its class has it, with its personal
    fields unopened. Errors: as `decode_event`."""
    codec = codec_of(topic)
    body = codec.decode(state, class_version)
    if codec.personal:
        _check_places(codec, body, stream_id, version)
    return body


def decode_event(
    topic: str,
    stream_id: UUID,
    version: int,
    class_version: int,
    occurred_at: Any,
    state: bytes,
) -> Any:
    """The event in a row of the log, its personal fields unopened.

    Errors: `ValueError` for a body that does not fit its class, and for personal text that was
    sealed for another event or field.
    """
    codec = codec_of(topic)
    body = codec.decode(state, class_version)
    if codec.personal:
        _check_places(codec, body, stream_id, version)
    event: Any = object.__new__(codec.cls)
    fields = event.__dict__
    fields.update(codec.fields(body))
    fields["originator_id"] = stream_id
    fields["originator_version"] = version
    fields["timestamp"] = occurred_at
    if version == 1:
        fields["originator_topic"] = topic.rpartition(".")[0]
    return event


class EventMapper(Mapper[UUID]):
    """Domain events to rows of the log and back; aggregates' states to snapshots and back."""

    def __init__(self, vault: Vault, transcoder: Transcoder | None = None) -> None:
        super().__init__(transcoder or EventTranscoder())
        self._vault = vault

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        """The row's part that the event decides. Personal text is sealed with its subject's key.

        Errors: `KeyNotCached` where the vault has to be asked first (see `Vault`).
        """
        values = vars(domain_event)
        cls = type(domain_event)
        stream, version = domain_event.originator_id, domain_event.originator_version
        if isinstance(domain_event, Snapshot):
            codec = state_codec(resolve_topic(domain_event.topic))
            return LedgerEvent(
                originator_id=stream,
                originator_version=version,
                topic=domain_event.topic,
                state=codec.encode(domain_event.state),
                class_version=codec.version,
            )
        codec = event_codec(cls)
        return LedgerEvent(
            originator_id=stream,
            originator_version=version,
            topic=get_topic(cls),
            state=codec.encode(self._sealed(codec, values, stream, version)),
            class_version=codec.version,
            occurred_at=values["timestamp"],
        )

    def _sealed(
        self, codec: _Codec, values: dict[str, Any], stream: UUID, version: int
    ) -> dict[str, Any]:
        if not codec.holds_personal:
            return values
        place = _place(stream, version)
        for name in codec.names:
            for personal in personal_in(values.get(name)):
                if not Vault.is_for(personal, event=place, field=name):
                    self._vault.seal(personal, event=place, field=name)
        return values

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """The event with its personal text opened, or without text where the key is destroyed."""
        class_version = getattr(stored_event, "class_version", 1)
        cls = resolve_topic(stored_event.topic)
        stream = cast(UUID, stored_event.originator_id)
        if issubclass(cls, LedgerAggregate):
            codec = state_codec(cls)
            body = codec.decode(stored_event.state, class_version)
            state = self._opened(codec, codec.fields(body))
            state["class_version"] = codec.version
            return cls.Snapshot(
                originator_id=stream,
                originator_version=stored_event.originator_version,
                timestamp=state["_modified_on"],
                topic=stored_event.topic,
                state=state,
            )
        event = decode_event(
            stored_event.topic,
            stream,
            stored_event.originator_version,
            class_version,
            getattr(stored_event, "occurred_at", None),
            stored_event.state,
        )
        codec = event_codec(cls)
        if codec.holds_personal:
            event.__dict__.update(
                self._opened(codec, {name: event.__dict__[name] for name in codec.names})
            )
        return event

    def _opened(self, codec: _Codec, values: dict[str, Any]) -> dict[str, Any]:
        if not codec.holds_personal:
            return values
        self._vault.fetch({p.subject for value in values.values() for p in personal_in(value)})
        return {name: _rebuilt(value, self._vault.opened) for name, value in values.items()}
