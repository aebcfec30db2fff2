"""The kept schemas and the AsyncAPI document are what the code emits, and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contract.__main__ import main
from infra.contract.asyncapi import ASYNCAPI, documents
from infra.eventstore.records import LedgerEvent
from infra.eventstore.transcoder import EventMapper, event_codec
from infra.kafka import (
    CHECKPOINT_CONTENT,
    WATERMARK,
    Outgoing,
    Record,
    event_record,
    watermark_record,
)
from infra.settings import Settings
from infra.vault import KeyNotCached
from tests.contract.kept import CLASSES, CONTRACT, VERSIONS, closed, schema, validator
from tests.contract.made_up import allowed, spoiled
from tests.unit.infra.instances import events, texts, times
from tests.unit.infra.keys import KeyTable, vault

DOCUMENT: dict[str, Any] = json.loads((CONTRACT / ASYNCAPI).read_text("utf-8"))
CURRENT = [(topic, event_codec(cls).version) for topic, cls in CLASSES.items()]
named = pytest.mark.parametrize(("topic", "version"), CURRENT, ids=str)


@pytest.fixture(scope="module")
def mapper() -> EventMapper:
    return EventMapper(vault(KeyTable(), remember=3600.0))


def stored(mapper: EventMapper, event: Any) -> LedgerEvent:
    while True:
        try:
            return cast(LedgerEvent, mapper.to_stored_event(event))
        except KeyNotCached as missing:
            mapper._vault.prepare([missing.subject])


def as_the_server_writes(time: datetime) -> str:
    """PostgreSQL's text of a time, in a session in UTC."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(' ')}+00"


@st.composite
def sent(draw: st.DrawFn, row: LedgerEvent) -> Record:
    """The record of an event, with any envelope."""
    optional = st.none() | st.uuids().map(str)
    outgoing = Outgoing(
        position=draw(st.integers(1, 2**63 - 1)),
        stream_id=str(row.originator_id),
        version=row.originator_version,
        topic=row.topic,
        partition_key=str(draw(st.uuids())),
        occurred_at=as_the_server_writes(cast(datetime, row.occurred_at)),
        recorded_at=as_the_server_writes(draw(times)),
        recorded_ms=0,
        actor=draw(texts),
        command_id=str(draw(st.uuids())),
        correlation_id=str(draw(st.uuids())),
        causation_id=draw(optional),
        reason=draw(st.none() | texts),
        traceparent=draw(st.none() | st.just(f"00-{uuid4().hex}-{uuid4().hex[:16]}-01")),
        class_version=row.class_version,
        state=row.state,
    )
    previous = draw(st.integers(0, outgoing.position - 1))
    return event_record(outgoing, previous, str(draw(st.uuids())).encode())


def header_schema(message: dict[str, Any]) -> dict[str, Any]:
    """Of one message, with what it refers to in the document."""
    return {**message["headers"], "components": DOCUMENT["components"]}


def header_values(record: Record) -> dict[str, str]:
    assert len(dict(record.headers)) == len(record.headers)
    return {name: value.decode() for name, value in record.headers}


def test_what_is_kept_is_what_the_code_says() -> None:
    for path, text in documents().items():
        file = CONTRACT / path
        kept = file.read_text("utf-8") if file.exists() else None
        assert kept == text, f"{path} is not what the code says any more: `make contract`"


def test_nothing_else_is_kept() -> None:
    kept = {str(file.relative_to(CONTRACT)) for file in CONTRACT.rglob("*.json")}
    assert kept == {ASYNCAPI, *(f"schemas/{topic}/v{version}.json" for topic, version in VERSIONS)}


def test_the_command_writes_what_differs_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tmp_path) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(documents())
    (tmp_path / ASYNCAPI).write_text("{}")
    assert main(tmp_path) == 0
    assert capsys.readouterr().out == f"{tmp_path / ASYNCAPI}\n"
    assert (tmp_path / ASYNCAPI).read_text("utf-8") == documents()[ASYNCAPI]


