"""An event of every version ever written goes through every projection and back through the
aggregates, the same by the store feed and by Kafka."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from domain.campaign import Campaign
from domain.customer import Customer, Demand, Retention
from domain.exchange_rate import ExchangeRate
from domain.member import Member
from domain.opportunity import Opportunity
from domain.personal_attributes import merged
from domain.pipeline import Pipeline
from domain.values import (
    CampaignPlan,
    CampaignStatus,
    ChurnCause,
    CustomerType,
    Level,
    Money,
    OpportunityStatus,
    Personal,
    RepeatType,
    Severity,
)
from infra.eventstore.feed import Recorded, Undecodable
from infra.eventstore.transcoder import event_codec, state_codec
from infra.history import states
from infra.history.lines import Lines
from infra.history.reading import Reading, span
from infra.history.texts import Opened
from infra.kafka import OUTGOING_COLUMNS, Outgoing, arrived, event_record
from infra.postgres import connect, quote
from projections import parking
from projections.catalogue import PROJECTIONS
from projections.projection import Projection
from projections.projector import Projector
from tests.contract.conftest import OldLog
from tests.contract.kept import (
    CLASSES,
    VERSIONS,
    closed,
    golden_rows,
    read_row,
    schema,
    validator,
)

ROWS = golden_rows()
ALL = range(1, len(ROWS) + 1)


@pytest.fixture
def golden(old_log: OldLog) -> OldLog:
    old_log.holds(ROWS)
    return old_log


def test_the_rows_are_a_log() -> None:
    assert [row["position"] for row in ROWS] == list(ALL)
    assert {(row["topic"], row["class_version"]) for row in ROWS} == set(VERSIONS)
    versions: Counter[str] = Counter()
    for row in ROWS:
        versions[row["stream_id"]] += 1
        assert row["version"] == versions[row["stream_id"]]
    times = [row["recorded_at"] for row in ROWS]
    assert times == sorted(times)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['position']}-{row['topic']}")
def test_every_row_is_as_described_and_can_be_read(row: dict[str, Any]) -> None:
    described = schema(row["topic"], row["class_version"])
    validator(closed(described)).validate(json.loads(row["state"]))
    event = read_row(row).event
    assert type(event) is CLASSES[row["topic"]]
    codec = event_codec(type(event))
    again = codec.encode(vars(event))
    if codec.version == row["class_version"]:
        assert again.decode() == row["state"]
    else:
        newest = schema(row["topic"], codec.version)
        validator(closed(newest)).validate(json.loads(again))


@pytest.mark.database
@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=lambda one: one.name)
def test_every_projection_takes_them(golden: OldLog, projection: Projection) -> None:
    feed = golden.feed()
    projector = Projector(
        projection,
        feed,
        golden.read_pool,
        schema=golden.schemas["read"],
        bi_schema=golden.schemas["bi"],
        batch=10,
    )
    while projector.step():
        pass
    assert projector.position() == len(ROWS)
    assert projector.parked_keys() == []
    projector.close()

    check_facts(golden, projection)


@pytest.mark.database
@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=lambda one: one.name)
def test_parked_ones_are_taken_when_they_are_tried_again(
    golden: OldLog, projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every event is parked by a program that fails at all of them, and goes in later."""

    def failing(event: Recorded) -> Any:
        raise RuntimeError("not yet")

    for fold in projection.folds:
        for topic in fold.extract:
            monkeypatch.setitem(fold.extract, topic, failing)  # type: ignore[arg-type]
    failing_one = projector_of(golden, projection)
    while failing_one.step():
        pass
    waiting = failing_one.parked_keys()
    failing_one.close()
    assert len(waiting) > 1
    monkeypatch.undo()
    projector = projector_of(golden, projection)  # as `crm parked --retry` makes one
    assert all(projector.retry(one.key) for one in waiting)
    assert projector.parked_keys() == []
    projector.close()
    check_facts(golden, projection)


def projector_of(golden: OldLog, projection: Projection) -> Projector:
    return Projector(
        projection,
        golden.feed(),
        golden.read_pool,
        schema=golden.schemas["read"],
        bi_schema=golden.schemas["bi"],
    )


def check_facts(golden: OldLog, projection: Projection) -> None:
    """Each event that a fold wants is in its table of facts, once."""
    events = golden.feed().read(0, len(ROWS)).events
    expected: Counter[str] = Counter()
    for fold in projection.folds:
        extracts = [(fold.extract[e.topic], e) for e in events if e.topic in fold.extract]
        facts = sum(extract(event) is not None for extract, event in extracts)
        assert facts > 0
        expected[fold.facts.name] += facts
    for name, facts in expected.items():
        table = f"{quote(golden.schemas['read'])}.{name}"
        assert rows(golden, f"SELECT count(*) FROM {table}") == [(facts,)]


