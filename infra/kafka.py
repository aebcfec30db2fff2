"""Kafka: what a record of the log looks like in the topic, and the clients that write and read it.

A record is a CloudEvent 1.0 in binary mode: attributes are headers, the value is the event's body
as the log stores it. Besides events the topic holds watermarks, which only say how complete a
partition is.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic, OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError, KafkaTimeoutError, TopicAlreadyExistsError, for_code
from kafka.net.compat import KafkaNetClient

from infra.eventstore.feed import Recorded, recorded
from infra.reachability import why_not_reached
from infra.settings import Settings

Headers = list[tuple[str, bytes]]

SOURCE = "/crm-ledger"
WATERMARK = "crm.log.watermark"
"""Type of the records that hold no event: every event of this partition up to the record's
position lies before it."""

CHECKPOINTS = ".checkpoints"
"""What the name of the topic of checkpoints adds to that of the log."""
CHECKPOINT_CONTENT = "text/plain; charset=utf-8"

OUTGOING_COLUMNS = """position, stream_id::text, version, topic, partition_key::text,
    occurred_at::text, recorded_at::text, (extract(epoch FROM recorded_at) * 1000)::bigint,
    actor, command_id::text, correlation_id::text, causation_id::text, reason, traceparent,
    class_version, state"""
"""What `Outgoing` is made of: the server writes ids and times, as nobody here reads them."""

_PREFIX = "urn:crm-ledger:"
_FIXED: Headers = [
    ("content-type", b"application/json"),
    ("ce_specversion", b"1.0"),
    ("ce_source", SOURCE.encode()),
]
_OF_EVENTS = frozenset(
    {
        "ce_subject",
        "ce_time",
        "ce_dataschema",
        "ce_version",
        "ce_partitionkey",
        "ce_recordedtime",
        "ce_actor",
        "ce_commandid",
        "ce_correlationid",
    }
)


class KafkaUnavailable(RuntimeError):
    """Kafka cannot be reached or does not answer; the message says what it said."""


class NotOurs(ValueError):
    """A record in the topic that was not written by a relay of this product."""


class Outgoing(NamedTuple):
    """A row of the log as it is carried on: `OUTGOING_COLUMNS` of a session in UTC."""

    position: int
    stream_id: str
    version: int
    topic: str
    partition_key: str
    occurred_at: str
    recorded_at: str
    recorded_ms: int
    actor: str
    command_id: str
    correlation_id: str
    causation_id: str | None
    reason: str | None
    traceparent: str | None
    class_version: int
    state: bytes | memoryview


class Record(NamedTuple):
    """What is sent. `timestamp_ms` is milliseconds since 1970."""

    key: bytes
    value: bytes
    headers: Headers
    timestamp_ms: int


def event_record(row: Outgoing, previous: int, epoch: bytes) -> Record:
    """The record of an event. `previous` is the position of the event before it in its partition,
    0 if there is none; `epoch` the log's store epoch as text."""
    identity = f"{row.stream_id}:{row.version}".encode()
    digest = hashlib.md5(identity, usedforsecurity=False).hexdigest()
    key = row.partition_key.encode()
    headers = [
        *_FIXED,
        ("ce_id", _dashed(digest)),
        ("ce_type", row.topic.encode()),
        ("ce_subject", row.stream_id.encode()),
        ("ce_time", _rfc3339(row.occurred_at)),
        ("ce_dataschema", f"{_PREFIX}{row.topic}:{row.class_version}".encode()),
        ("ce_version", b"%d" % row.version),
        ("ce_position", b"%d" % row.position),
        ("ce_previous", b"%d" % previous),
        ("ce_partitionkey", key),
        ("ce_epoch", epoch),
        ("ce_recordedtime", _rfc3339(row.recorded_at)),
        ("ce_actor", row.actor.encode()),
        ("ce_commandid", row.command_id.encode()),
        ("ce_correlationid", row.correlation_id.encode()),
    ]
    if row.causation_id is not None:
        headers.append(("ce_causationid", row.causation_id.encode()))
    if row.reason is not None:
        headers.append(("ce_reason", row.reason.encode()))
    if row.traceparent is not None:
        headers.append(("traceparent", row.traceparent.encode()))
    return Record(key, bytes(row.state), headers, row.recorded_ms)


