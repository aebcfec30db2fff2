"""The directory: profiles, contacts, lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from domain.customer import Customer
from domain.values import CustomerKind, ExternalId, Personal
from projections import customers
from projections.reading import Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import START, Story, named
from tests.integration.projections.strategies import NASTY

pytestmark = pytest.mark.database

NOW = Moment(datetime(2025, 1, 1, tzinfo=UTC), latest=True)


def test_a_profile_changes_part_by_part(models: Models) -> None:
    story = Story()
    acme = story.customer(
        "acme",
        region="north",
        industry="retail",
        source="fair",
        external_id=ExternalId("old crm", "7"),
        attributes={"size": 3, "note": 'a "quoted"\tnote\\', "vip": True, "rate": 0.5},
    )
    story.tell(
        acme,
        Customer.ProfileChanged,
        START + timedelta(1),
        region="",
        source="web",
        attributes={"size": 4},
        removed_attributes=("vip",),
    )
    models.project(story)
    row = models.ask(customers.customer, acme, NOW)
    assert (row.name, row.region, row.industry, row.source) == ("acme", None, "retail", "web")
    assert row.attributes == {"size": 4, "note": 'a "quoted"\tnote\\', "rate": 0.5}
    assert (row.external_source, row.external_id, row.version) == ("old crm", "7", 2)
    assert row.registered_at == START
    before = models.ask(customers.customer, acme, Moment(START))
    assert (before.region, before.attributes["vip"], before.version) == ("north", True, 2)
    assert models.ask(customers.customer, acme, Moment(START, known_at=1)).version == 1
    assert models.ask(customers.customer, named("nobody"), NOW) is None


@pytest.mark.parametrize("name", [text for text in NASTY if text])
def test_texts_come_back_as_they_were(models: Models, name: str) -> None:
    story = Story()
    acme = story.customer("acme", name=name, attributes={"text": name})
    story.tell(acme, Customer.ProfileChanged, START + timedelta(1), attributes={"more": name})
    models.project(story)
    for cached in (60_000, 0):
        row = models.ask(customers.customer, acme, NOW)
        assert row.name == name
        assert row.attributes == {"text": name, "more": name}
        projector = models.projector(customers.CustomersProjection(), story, cached_facts=cached)
        story.tell(acme, Customer.ProfileChanged, START + timedelta(2), region="north")
        while projector.step():
            pass


@pytest.mark.parametrize("number", [1e29, -1.2345e300, 2.5e-7, 2**63 - 1, -(2**63)])
def test_numbers_of_any_size_can_be_answered(models: Models, number: float) -> None:
    story = Story()
    acme = story.customer("acme", attributes={"number": number})
    story.tell(acme, Customer.ProfileChanged, START + timedelta(1), attributes={"more": 1})
    models.project(story)
    row = models.ask(customers.customer, acme, NOW)
    assert orjson.loads(orjson.dumps(row.attributes)) == {"number": number, "more": 1}


def test_persons_appear_by_their_sealed_name_only(models: Models) -> None:
    story = Story()
    ann = story.customer(
        "ann",
        kind=CustomerKind.PERSON,
        name=None,
        personal_name=Personal(named("ann"), "Ann Lee", "1.sealed.token"),
    )
    story.tell(
        ann,
        Customer.ContactAdded,
        START,
        contact_id=named("bob"),
        name=Personal(named("bob"), "Bob", "1.bob"),
        department="sales",
        level="decision",
        role=None,
        email=Personal(named("bob"), "bob@example.com", "1.mail"),
        phone=None,
    )
    models.project(story)
    row = models.ask(customers.customer, ann, NOW)
    assert (row.kind, row.name, row.personal_name) == ("person", None, "1.sealed.token")
    [contact] = models.ask(customers.contacts, ann, NOW)
    assert (contact.name, contact.email, contact.phone) == ("1.bob", "1.mail", None)
    assert (contact.id, contact.department, contact.level) == (named("bob"), "sales", "decision")
    assert models.ask(customers.contacts, ann, Moment(START, known_at=1)) == []
    for view in ("customer", "customer_history"):
        columns = {
            row[0] for row in models.run(f"SELECT to_jsonb(v) FROM {view} AS v")[0][0].items()
        }
        assert not any("personal" in column for column in columns)
    assert "Ann Lee" not in str(models.rows("customer_fact"))


def test_a_persons_attributes_stay_sealed_in_the_order_that_counts(models: Models) -> None:
    story = Story()
    ann = named("ann")

    def change(token: str) -> Personal:
        return Personal(ann, None, token)

    story.customer(
        "ann", kind=CustomerKind.PERSON, name=None, personal_attributes=change("1.first")
    )
    for days, token in ((5, "1.late"), (2, "1.told-late")):
        at = START + timedelta(days)
        story.tell(ann, Customer.ProfileChanged, at, personal_attributes=change(token))
    models.project(story)
    row = models.ask(customers.customer, ann, NOW)
    assert (row.attributes, row.erased) == ({}, False)
    assert row.personal_attributes == ["1.first", "1.told-late", "1.late"]
    known = models.ask(customers.customer, ann, Moment(NOW.as_of, known_at=2))
    assert known.personal_attributes == ["1.first", "1.late"]
    early = models.ask(customers.customer, ann, Moment(START + timedelta(3)))
    assert early.personal_attributes == ["1.first", "1.told-late"]


def test_of_who_was_erased_nothing_is_shown_or_found_at_any_time(models: Models) -> None:
    story = Story()
    ann = story.customer(
        "ann",
        kind=CustomerKind.PERSON,
        name=None,
        personal_name=Personal(named("ann"), None, "1.name"),
        external_id=ExternalId("shop", "ann@example.com"),
        attributes={"born": "1980"},  # as earlier versions recorded them
        personal_attributes=Personal(named("ann"), None, "1.first"),
        region="north",
    )
    same = {"external_id": ExternalId("shop", "ann@example.com")}
    acme = story.customer("acme", **same)
    moments = [NOW, Moment(START), Moment(NOW.as_of, known_at=2)]

    def found(moment: Moment, **asked: object) -> list[object]:
        return [row.id for row in models.ask(customers.customers, moment, **asked).rows]

    filters = {"external_source": "shop", "external_id": "ann@example.com"}
    models.project(story)
    for moment in moments:
        assert set(found(moment, filters=filters)) == {ann, acme}
    story.tell(ann, Customer.Erased, START + timedelta(9))
    story.tell(ann, Customer.ProfileChanged, START + timedelta(3), region="south")
    models.project(story)
    for moment in moments:
        assert models.ask(customers.customer, ann, moment).erased
        for name, value in filters.items():
            assert found(moment, filters={name: value}) == [acme]
        assert found(moment, search="ann@") == [acme]
    row = models.ask(customers.customer, ann, NOW)
    assert (row.external_source, row.external_id) == (None, None)
    assert (row.attributes, row.personal_attributes) == ({}, [])
    assert (row.personal_name, row.region, row.version) == ("1.name", "south", 3)


def test_lists(models: Models) -> None:
    story = Story()
    for number in range(12):
        story.customer(
            f"firm {number:02}",
            START + timedelta(days=number),
            region="north" if number % 3 else "south",
            identified=number != 5,
        )
    models.project(story)
    south = models.ask(customers.customers, NOW, filters={"region": "south"}, sort="name")
    assert [row.name for row in south.rows] == ["firm 00", "firm 03", "firm 06", "firm 09"]
    assert [
        row.name for row in models.ask(customers.customers, NOW, filters={"identified": False}).rows
    ] == ["firm 05"]
    page = models.ask(customers.customers, NOW, sort="registered_at", descending=True, limit=5)
    assert [row.name for row in page.rows] == [f"firm {n:02}" for n in (11, 10, 9, 8, 7)]
    following = models.ask(
        customers.customers, NOW, sort="registered_at", descending=True, limit=50, after=page.next
    )
    assert [row.name for row in following.rows] == [f"firm {n:02}" for n in range(6, -1, -1)]
    assert following.next is None
    assert len(models.ask(customers.customers, NOW, search="FIRM 1").rows) == 2
    assert len(models.ask(customers.customers, Moment(START + timedelta(days=4))).rows) == 5
    assert len(models.ask(customers.customers, Moment(NOW.as_of, known_at=3)).rows) == 3