def test_the_command_does_not_change_what_was_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(tmp_path)
    file = tmp_path / "schemas" / "crm.customer.won-back" / "v1.json"
    published = json.loads(file.read_text("utf-8"))
    published["properties"]["why"] = {"type": "string"}
    file.write_text(json.dumps(published))
    (tmp_path / ASYNCAPI).write_text("{}")
    assert main(tmp_path) == 1
    said = capsys.readouterr().err
    assert "crm.customer.won-back/v1.json/properties/why: removed" in said
    assert json.loads(file.read_text("utf-8")) == published
    assert (tmp_path / ASYNCAPI).read_text() == "{}"


@named
@settings(max_examples=15)
@given(data=st.data())
def test_bodies_and_headers_are_as_described(
    mapper: EventMapper, topic: str, version: int, data: st.DataObject
) -> None:
    row = stored(mapper, data.draw(events(CLASSES[topic])))
    record = data.draw(sent(row))
    assert record.value == row.state
    described = schema(topic, version)
    body = json.loads(record.value)
    validator(closed(described)).validate(body)

    message = DOCUMENT["components"]["messages"][topic]
    headers = header_values(record)
    complete = header_schema(message) | {"unevaluatedProperties": False}
    validator(complete).validate(headers)
    assert headers["ce_dataschema"] == described["$id"]
    validator(message["bindings"]["kafka"]["key"]).validate(record.key.decode())
    assert record.key.decode() == headers["ce_partitionkey"]


@named
@settings(max_examples=5)
@given(data=st.data())
def test_what_is_wrong_is_refused(
    mapper: EventMapper, topic: str, version: int, data: st.DataObject
) -> None:
    row = stored(mapper, data.draw(events(CLASSES[topic])))
    described = schema(topic, version)
    check = validator(described)
    for body in spoiled(json.loads(row.state), described, described):
        assert not check.is_valid(body), body

    headers = header_values(data.draw(sent(row)))
    check = validator(header_schema(DOCUMENT["components"]["messages"][topic]))
    optional = {"ce_causationid", "ce_reason", "traceparent"}
    for name in headers.keys() - optional:
        assert not check.is_valid({n: v for n, v in headers.items() if n != name}), name
    for name in headers.keys() - {"ce_actor", "ce_reason"}:
        assert not check.is_valid({**headers, name: "nonsense"}), name


@pytest.mark.parametrize(("topic", "version"), VERSIONS, ids=str)
@settings(max_examples=15)
@given(data=st.data())
def test_what_any_version_allows_can_be_read(topic: str, version: int, data: st.DataObject) -> None:
    described = schema(topic, version)
    body = data.draw(allowed(described, described))
    validator(closed(described)).validate(body)
    codec = event_codec(CLASSES[topic])
    fields = codec.fields(codec.decode(json.dumps(body).encode(), version))
    again = json.loads(codec.encode(fields))
    validator(closed(schema(topic, codec.version))).validate(again)


def test_watermarks_are_as_described() -> None:
    message = DOCUMENT["components"]["messages"][WATERMARK]
    epoch = str(uuid4()).encode()
    for position, previous, at in (
        (0, 0, datetime(2024, 1, 1, tzinfo=UTC)),
        (2**40, 17, datetime(2024, 1, 1, 9, 30, 0, 5, tzinfo=UTC)),
    ):
        record = watermark_record(position, previous, 11, epoch, at)
        complete = header_schema(message) | {"unevaluatedProperties": False}
        validator(complete).validate(header_values(record))
        validator(closed(message["payload"])).validate(json.loads(record.value))
        validator(message["bindings"]["kafka"]["key"]).validate(record.key.decode())
    headers = header_values(record)
    for name in headers:
        assert not validator(complete).is_valid({n: v for n, v in headers.items() if n != name})
        assert not validator(complete).is_valid({**headers, name: "nonsense"})


# ---- the document as a document ----