def rows(log: OldLog, statement: str) -> list[Any]:
    connection = connect(log.url, autocommit=True, settings={"timezone": "UTC"})
    with connection.cursor() as cursor:
        cursor.execute(f"SET search_path TO {quote(log.schemas['log'])}")
        cursor.execute(statement)
        found = cursor.fetchall()
    connection.close()
    return found


@pytest.mark.database
def test_kafka_brings_the_same_as_the_store_feed(golden: OldLog) -> None:
    fed = golden.feed().read(0, len(ROWS)).events
    epoch = b"00000000-0000-4000-8000-000000000001"
    for row, expected in zip(
        rows(golden, f"SELECT {OUTGOING_COLUMNS} FROM events ORDER BY position"), fed, strict=True
    ):
        record = event_record(Outgoing(*row), row[0] - 1, epoch)
        taken = arrived(
            SimpleNamespace(partition=3, offset=9, headers=record.headers, value=record.value)
        )
        assert not isinstance(expected.event, Undecodable)
        assert (taken.position, taken.epoch) == (expected.position, UUID(epoch.decode()))
        assert comparable(taken.recorded()) == comparable(expected)


def comparable(recorded: Recorded) -> tuple[Recorded, bytes]:
    """With personal text by its token, since texts that are not opened are all alike."""
    return recorded, event_codec(type(recorded.event)).encode(vars(recorded.event))


@pytest.mark.database
def test_the_replay_shows_them_in_the_present_layout(golden: OldLog) -> None:
    """Each line holds what the contract describes, but for the marks in place of personal text."""
    reading = Reading(golden.pool, span(golden.pool))
    texts = Opened(golden.application().factory.vault)  # type: ignore[attr-defined]
    lines = [json.loads(line) for line in Lines(texts).of(reading.next()).splitlines()]
    assert [line["position"] for line in lines] == list(ALL)
    for line, row in zip(lines, ROWS, strict=True):
        assert "error" not in line
        assert (line["type"], line["class_version"]) == (row["topic"], row["class_version"])
        codec = event_codec(CLASSES[row["topic"]])
        if codec.version == row["class_version"]:
            stored = json.loads(row["state"])
            for name in codec.personal:
                if stored.get(name) is not None:
                    assert not line["data"][name].startswith(("1.", "["))
                    stored[name] = line["data"][name]
            assert line["data"] == stored
        if not codec.personal:
            validator(closed(schema(row["topic"], codec.version))).validate(line["data"])


@pytest.mark.database
def test_states_folded_for_auditors_are_the_aggregates(golden: OldLog) -> None:
    """At every version, as the repository has it; as of the last date, where nothing is late."""
    crm = golden.application()
    for stream in {UUID(row["stream_id"]) for row in ROWS}:
        rows_of_it = [row for row in ROWS if row["stream_id"] == str(stream)]
        for row in rows_of_it:
            found = states.state(golden.pool, stream, states.AfterVersion(row["version"]))
            kept: Any = crm.repository.get(stream, version=row["version"])
            codec = state_codec(type(kept))
            assert codec.encode(vars(found.aggregate)) == codec.encode(vars(kept))
        times = [row["occurred_at"] for row in rows_of_it]
        if times == sorted(times):
            late = states.state(golden.pool, stream, states.AsOf(None))
            assert late.fields() == found.fields()