def watermark_record(
    position: int, previous: int, partition: int, epoch: bytes, at: datetime
) -> Record:
    """The record that says: every event of `partition` up to `position` lies before this."""
    headers = [
        *_FIXED,
        ("ce_id", b"%d-%d" % (position, partition)),
        ("ce_type", WATERMARK.encode()),
        ("ce_time", at.astimezone(UTC).isoformat().replace("+00:00", "Z").encode()),
        ("ce_position", b"%d" % position),
        ("ce_previous", b"%d" % previous),
        ("ce_epoch", epoch),
    ]
    value = b'{"position":%d}' % position
    return Record(WATERMARK.encode(), value, headers, int(at.timestamp() * 1000))


def _dashed(digits: str) -> bytes:
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts).encode()


def _rfc3339(text: str) -> bytes:
    """A time as the server writes it in UTC, `2026-01-31 09:00:00.25+00`, for everybody."""
    return f"{text[:10]}T{text[11:-3]}Z".encode()


@lru_cache(maxsize=8)
def _epoch(text: bytes) -> UUID:
    return UUID(text.decode())


def _id(text: bytes) -> UUID:
    return UUID(int=int(text.replace(b"-", b""), 16))


class Arrived:
    """A record as a reader meets it: what decides whether it is applied. The rest on demand."""

    __slots__ = (
        "_headers",
        "_value",
        "epoch",
        "offset",
        "partition",
        "position",
        "previous",
        "topic",
        "traceparent",
        "watermark",
    )

    def __init__(
        self, partition: int, offset: int, headers: Mapping[str, bytes], value: bytes
    ) -> None:
        """Raises what missing and malformed headers raise."""
        self.partition = partition
        self.offset = offset
        self.position = int(headers["ce_position"])
        self.previous = int(headers["ce_previous"])
        self.epoch = _epoch(headers["ce_epoch"])
        self.topic = headers["ce_type"].decode()
        self.watermark = self.topic == WATERMARK
        traceparent = headers.get("traceparent")
        self.traceparent = None if traceparent is None else traceparent.decode()
        self._headers = headers
        self._value = value

    @property
    def id(self) -> str:
        """Of an event that of `infra.ids.event_id`."""
        return self._headers["ce_id"].decode()

    def recorded(self) -> Recorded:
        """The event, as the store feed reads it from the log; `Undecodable` where its body does
        not fit its class. Raises `NotOurs` for headers that no relay writes."""
        headers = self._headers
        causation = headers.get("ce_causationid")
        reason = headers.get("ce_reason")
        try:
            row = (
                self.position,
                _id(headers["ce_subject"]),
                int(headers["ce_version"]),
                self.topic,
                _id(headers["ce_partitionkey"]),
                datetime.fromisoformat(headers["ce_time"].decode()),
                datetime.fromisoformat(headers["ce_recordedtime"].decode()),
                headers["ce_actor"].decode(),
                headers["ce_commandid"].decode(),
                headers["ce_correlationid"].decode(),
                None if causation is None else causation.decode(),
                None if reason is None else reason.decode(),
                self.traceparent,
                int(headers["ce_dataschema"].rpartition(b":")[2]),
                self._value,
            )
        except (KeyError, ValueError, AttributeError) as error:
            raise NotOurs(f"position {self.position}: {error!r}") from error
        return recorded(row)


