"""Whatever the domain can say is stored as plain JSON and read back as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from eventsourcing.domain import Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.aggregate import LedgerAggregate
from domain.customer import Customer
from domain.typecheck import check_types
from domain.values import CustomerKind, Money, Personal
from infra.eventstore import transcoder
from infra.eventstore.feed import Undecodable, recorded
from infra.eventstore.records import LedgerEvent
from infra.eventstore.transcoder import EventMapper, EventTranscoder, decode_event
from infra.vault import KeyNotCached
from tests.unit.infra.instances import AGGREGATES, event_classes, events, states
from tests.unit.infra.keys import KeyTable, vault

NOW = datetime(2024, 5, 1, tzinfo=UTC)
EVENT_CLASSES = sorted(event_classes(), key=lambda cls: cls.__qualname__)


@pytest.fixture(scope="module")
def mapper() -> EventMapper:
    return EventMapper(vault(KeyTable(), remember=3600.0))


def stored(mapper: EventMapper, event: Any) -> LedgerEvent:
    """As the write path does it: the vault is asked when a key is missing."""
    while True:
        try:
            return cast(LedgerEvent, mapper.to_stored_event(event))
        except KeyNotCached as missing:
            mapper._vault.prepare([missing.subject])


def test_every_event_of_the_domain_is_covered() -> None:
    topics = {vars(cls)["TOPIC"] for cls in EVENT_CLASSES}
    assert len(topics) == len(EVENT_CLASSES) >= 38
    assert {"crm.customer.registered", "crm.opportunity.lost"} <= topics


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=lambda cls: cls.__qualname__)
@settings(max_examples=30)
@given(data=st.data())
def test_events_come_back_as_they_were(
    mapper: EventMapper, cls: type[LedgerAggregate.Event], data: st.DataObject
) -> None:
    event = data.draw(events(cls))
    row = stored(mapper, event)
    assert json.loads(row.state) is not None
    assert row.topic == vars(cls)["TOPIC"]
    assert row.occurred_at == event.timestamp

    again = mapper.to_domain_event(row)
    assert type(again) is cls
    assert vars(again) == vars(event)
    check_types(again)

    fed = decode_event(
        row.topic,
        cast(UUID, row.originator_id),
        row.originator_version,
        row.class_version,
        row.occurred_at,
        row.state,
    )
    check_types(fed)
    for name, value in vars(event).items():
        if isinstance(value, Personal):
            assert vars(fed)[name].text is None
            assert vars(fed)[name].sealed == value.sealed
        else:
            assert vars(fed)[name] == value


@pytest.mark.parametrize("cls", AGGREGATES, ids=lambda cls: cls.__name__)
@settings(max_examples=50)
@given(data=st.data())
def test_snapshots_come_back_as_they_were(
    mapper: EventMapper, cls: type[LedgerAggregate], data: st.DataObject
) -> None:
    state = data.draw(states(cls))
    aggregate = object.__new__(cls)
    id_, version = data.draw(st.uuids()), data.draw(st.integers(1, 2**31 - 1))
    for number, personal in enumerate(transcoder.personal_in(state)):
        mapper._vault.prepare([personal.subject])
        mapper._vault.seal(personal, event=f"{id_}:{number}", field="text")
    vars(aggregate).update(state, _id=id_, _version=version, _pending_events=[])

    again = mapper.to_domain_event(stored(mapper, cls.Snapshot.take(aggregate)))
    assert isinstance(again, Snapshot)
    loaded: Any = again.mutate(None)
    assert type(loaded) is cls
    assert (loaded.id, loaded.version) == (id_, version)
    assert {name: vars(loaded)[name] for name in state} == state
    assert loaded.pending_events == []


def made(cls: Any, **fields: Any) -> Any:
    return cls(originator_id=uuid4(), originator_version=2, timestamp=NOW, **fields)


def registered(**more: Any) -> Customer.Created:
    given: dict[str, Any] = {
        "originator_topic": "crm.customer",
        "originator_id": uuid4(),
        "originator_version": 1,
        "timestamp": NOW,
        "kind": CustomerKind.COMPANY,
        "name": "Acme",
        "personal_name": None,
        "identified": True,
        "region": None,
        "industry": None,
        "source": None,
        "external_id": None,
        "attributes": {},
    }
    return Customer.Created(**{**given, **more})


@pytest.mark.parametrize(
    "attributes",
    [
        {"_type_": "uuid_hex", "_data_": "x"},
        {"_type_": "datetime_iso"},
        {"__class__": "os.system"},
        {"big": 2**63 - 1, "small": -(2**63), "zero": -0.0, "tiny": 5e-324, "huge": 1e308},
        {"one": 1, "one and a bit": 1.0, "true": True, "text": "1"},
    ],
)
def test_what_looks_like_code_stays_data(mapper: EventMapper, attributes: dict[str, Any]) -> None:
    event = registered(attributes=attributes)
    again = mapper.to_domain_event(stored(mapper, event))
    assert again.attributes == attributes
    assert [type(v) for v in again.attributes.values()] == [type(v) for v in attributes.values()]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_never_stored(number: float) -> None:
    with pytest.raises(TypeError):
        registered(attributes={"x": number})
    with pytest.raises(TypeError):
        made(Customer.OrderPlaced, order_id="1", amount=Money(Decimal(number), "EUR"))


def test_the_plain_transcoder_reads_nothing_into_json() -> None:
    plain = EventTranscoder()
    value = {"_type_": "uuid_hex", "_data_": "x", "list": [1, 2.5, None, True]}
    assert plain.decode(plain.encode(value)) == value
    with pytest.raises(TypeError):
        plain.encode(object())
    with pytest.raises(ValueError, match="sealed"):
        plain.encode(Personal(uuid4(), "text"))


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"kind": "company"}', b'{"kind": 7}', b"\xff", b"{" * 100_000]
)
def test_a_body_that_does_not_fit_is_a_value_error(body: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        decode_event("crm.customer.registered", uuid4(), 1, 1, NOW, body)


@pytest.mark.parametrize(
    ("topic", "body"), [("crm.customer.registered", b"[]"), ("crm.no.such-topic", b"{}")]
)
def test_the_feed_gives_what_it_cannot_read(topic: str, body: bytes) -> None:
    envelope = ("", uuid4(), uuid4(), None, None, None)
    row = (1, uuid4(), 1, topic, uuid4(), NOW, NOW, *envelope, 1, body)
    event = recorded(row).event
    assert isinstance(event, Undecodable)
    assert event.state == body


@pytest.fixture
def order_placed_version_2(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An event class that has changed: `order_id` was called `number` once."""

    def upcast(state: dict[str, Any]) -> None:
        state["order_id"] = str(state.pop("number"))

    cls = Customer.OrderPlaced
    monkeypatch.setattr(cls, "class_version", 3)
    monkeypatch.setattr(cls, "upcast_v1_v2", staticmethod(upcast), raising=False)
    monkeypatch.setattr(cls, "upcast_v2_v3", staticmethod(lambda state: None), raising=False)
    transcoder.event_codec.cache_clear()
    yield
    transcoder.event_codec.cache_clear()