def references(part: Any) -> list[str]:
    if isinstance(part, list):
        return [found for one in part for found in references(one)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    return own + [found for one in part.values() for found in references(one)]


def resolved(reference: str) -> Any:
    if reference.startswith("./"):
        return json.loads((CONTRACT / reference).read_text("utf-8"))
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_the_document_has_what_asyncapi_asks_for() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    for server in DOCUMENT["servers"].values():
        assert {"host", "protocol"} <= server.keys()
        names = {part.split("}")[0] for part in server["host"].split("{")[1:]}
        assert names == server["variables"].keys()
    channels = {f"#/channels/{name}" for name in DOCUMENT["channels"]}
    actions = set()
    for operation in DOCUMENT["operations"].values():
        assert operation["channel"]["$ref"] in channels
        actions.add(operation["action"])
    assert actions == {"send", "receive"}
    for name, message in DOCUMENT["components"]["messages"].items():
        assert message["headers"]["type"] == "object"
        text = CHECKPOINT_CONTENT if name == "checkpoint" else "application/json"
        assert message["contentType"] == text


def test_every_reference_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert len(found) > len(CLASSES)
    for reference in found:
        assert isinstance(resolved(reference), dict), reference


def test_every_event_is_a_message_of_the_channel() -> None:
    assert DOCUMENT["channels"].keys() == {"events", "checkpoints"}
    channel = DOCUMENT["channels"]["events"]
    assert channel["messages"].keys() == {*CLASSES, WATERMARK}
    assert channel["address"] == Settings.model_fields["kafka_topic"].default
    for topic in CLASSES:
        message = resolved(channel["messages"][topic]["$ref"])
        bodies = [resolved(reference) for reference in references(message["payload"])]
        versions = message["headers"]["properties"]["ce_dataschema"]["enum"]
        assert [body["$id"] for body in bodies] == versions


def test_checkpoints_have_a_channel_of_their_own() -> None:
    channel = DOCUMENT["channels"]["checkpoints"]
    assert channel["address"] == f"{Settings.model_fields['kafka_topic'].default}.checkpoints"
    (reference,) = channel["messages"].values()
    assert resolved(reference["$ref"])["payload"] == {"type": "string"}


def test_every_schema_is_one() -> None:
    for topic, version in VERSIONS:
        jsonschema_rs.meta.validate(schema(topic, version))
    for message in DOCUMENT["components"]["messages"].values():
        jsonschema_rs.meta.validate({**message["headers"]})
        jsonschema_rs.meta.validate({**message["bindings"]["kafka"]["key"]})


def test_the_contract_names_ids_that_are_stable() -> None:
    stream = UUID("561f37cc-4644-5193-99d7-f6c7b2539bd1")
    row = Outgoing(
        position=2, stream_id=str(stream), version=3, topic="crm.customer.won-back",
        partition_key=str(stream), occurred_at="2024-01-11 21:00:00+00",
        recorded_at="2024-01-11 21:00:00.123456+00", recorded_ms=1705006800123, actor="seller-7",
        command_id=str(stream), correlation_id=str(stream), causation_id=None, reason=None,
        traceparent=None, class_version=1, state=b"{}",
    )  # fmt: skip
    assert header_values(event_record(row, 1, str(stream).encode())) == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": "a475a55b-d46b-cb42-e1fb-8c203d8aaf15",
        "ce_source": "/crm-ledger",
        "ce_type": "crm.customer.won-back",
        "ce_subject": str(stream),
        "ce_time": "2024-01-11T21:00:00Z",
        "ce_dataschema": "urn:crm-ledger:crm.customer.won-back:1",
        "ce_version": "3",
        "ce_position": "2",
        "ce_previous": "1",
        "ce_partitionkey": str(stream),
        "ce_epoch": str(stream),
        "ce_recordedtime": "2024-01-11T21:00:00.123456Z",
        "ce_actor": "seller-7",
        "ce_commandid": str(stream),
        "ce_correlationid": str(stream),
    }