def arrived(record: Any) -> Arrived:
    """What a consumer was given. Raises `NotOurs` for a record that no relay wrote."""
    headers = dict(record.headers)
    try:
        found = Arrived(record.partition, record.offset, headers, record.value)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise NotOurs(f"{record.partition}/{record.offset}: {error!r}") from error
    if not found.watermark and not headers.keys() >= _OF_EVENTS:
        missing = ", ".join(sorted(_OF_EVENTS - headers.keys()))
        raise NotOurs(f"{record.partition}/{record.offset}: without {missing}")
    return found


def quiet_client() -> None:
    """The client logs each try to connect, many a second while Kafka is away. What comes of it is
    raised or found in a record's answer as well, and told once by whoever asked."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


BOOTSTRAP_SECONDS = 5
DELIVERY_SECONDS = 15
"""From when a record is handed to the producer until it counts as not sent."""


def largest_record(settings: Settings) -> int:
    """Bytes: the largest body a command may have, with what sealing and headers add."""
    return 2 * settings.max_body_bytes + 131_072


def client_options(settings: Settings) -> dict[str, Any]:
    """Where Kafka is and how to log in: for every kind of client. Raises `ValueError` without
    `kafka_bootstrap`."""
    if settings.kafka_bootstrap is None:
        raise ValueError("kafka_bootstrap is not set")
    options: dict[str, Any] = {
        "bootstrap_servers": [one.strip() for one in settings.kafka_bootstrap.split(",")],
        "bootstrap_timeout_ms": BOOTSTRAP_SECONDS * 1000,
        "client_id": "crm-ledger",
        "reconnect_backoff_max_ms": 1000,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_ca_file is not None:
        options["ssl_cafile"] = str(settings.kafka_ca_file)
    if settings.kafka_security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_username
        if settings.kafka_password is not None:
            options["sasl_plain_password"] = settings.kafka_password.get_secret_value()
    return options


@contextmanager
def speaking() -> Iterator[None]:
    """What the client raises while this is entered becomes `KafkaUnavailable`."""
    try:
        yield
    except KafkaUnavailable:
        raise
    except KafkaError as error:
        raise KafkaUnavailable(str(error)) from error
    except (OSError, RuntimeError) as error:
        raise KafkaUnavailable(f"{type(error).__name__}: {error}") from error


def _connected(kind: Callable[..., Any], **options: Any) -> Any:
    """A client. One that cannot connect would leave its thread and sockets behind: they are closed
    by way of the part that holds them. What `KafkaUnavailable` says then is what a connection of
    our own has met with."""
    parts: list[Any] = []

    def part(**given: Any) -> Any:
        client = KafkaNetClient(**given)
        # The client does not hand this option on (3.0.12). Left as it is, asking for a topic that
        # was deleted would make one, with whatever number of partitions.
        client.cluster.config["allow_auto_create_topics"] = False
        parts.append(client)
        return client

    with speaking():
        try:
            return kind(**options, kafka_client=part)
        except BaseException as error:
            for one in parts:
                with suppress(Exception):
                    one.close()
            if not isinstance(error, KafkaTimeoutError):
                raise
            why = why_not_reached(
                options["bootstrap_servers"][0],
                tls=options["security_protocol"].endswith("SSL"),
                ca_file=options.get("ssl_cafile"),
            )
            raise KafkaUnavailable(f"{error}; {why}") from error


def make_producer(settings: Settings) -> KafkaProducer:
    """Idempotent, acknowledged by all replicas in sync. A record fails after `DELIVERY_SECONDS`.

    After a failure records sent later may still arrive: `discard` it and begin anew from what is
    known to be acknowledged. Raises `KafkaUnavailable`.
    """
    return _connected(
        KafkaProducer,
        **client_options(settings),
        acks="all",
        enable_idempotence=True,
        linger_ms=2,
        batch_size=131_072,
        max_request_size=largest_record(settings),
        delivery_timeout_ms=DELIVERY_SECONDS * 1000,
        request_timeout_ms=10_000,
        max_block_ms=5_000,
        metadata_max_age_ms=60_000,
        allow_auto_create_topics=False,
        metrics_enabled=False,
    )


def discard(producer: KafkaProducer, timeout: float = 2.0) -> None:
    """Ends a producer without sending what it still holds, in at most `timeout` seconds or so.

    Its own `close` flushes first and, if that takes longer than it may, raises and leaves it
    running.
    """
    sender = producer._sender
    sender.force_close()
    sender.join(timeout)
    with suppress(KafkaError):
        producer.close(timeout=0)


class Assignor(CooperativeStickyAssignor):  # type: ignore[misc]
    """Says what it likes to be asked again: a member whose `salt` is another than when it joined
    last makes the group share out its partitions anew. (A broker that knows a member, and hears
    nothing new of it, repeats what it was given.)"""

    salt = b""

    def metadata(self, topics: Any) -> Any:
        subscription = super().metadata(topics)
        subscription.user_data = self.salt
        return subscription


def make_consumer(
    settings: Settings,
    *,
    group: str | None = None,
    instance: str | None = None,
    listener: ConsumerRebalanceListener | None = None,
    **options: Any,
) -> KafkaConsumer:
    """With a group: subscribed to the topic, partitions change hands cooperatively and `instance`
    keeps its own over a restart. Without one: nothing is assigned yet.

    Offsets are never committed by themselves. Raises `KafkaUnavailable`.
    """
    if group is not None:
        options = {
            "group_id": group,
            "group_instance_id": instance,
            "partition_assignment_strategy": [Assignor],
            **options,
        }
    defaults = {
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "allow_auto_create_topics": False,
        "fetch_max_bytes": 8_388_608,
        "metadata_max_age_ms": 60_000,
        "metrics_enabled": False,
    }
    consumer = _connected(KafkaConsumer, **{**client_options(settings), **defaults, **options})
    if group is not None:
        consumer.subscribe([settings.kafka_topic], listener=listener)
    return consumer


@contextmanager
def _admin(settings: Settings) -> Iterator[Any]:
    admin = _connected(KafkaAdminClient, **client_options(settings), request_timeout_ms=10_000)
    try:
        yield admin
    finally:
        with suppress(KafkaError, OSError, RuntimeError):
            admin.close()


def unassigned(settings: Settings, group: str) -> set[int]:
    """The partitions that a settled group has given to none of its members; of one that is not
    settled nothing is said. Raises `KafkaUnavailable`."""
    with _admin(settings) as admin, speaking():
        found = admin.describe_groups([group])[group]
    if found["group_state"] != "Stable":
        return set()
    given = {
        partition
        for member in found["members"]
        for topic in (member["member_assignment"] or {}).get("assigned_partitions", ())
        if topic["topic"] == settings.kafka_topic
        for partition in topic["partitions"]
    }
    return set(range(settings.partitions)) - given


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic at one moment, by partition: the first offset kept and the one after the last."""

    topic_id: UUID
    begins: list[int]
    ends: list[int]

    @property
    def partitions(self) -> int:
        return len(self.ends)

    @property
    def empty(self) -> bool:
        return self.begins == self.ends


