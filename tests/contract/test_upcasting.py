"""An event that was written in version 1 is in version 2 to whoever reads it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.aggregate import LedgerAggregate
from infra.contract.bodies import body_schema, event_classes
from infra.contract.compatibility import breaks
from infra.eventstore.feed import Recorded, Undecodable
from infra.history import states
from infra.history.lines import Lines
from infra.history.reading import Reading, span
from infra.history.texts import Marked
from infra.kafka import OUTGOING_COLUMNS, Outgoing, arrived, event_record
from infra.postgres import connect, quote
from projections import parking
from tests.contract.conftest import OldLog
from tests.contract.kept import Row, validator

pytestmark = pytest.mark.database


class Parcel(LedgerAggregate):
    """Once weighed in whole grams, now in kilograms."""

    TOPIC = "test.parcel"

    class Event(LedgerAggregate.Event):
        pass

    class Created(Event, LedgerAggregate.Created):
        TOPIC = "test.parcel.posted"

    class Weighed(Event):
        TOPIC = "test.parcel.weighed"
        class_version = 2
        kilograms: Decimal

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            state["kilograms"] = str(Decimal(state.pop("grams")) / 1000)

        def apply(self, aggregate: Any) -> None:
            aggregate.kilograms = self.kilograms


MARKED = Marked(lambda subjects: set())
PARCEL = UUID("00000000-0000-4000-8000-00000000000a")
BODIES = [
    ("posted", 1, "{}"),
    ("weighed", 1, '{"grams":1250}'),
    ("weighed", 2, '{"kilograms":"3"}'),
]
EXPECTED = [Decimal("1.25"), Decimal("3")]


def row(position: int, name: str, class_version: int, state: str) -> Row:
    at = datetime(2024, 1, position, tzinfo=UTC).isoformat()
    return {
        "position": position,
        "stream_id": str(PARCEL),
        "version": position,
        "topic": f"test.parcel.{name}",
        "partition_key": str(PARCEL),
        "occurred_at": at,
        "recorded_at": at,
        "actor": "tester",
        "command_id": str(uuid4()),
        "correlation_id": str(uuid4()),
        "causation_id": None,
        "reason": None,
        "traceparent": None,
        "class_version": class_version,
        "state": state,
    }


@pytest.fixture
def parcels(old_log: OldLog) -> OldLog:
    old_log.holds([row(number, *body) for number, body in enumerate(BODIES, 1)])
    return old_log


def weights(events: list[Recorded]) -> list[Decimal]:
    return [one.event.kilograms for one in events if isinstance(one.event, Parcel.Weighed)]


def test_the_aggregate(parcels: OldLog) -> None:
    found: Any = parcels.application().repository.get(PARCEL)
    assert (type(found), found.version, found.kilograms) == (Parcel, 3, Decimal("3"))
    found = parcels.application().repository.get(PARCEL, version=2)
    assert found.kilograms == Decimal("1.25")


def test_the_store_feed(parcels: OldLog) -> None:
    assert weights(parcels.feed().read(0, 10).events) == EXPECTED


def test_kafka(parcels: OldLog) -> None:
    connection = connect(parcels.url, autocommit=True, settings={"timezone": "UTC"})
    with connection.cursor() as cursor:
        cursor.execute(f"SET search_path TO {quote(parcels.schemas['log'])}")
        cursor.execute(f"SELECT {OUTGOING_COLUMNS} FROM events ORDER BY position")
        records = [event_record(Outgoing(*row), 0, str(uuid4()).encode()) for row in cursor]
    connection.close()
    assert records[1].value == b'{"grams":1250}'
    assert dict(records[1].headers)["ce_dataschema"] == b"urn:crm-ledger:test.parcel.weighed:1"
    brought = [
        arrived(SimpleNamespace(partition=0, offset=0, headers=one.headers, value=one.value))
        for one in records
    ]
    assert weights([one.recorded() for one in brought]) == EXPECTED


def test_the_replay(parcels: OldLog) -> None:
    """As lines, as state after each version, and as of a date."""
    reading = Reading(parcels.pool, span(parcels.pool))
    found = [json.loads(line) for line in Lines(MARKED).of(reading.next()).splitlines()]
    assert [line["data"] for line in found] == [{}, {"kilograms": "1.25"}, {"kilograms": "3"}]
    assert [line["class_version"] for line in found] == [1, 1, 2]
    for version, expected in ((2, EXPECTED[0]), (3, EXPECTED[1])):
        state = states.state(parcels.pool, PARCEL, states.AfterVersion(version))
        assert state.fields()["kilograms"] == expected
        at = datetime(2024, 1, version, tzinfo=UTC)
        assert states.state(parcels.pool, PARCEL, states.AsOf(at)).fields() == state.fields()


def test_parked_events(parcels: OldLog) -> None:
    """Parked as they were read, or, by a program that could not read them, as they were stored."""
    (_, first, second) = parcels.feed().read(0, 10).events
    unread = parcels.feed().read(1, 1).events[0]
    unread.event = Undecodable(1, b'{"grams":1250}', "was not known")
    with parcels.read_pool.connection() as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL search_path TO {quote(parcels.schemas['read'])}")
        other = uuid4()
        parking.park(cursor, "parcels/1", [(PARCEL, first, "broken"), (PARCEL, second, "")])
        parking.park(cursor, "parcels/1", [(other, unread, "broken")])
        assert weights(parking.taken(cursor, "parcels/1", PARCEL)) == EXPECTED
        assert weights(parking.taken(cursor, "parcels/1", other)) == EXPECTED[:1]


def test_the_contract() -> None:
    """The old version has a schema of its own: under the old one the change is refused."""
    made = body_schema(Parcel.Weighed)
    assert made["$id"] == "urn:crm-ledger:test.parcel.weighed:2"
    published = {
        "type": "object", "properties": {"grams": {"type": "integer"}}, "required": ["grams"]
    }  # fmt: skip
    assert breaks(published, made) == [
        "/properties/grams: removed",
        "/properties/kilograms: now required",
    ]
    state: dict[str, Any] = {"grams": 1250}
    validator(published).validate(state)
    Parcel.Weighed.upcast_v1_v2(state)
    validator(made).validate(state)


def test_only_the_domain_is_in_the_contract() -> None:
    assert Parcel.Weighed not in event_classes()