@pytest.mark.usefixtures("order_placed_version_2")
def test_older_events_are_brought_up_to_date(mapper: EventMapper) -> None:
    topic, stream = "crm.customer.order-placed", uuid4()
    old = b'{"number": 17, "amount": {"value": "12.50", "currency": "EUR"}}'
    amount = Money(Decimal("12.50"), "EUR")
    for event in (
        decode_event(topic, stream, 2, 1, NOW, old),
        mapper.to_domain_event(LedgerEvent(stream, 2, topic, old, 1, NOW)),
    ):
        assert (event.order_id, event.amount) == ("17", amount)
        check_types(event)
    newer = stored(mapper, event)
    assert newer.class_version == 3
    assert mapper.to_domain_event(newer) == event


@pytest.mark.usefixtures("order_placed_version_2")
def test_events_of_a_later_program_are_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="later version, 4"):
        decode_event("crm.customer.order-placed", uuid4(), 2, 4, NOW, b"{}")


def test_older_snapshots_are_brought_up_to_date(
    mapper: EventMapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = Customer.register(
        uuid4(),
        kind=CustomerKind.COMPANY,
        name="Acme",
        identified=True,
        region="north",
        industry=None,
        source=None,
        external_id=None,
        attributes={},
        at=NOW,
    )
    old = stored(mapper, Customer.Snapshot.take(customer))
    present = Customer.class_version
    assert old.class_version == present

    def upcast(state: dict[str, Any]) -> None:
        state["region"] = state["region"].upper()

    monkeypatch.setattr(Customer, "class_version", present + 1)
    name = f"upcast_v{present}_v{present + 1}"
    monkeypatch.setattr(Customer, name, staticmethod(upcast), raising=False)
    transcoder.state_codec.cache_clear()
    try:
        loaded = mapper.to_domain_event(old).mutate(None)
        assert (loaded.name, loaded.region) == ("Acme", "NORTH")
        assert stored(mapper, Customer.Snapshot.take(loaded)).class_version == present + 1
    finally:
        transcoder.state_codec.cache_clear()


def test_snapshots_of_version_1_knew_no_purchases(mapper: EventMapper) -> None:
    bought = NOW + timedelta(days=1)
    customer = Customer.register(
        uuid4(),
        kind=CustomerKind.COMPANY,
        name="Acme",
        identified=True,
        region=None,
        industry=None,
        source=None,
        external_id=None,
        attributes={},
        at=NOW,
    )
    loaded = []
    for amount in (None, Money(Decimal("12.50"), "EUR")):
        if amount is not None:
            customer.place_order(order_id="1", amount=amount, cost=None, at=bought)
        written = stored(mapper, Customer.Snapshot.take(customer))
        state = json.loads(written.state)
        state.pop("purchased_on", None)
        old = replace(written, class_version=1, state=json.dumps(state).encode())
        loaded.append(mapper.to_domain_event(old).mutate(None))
    assert [one.purchased_on for one in loaded] == [None, bought]
    assert loaded[1].orders == customer.orders


def contact_added(subject: UUID, name: Personal, email: Personal | None) -> Any:
    return made(
        Customer.ContactAdded,
        contact_id=subject,
        name=name,
        department=None,
        level=None,
        role=None,
        email=email,
        phone=None,
    )


def test_personal_text_is_not_in_the_body(mapper: EventMapper) -> None:
    subject = uuid4()
    row = stored(mapper, contact_added(subject, Personal(subject, "Zaphod"), None))
    assert b"Zaphod" not in row.state
    assert mapper.to_domain_event(row).name.text == "Zaphod"


@pytest.mark.parametrize("to", ["another event", "another field"])
def test_a_sealed_text_that_was_moved_is_not_read(mapper: EventMapper, to: str) -> None:
    subject = uuid4()
    names = Personal(subject, "Zaphod"), Personal(subject, "z@example.org")
    row = stored(mapper, contact_added(subject, *names))
    body = json.loads(row.state)
    if to == "another field":
        body["name"], body["email"] = body["email"], body["name"]
        stream, version = cast(UUID, row.originator_id), 2
    else:
        stream, version = uuid4(), 2
    moved = LedgerEvent(stream, version, row.topic, json.dumps(body).encode(), 1, NOW)
    with pytest.raises(ValueError, match="another place"):
        mapper.to_domain_event(moved)


def test_personal_text_that_was_read_is_sealed_anew_for_another_event(mapper: EventMapper) -> None:
    subject = uuid4()
    row = stored(mapper, contact_added(subject, Personal(subject, "Zaphod"), None))
    read = mapper.to_domain_event(row)
    second = contact_added(subject, read.name, None)
    again = mapper.to_domain_event(stored(mapper, second))
    assert again.name.text == "Zaphod"