class Topic:
    """The topic of the events: looked at, and made where it is missing. All methods raise
    `KafkaUnavailable`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = settings.kafka_topic
        self._admin = _connected(
            KafkaAdminClient, **client_options(settings), request_timeout_ms=10_000
        )

    def __enter__(self) -> Topic:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with suppress(KafkaError, OSError, RuntimeError):
            self._admin.close()

    def state(self) -> TopicState | None:
        """How it is now; None if there is none."""
        with speaking():
            (found,) = self._admin.describe_topics([self._name])
            if found["error_code"] == _UNKNOWN_TOPIC:
                return None
            if found["error_code"]:
                raise KafkaUnavailable(f"topic {self._name}: {_named(found['error_code'])}")
            every = [TopicPartition(self._name, n) for n in range(len(found["partitions"]))]
            ends = self._admin.list_partition_offsets(dict.fromkeys(every, OffsetSpec.LATEST))
            begins = self._admin.list_partition_offsets(dict.fromkeys(every, OffsetSpec.EARLIEST))
        return TopicState(
            UUID(found["topic_id"]),
            [begins[one].offset for one in every],
            [ends[one].offset for one in every],
        )

    def ensure(self) -> TopicState:
        """How it is now; made first if there is none: nothing in it ever expires."""
        state = self.state()
        if state is not None:
            return state
        topic = NewTopic(
            name=self._name,
            num_partitions=self._settings.partitions,
            replication_factor=self._settings.kafka_replication,
            topic_configs={
                "cleanup.policy": "delete",
                "retention.ms": "-1",
                "retention.bytes": "-1",
                "max.message.bytes": str(largest_record(self._settings)),
                # Records carry the log's time: clocks that differ are no reason to refuse them.
                "message.timestamp.after.max.ms": str(2**63 - 1),
            },
        )
        with speaking():
            with suppress(TopicAlreadyExistsError):
                self._admin.create_topics([topic])
            self._admin.wait_for_topics([self._name])
        state = self.state()
        if state is None:
            raise KafkaUnavailable(f"topic {self._name} was made and is not there")
        return state


_UNKNOWN_TOPIC = 3


def _named(code: int) -> str:
    """An error that a broker answered with, by the name that Kafka's documentation has for it."""
    name = for_code(code).message
    return f"error {code}" if name == "UNKNOWN" else f"{name} (error {code})"