@pytest.mark.database
def test_the_aggregates_are_what_they_were(golden: OldLog) -> None:
    crm = golden.application()
    streams = {UUID(row["stream_id"]): row["topic"] for row in reversed(ROWS)}
    found: dict[str, Any] = {}
    for stream, topic in streams.items():
        aggregate: Any = crm.repository.get(stream)
        assert aggregate.version == max(r["version"] for r in ROWS if r["stream_id"] == str(stream))
        assert topic.startswith(f"{type(aggregate).TOPIC}.")
        found[name_of(aggregate)] = aggregate

    acme: Customer = found["Acme \\ Söhne 有限公司"]
    assert (acme.type, acme.level) == (CustomerType.RELATIONSHIP, Level.STABLE)
    assert acme.won_back
    assert (acme.region, acme.source, acme.industry) == (None, "referral", "steel")
    assert acme.attributes == {
        "employees": 17, "share": 1.0, "rate": 0.1, "listed": True, "_type_": "uuid", "tier": "gold"
    }  # fmt: skip
    assert type(acme.attributes["share"]) is float
    assert [c.name.text for c in acme.contacts] == ["Trillian Astra", "Arthur Dent"]
    assert acme.contacts[0].email is not None
    assert acme.contacts[0].email.text == "trillian@example.org"
    assert acme.settled == acme.overdue == {"INV-1": Money(Decimal("1000.00"), "CNY")}
    assert acme.churn_cause is ChurnCause.PRICE
    assert acme.orders.keys() == {"A-1", "A-2", "A-3"}
    assert acme.order_costs == {"A-2": Money(Decimal("1500.00"), "CNY")}
    assert acme.deliveries == {"LS 2024/7": "A-2", "LS 2024/8": None}
    assert acme.demand == Demand(RepeatType.PERIODIC, 90, Decimal("12.5"))
    assert (acme.stock, len(acme.alerts)) == (Decimal("9.25"), 2)
    assert acme.retention == Retention(True, Severity.HIGH, Money(Decimal("5000.00"), "CNY"))
    assert acme.retention_costs == {"RE 2024/99": Money(Decimal("1200.50"), "CNY")}

    person: Customer = found["Zaphod B."]
    assert (person.type, person.churn_cause) == (CustomerType.LOST, ChurnCause.PRODUCT)
    assert person.demand == Demand(RepeatType.PROJECT)
    assert person.retention == Retention(False, None, Money(Decimal(0), "JPY"))
    silent: Customer = found["Sirius Cybernetics"]
    assert (silent.type, silent.churn_cause) == (CustomerType.LOST, ChurnCause.SILENCE)

    tricia: Customer = found["Tricia McMillan"]
    assert (tricia.attributes, tricia.region) == ({}, "Islington")
    texts = [change.text or "" for change in tricia.personal_attributes]
    assert merged({}, texts) == {"born": "1955", "città": "Köln"}
    magrathea: Customer = found["Magrathea"]
    assert magrathea.attributes == {"planets": 4}
    (majikthise,) = magrathea.contacts
    assert majikthise.email is not None
    assert (majikthise.name.text, majikthise.email.text) == (None, None)
    erased: Customer = found["None"]
    assert erased.erased
    assert (erased.personal_attributes, erased.external_id) == ((), None)

    deal: Opportunity = found["rolling mill"]
    assert deal.status is OpportunityStatus.WON
    assert deal.contract_amount == Money(Decimal("475000.00"), "CNY")
    assert (deal.stage, deal.expected_close, deal.owner) == ("bid", date(2024, 5, 31), "seller-8")
    assert str(deal.chance) == "1E-7"
    assert deal.review_summary is not None
    assert deal.review_summary.text == "It went well with Ms Astra."
    assert deal.purged
    assert deal.contract_cost is found["valve"].contract_cost is None
    assert found["pump"].contract_cost == Money(Decimal("5100.00"), "CNY")
    assert found["spares"].competitor == "unknown"
    assert found["crane"].status is OpportunityStatus.TERMINATED

    fair: Campaign = found["Trade fair, Köln"]
    assert fair.status is CampaignStatus.COMPLETED
    assert fair.costs == {"RE 2024/17": Money(Decimal("12345.67"), "CNY")}
    assert (fair.product, fair.planned, fair.attendees) == (None, None, None)
    day: Campaign = found["open day"]
    assert (day.product, day.attendees) == ("rolling mill", 97)
    revenue = Money(Decimal("300000.00"), "CNY")
    assert day.planned == CampaignPlan(120, 30, 4, 1, revenue)
    assert found["calls"].planned == CampaignPlan(responses=0)
    assert found["flyers"].planned is None
    assert found["EUR/CNY"].rates == {date(2024, 11, 18): Decimal("7.8132")}
    assert [move.team for move in found["seller-8"].moves] == ["north", "südwest", None]
    framework: Pipeline = found["框架合同"]
    assert [stage.name for stage in framework.current.stages] == ["prospect", "tender", "award"]
    assert framework.current.stages[2].approval


def name_of(aggregate: Any) -> str:
    if isinstance(aggregate, Member):
        return aggregate.owner
    if isinstance(aggregate, ExchangeRate):
        return f"{aggregate.from_currency}/{aggregate.to_currency}"
    return str(aggregate.name or aggregate.personal_name.text)


@pytest.mark.database
def test_parked_events_come_back_as_they_were(golden: OldLog) -> None:
    fed, key = golden.feed().read(0, len(ROWS)).events, UUID(int=1)
    with golden.read_pool.connection() as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL search_path TO {quote(golden.schemas['read'])}")
        parking.park(cursor, "any/1", [(key, event, "broken") for event in fed])
        taken = parking.taken(cursor, "any/1", key)
    assert taken == fed
    for one, other in zip(taken, fed, strict=True):
        for name, value in vars(other.event).items():
            if isinstance(value, Personal):
                assert vars(one.event)[name].sealed == value.sealed
