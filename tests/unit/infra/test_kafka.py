"""Records of the topic: what the relay writes is what a reader finds."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import KafkaTimeoutError

import infra.kafka
from infra.eventstore.feed import Undecodable, recorded
from infra.ids import event_id
from infra.kafka import (
    SOURCE,
    WATERMARK,
    KafkaUnavailable,
    NotOurs,
    Outgoing,
    Record,
    Topic,
    arrived,
    client_options,
    event_record,
    watermark_record,
)
from infra.settings import load
from tests.unit.infra.certificates import Authority

EPOCH = UUID("11111111-2222-4333-8444-555555555555")
STREAM = UUID("aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee")
AT = datetime(2026, 1, 31, 9, 0, 0, 250_000, tzinfo=UTC)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=50)
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


def as_server_writes(at: datetime) -> str:
    return at.isoformat(" ").removesuffix(":00")


def outgoing(**changes: Any) -> Outgoing:
    fields: dict[str, Any] = {
        "position": 7,
        "stream_id": str(STREAM),
        "version": 3,
        "topic": "crm.opportunity.amount-changed",
        "partition_key": str(EPOCH),
        "occurred_at": as_server_writes(AT),
        "recorded_at": as_server_writes(AT),
        "recorded_ms": 1_769_850_000_250,
        "actor": "tester",
        "command_id": str(STREAM),
        "correlation_id": str(EPOCH),
        "causation_id": None,
        "reason": None,
        "traceparent": None,
        "class_version": 2,
        "state": b'{"amount":1}',
    }
    return Outgoing(**{**fields, **changes})


def consumed(record: Record, partition: int = 4, offset: int = 9) -> Any:
    return SimpleNamespace(
        partition=partition, offset=offset, headers=record.headers, value=record.value
    )


def record_of(row: Outgoing) -> Record:
    return event_record(row, 5, str(EPOCH).encode())


def test_an_event_s_id_is_that_of_the_log_s_outbox():
    digest = hashlib.md5(f"{STREAM}:3".encode()).hexdigest()
    assert event_id(STREAM, 3) == event_id(str(STREAM), 3) == UUID(digest)
    assert dict(record_of(outgoing()).headers)["ce_id"].decode() == str(UUID(digest))


def test_an_event_is_a_cloud_event_in_binary_mode():
    record = record_of(outgoing())
    headers = {name: value.decode() for name, value in record.headers}
    assert headers == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_source": SOURCE,
        "ce_id": str(event_id(STREAM, 3)),
        "ce_type": "crm.opportunity.amount-changed",
        "ce_subject": str(STREAM),
        "ce_time": "2026-01-31T09:00:00.250000Z",
        "ce_dataschema": "urn:crm-ledger:crm.opportunity.amount-changed:2",
        "ce_version": "3",
        "ce_position": "7",
        "ce_previous": "5",
        "ce_partitionkey": str(EPOCH),
        "ce_epoch": str(EPOCH),
        "ce_recordedtime": "2026-01-31T09:00:00.250000Z",
        "ce_actor": "tester",
        "ce_commandid": str(STREAM),
        "ce_correlationid": str(EPOCH),
    }
    assert record.key == str(EPOCH).encode()
    assert record.value == b'{"amount":1}'
    assert record.timestamp_ms == 1_769_850_000_250
    assert all(name.removeprefix("ce_").islower() for name in headers if name != "content-type")


@given(
    actor=texts,
    reason=st.none() | texts,
    causation=st.none() | st.uuids(),
    traceparent=st.none() | st.just("00-1-2-01"),
    occurred_at=times,
    ids=st.tuples(st.uuids(), st.uuids(), st.uuids(), st.uuids()),
    version=st.integers(1, 2**31 - 1),
    class_version=st.integers(1, 2**15 - 1),
)
def test_what_is_read_is_the_row_that_was_written(
    actor: str,
    reason: str | None,
    causation: UUID | None,
    traceparent: str | None,
    occurred_at: datetime,
    ids: tuple[UUID, UUID, UUID, UUID],
    version: int,
    class_version: int,
):
    stream, key, command, correlation = ids
    row = outgoing(
        stream_id=str(stream),
        version=version,
        partition_key=str(key),
        occurred_at=as_server_writes(occurred_at),
        actor=actor,
        command_id=str(command),
        correlation_id=str(correlation),
        causation_id=None if causation is None else str(causation),
        reason=reason,
        traceparent=traceparent,
        class_version=class_version,
    )
    found = arrived(consumed(record_of(row)))
    assert (found.partition, found.offset) == (4, 9)
    assert (found.position, found.previous, found.epoch) == (7, 5, EPOCH)
    assert (found.topic, found.watermark) == (row.topic, False)
    assert found.traceparent == traceparent
    assert found.recorded() == recorded(
        (
            7,
            stream,
            version,
            row.topic,
            key,
            occurred_at,
            AT,
            actor,
            str(command),
            str(correlation),
            None if causation is None else str(causation),
            reason,
            traceparent,
            class_version,
            row.state,
        )
    )


def test_a_body_that_does_not_fit_its_class_is_left_to_the_reader():
    found = arrived(consumed(record_of(outgoing(state=b"{"))))
    assert isinstance(found.recorded().event, Undecodable)


def test_a_watermark_only_says_how_far_its_partition_is():
    record = watermark_record(8, 5, 4, str(EPOCH).encode(), AT)
    found = arrived(consumed(record))
    assert found.watermark
    assert (found.position, found.previous, found.epoch, found.id) == (8, 5, EPOCH, "8-4")
    assert found.topic == WATERMARK
    assert record.value == b'{"position":8}'
    assert dict(record.headers)["ce_time"] == b"2026-01-31T09:00:00.250000Z"
    with pytest.raises(NotOurs):
        found.recorded()


@pytest.mark.parametrize(
    "name",
    ["ce_position", "ce_previous", "ce_epoch", "ce_type", "ce_subject", "ce_version", "ce_actor"],
)
def test_a_record_without_our_headers_is_not_ours(name: str):
    record = record_of(outgoing())
    without = [(other, value) for other, value in record.headers if other != name]
    with pytest.raises(NotOurs):
        arrived(consumed(record._replace(headers=without)))


@pytest.mark.parametrize("value", [b"seven", b"", b"\xff", None])
@pytest.mark.parametrize("name", ["ce_position", "ce_epoch"])
def test_a_record_with_malformed_headers_is_not_ours(name: str, value: bytes | None):
    record = record_of(outgoing())
    changed: Any = [(other, value if other == name else it) for other, it in record.headers]
    with pytest.raises(NotOurs):
        arrived(consumed(record._replace(headers=changed)))


@pytest.mark.parametrize("name", ["ce_subject", "ce_time", "ce_dataschema", "ce_version"])
def test_what_is_malformed_further_down_is_not_ours_either(name: str):
    record = record_of(outgoing())
    changed = [(other, b"?" if other == name else it) for other, it in record.headers]
    with pytest.raises(NotOurs):
        arrived(consumed(record._replace(headers=changed))).recorded()


def test_a_client_is_told_where_kafka_is_and_how_to_log_in(authority: Authority):
    environment = {
        "CRM_KAFKA_BOOTSTRAP": "one:9092, two:9092",
        "CRM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "CRM_KAFKA_USERNAME": "relay",
        "CRM_KAFKA_PASSWORD": "secret",
        "CRM_KAFKA_CA_FILE": str(authority.certificate),
    }
    options = client_options(load(environment))
    assert options["bootstrap_servers"] == ["one:9092", "two:9092"]
    assert options["ssl_cafile"] == str(authority.certificate)
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_username"] == "relay"
    assert options["sasl_plain_password"] == "secret"
    plain = client_options(load({"CRM_KAFKA_BOOTSTRAP": "one:9092"}))
    assert not [name for name in plain if name.startswith(("sasl", "ssl"))]


def test_without_an_address_there_is_no_kafka():
    with pytest.raises(ValueError):
        client_options(load({}))


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_SSL"])
def test_kafka_that_is_not_reached_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, protocol: str
):
    def timed_out(**_: object) -> None:
        raise KafkaTimeoutError("Unable to bootstrap")

    monkeypatch.setattr(infra.kafka, "KafkaAdminClient", timed_out)
    login = {"CRM_KAFKA_USERNAME": "relay", "CRM_KAFKA_PASSWORD": "hunter2hunter2"}
    settings = load(
        {"CRM_KAFKA_BOOTSTRAP": "127.0.0.1:1", "CRM_KAFKA_SECURITY_PROTOCOL": protocol, **login}
    )
    with pytest.raises(KafkaUnavailable, match=r"; 127\.0\.0\.1:1: refused$") as unreachable:
        Topic(settings)
    assert "hunter2" not in str(unreachable.value)


@pytest.mark.parametrize(
    ("code", "told"),
    [(29, "TOPIC_AUTHORIZATION_FAILED (error 29)"), (9999, "error 9999")],
)
def test_what_a_broker_says_of_the_topic_is_told_by_name(
    monkeypatch: pytest.MonkeyPatch, code: int, told: str
):
    admin = SimpleNamespace(
        describe_topics=lambda _: [{"error_code": code, "partitions": []}], close=lambda: None
    )
    monkeypatch.setattr(infra.kafka, "_connected", lambda *_, **__: admin)
    topic = Topic(load({"CRM_KAFKA_BOOTSTRAP": "one:9092"}))
    with pytest.raises(KafkaUnavailable, match=f"^{re.escape(f'topic crm.events: {told}')}$"):
        topic.state()