def ensure_checkpoints(settings: Settings) -> str:
    """The topic of checkpoints, made if it is missing: one partition, nothing in it ever expires.

    Gives its name. Raises `KafkaUnavailable`.
    """
    name = settings.kafka_topic + CHECKPOINTS
    topic = NewTopic(
        name=name,
        num_partitions=1,
        replication_factor=settings.kafka_replication,
        topic_configs={
            "cleanup.policy": "delete",
            "retention.ms": "-1",
            "retention.bytes": "-1",
        },
    )
    with _admin(settings) as admin, speaking():
        with suppress(TopicAlreadyExistsError):
            admin.create_topics([topic])
        admin.wait_for_topics([name])
    return name


def ensure_topic(settings: Settings) -> TopicState:
    """The topic, made if it is missing. Raises `KafkaUnavailable`."""
    with Topic(settings) as topic:
        return topic.ensure()


def read_range(
    settings: Settings, ranges: Mapping[int, tuple[int, int]], timeout: float = 10.0
) -> dict[int, list[Any]]:
    """The consumer's records in [first, end) offsets of each partition, in order.

    Raises `KafkaUnavailable`, also when they have not all come after `timeout` seconds without
    any.
    """
    wanted = {partition: (low, high) for partition, (low, high) in ranges.items() if low < high}
    found: dict[int, list[Any]] = {partition: [] for partition in ranges}
    if not wanted:
        return found
    consumer = make_consumer(settings)
    with speaking():
        try:
            tps = {TopicPartition(settings.kafka_topic, partition) for partition in wanted}
            consumer.assign(list(tps))
            for tp in tps:
                consumer.seek(tp, wanted[tp.partition][0])
            while tps:
                batches: Mapping[Any, Sequence[Any]] = consumer.poll(timeout_ms=int(timeout * 1000))
                if not batches:
                    raise KafkaUnavailable(f"no records came for {timeout:g} s")
                for tp, records in batches.items():
                    end = wanted[tp.partition][1]
                    found[tp.partition] += [one for one in records if one.offset < end]
                for tp in [tp for tp in tps if consumer.position(tp) >= wanted[tp.partition][1]]:
                    tps.remove(tp)
                    consumer.pause(tp)
        finally:
            consumer.close()
    return found
