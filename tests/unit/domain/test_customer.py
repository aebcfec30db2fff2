from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.customer import Contact, Customer
from domain.errors import (
    AlreadyIdentified,
    AlreadyLost,
    ContactDiffers,
    ContactNotFound,
    CurrencyDiffers,
    DeliveryDiffers,
    InvalidAttributes,
    InvalidChannel,
    InvalidText,
    NameMissing,
    NotAPerson,
    NotInRelationship,
    NotLost,
    OrderDiffers,
    PaymentDiffers,
    SubjectErased,
    TooManyContacts,
)
from domain.values import (
    ChurnCause,
    CustomerKind,
    CustomerType,
    ExternalId,
    Level,
    LevelEvidence,
    Money,
    PaymentKind,
    Personal,
    Severity,
)
from tests.given_when_then import ID, NOW, START, fact, given
from tests.unit.domain.streams import CAMPAIGN, Stream, eur, registered

CONTACT = UUID("55555555-5555-4555-8555-555555555555")
DEAL = UUID("66666666-6666-4666-8666-666666666666")
EVIDENCE = LevelEvidence("levels/1", {"revenue": "120.00"}, DEAL)
EARLY = START.replace(minute=30)
"""Before every fact but the registration."""

Command = Callable[[Customer], None]


def registering(**changes: Any) -> Callable[[None], Customer]:
    details: dict[str, Any] = {
        "kind": CustomerKind.COMPANY,
        "name": "Acme",
        "identified": True,
        "region": "north",
        "industry": " ",
        "source": None,
        "external_id": None,
        "attributes": {"size": 5},
        "at": START,
    }
    return lambda _: Customer.register(ID, **{**details, **changes})


def changing(**changes: Any) -> Command:
    details: dict[str, Any] = {
        "name": None,
        "identified": None,
        "region": None,
        "industry": None,
        "source": None,
        "attributes": {},
        "removed_attributes": (),
        "at": NOW,
    }
    return lambda customer: customer.change_profile(**{**details, **changes})


def adding(contact_id: UUID = CONTACT, **changes: Any) -> Command:
    details: dict[str, Any] = {
        "name": "Li Wei",
        "department": "purchasing",
        "level": None,
        "role": None,
        "email": "li@example.com",
        "phone": None,
        "at": NOW,
    }
    return lambda customer: customer.add_contact(contact_id=contact_id, **{**details, **changes})


def ordering(
    order_id: str = "o-1", value: str = "10", at: Any = NOW, cost: Money | None = None
) -> Command:
    return lambda customer: customer.place_order(
        order_id=order_id, amount=eur(value), cost=cost, at=at
    )


def delivering(delivery_id: str = "d-1", order_id: str | None = "o-1", at: Any = NOW) -> Command:
    return lambda customer: customer.deliver(delivery_id=delivery_id, order_id=order_id, at=at)


def paying(kind: PaymentKind, value: str = "10", reference: str = "i-1") -> Command:
    return lambda customer: customer.record_payment(
        kind=kind, reference=reference, amount=eur(value), at=NOW
    )


def churning(cause: ChurnCause = ChurnCause.PRICE, at: Any = NOW) -> Command:
    return lambda customer: customer.churn(cause=cause, at=at)


def ruling(level: Level, at: Any = NOW) -> Command:
    return lambda customer: customer.change_level_by_rule(level=level, evidence=EVIDENCE, at=at)


def winning_back(at: Any = NOW) -> Command:
    return lambda customer: customer.win_back(at=at)


def levelling(level: Level, at: Any = NOW) -> Command:
    return lambda customer: customer.change_level(level=level, at=at)


def starting(at: Any = NOW) -> Command:
    return lambda customer: customer.start_relationship(opportunity_id=DEAL, at=at)


class TestRegistration:
    def test_a_company_has_a_plain_name(self) -> None:
        customer = given().when(registering()).then(registered())
        assert customer.type is CustomerType.PROSPECT
        assert customer.level is None

    def test_a_persons_name_is_personal(self) -> None:
        person = registering(kind=CustomerKind.PERSON, name="Li Wei")
        customer = (
            given()
            .when(person)
            .then(
                registered(
                    kind=CustomerKind.PERSON,
                    name=None,
                    personal_name=Personal(ID, "Li Wei"),
                    attributes={},
                    personal_attributes=Personal(ID, '{"size": 5}'),
                )
            )
        )
        assert "Li Wei" not in repr(customer)

    def test_a_customer_to_be_identified_may_have_no_name(self) -> None:
        given().when(registering(name=None, identified=False)).then(
            registered(name=None, identified=False)
        )
        given().when(registering(name=None)).refused(InvalidText)

    @pytest.mark.parametrize("name", ["", " ", "x" * 201, "a\x00", "\udc00"])
    def test_refuses_bad_names(self, name: str) -> None:
        given().when(registering(name=name)).refused(InvalidText)

    def test_refuses_bad_attributes(self) -> None:
        given().when(registering(attributes={"a": float("nan")})).refused(InvalidAttributes)

    def test_later_changes_do_not_show_in_the_event(self) -> None:
        customer = Customer.register(
            ID,
            kind=CustomerKind.COMPANY,
            name="Acme",
            identified=True,
            region=None,
            industry=None,
            source=None,
            external_id=None,
            attributes={"size": 5},
            at=START,
        )
        changing(attributes={"size": 6})(customer)
        assert customer.pending_events[0].attributes == {"size": 5}  # type: ignore[attr-defined]


class TestProfile:
    def test_tells_only_what_changed(self, prospect: Stream) -> None:
        change = changing(
            name="Acme", region="", industry="steel", attributes={"size": 6, "a": "b"}
        )
        customer = (
            given(*prospect)
            .when(change)
            .then(
                fact(
                    Customer.ProfileChanged,
                    name=None,
                    personal_name=None,
                    identified=None,
                    region="",
                    industry="steel",
                    source=None,
                    attributes={"size": 6, "a": "b"},
                    removed_attributes=(),
                )
            )
        )
        assert (customer.region, customer.industry) == (None, "steel")
        assert customer.attributes == {"size": 6, "a": "b"}

    def test_no_change_adds_nothing(self, prospect: Stream) -> None:
        same = changing(name="Acme", identified=True, region="north", industry="", source=" ")
        given(*prospect).when(same).then()
        given(*prospect).when(changing(attributes={"size": 5})).then()
        given(*prospect).when(changing(removed_attributes=("colour",))).then()

    def test_one_and_true_are_two_values(self) -> None:
        given(registered(attributes={"a": 1})).when(changing(attributes={"a": True})).then(
            fact(Customer.ProfileChanged, attributes={"a": True})
        )

    def test_removes_attributes(self, prospect: Stream) -> None:
        change = changing(removed_attributes=("size", "colour"))
        customer = (
            given(*prospect)
            .when(change)
            .then(fact(Customer.ProfileChanged, attributes={}, removed_attributes=("size",)))
        )
        assert customer.attributes == {}

    def test_keeps_to_a_hundred_attributes(self) -> None:
        full = registered(attributes={str(i): i for i in range(100)})
        given(full).when(changing(attributes={"one more": 1})).refused(InvalidAttributes)
        given(full).when(changing(attributes={"99": "new"})).then(fact(Customer.ProfileChanged))
        swap = changing(attributes={"one more": 1}, removed_attributes=("0",))
        given(full).when(swap).then(fact(Customer.ProfileChanged))

    def test_a_name_can_not_be_cleared(self, prospect: Stream) -> None:
        given(*prospect).when(changing(name="")).refused(InvalidText)

    def test_a_persons_name_stays_personal(self) -> None:
        person = registered(
            kind=CustomerKind.PERSON, name=None, personal_name=Personal(ID, "Li Wei")
        )
        given(person).when(changing(name="Li Wei")).then()
        given(person).when(changing(name="Li Na")).then(
            fact(Customer.ProfileChanged, name=None, personal_name=Personal(ID, "Li Na"))
        )

    def test_a_persons_attributes_are_personal(self) -> None:
        person = registered(
            kind=CustomerKind.PERSON,
            name=None,
            personal_name=Personal(ID, "Li Wei"),
            attributes={"old": 1},  # as in version 1
            personal_attributes=Personal(ID, '{"born": "1980", "score": 1}'),
        )
        same = changing(attributes={"born": "1980", "old": 1}, removed_attributes=("unknown",))
        given(person).when(same).then()
        change = changing(
            attributes={"score": 1.0, "città": True}, removed_attributes=("born", "old")
        )
        changed = fact(
            Customer.ProfileChanged,
            attributes={},
            removed_attributes=(),
            personal_attributes=Personal(
                ID, '{"score": 1.0, "città": true, "born": null, "old": null}'
            ),
        )
        given(person).when(change).then(changed)
        given(person, changed).when(change).then()
        full = changing(attributes={str(i): i for i in range(98)})
        given(person).when(full).refused(InvalidAttributes)
        given(person, changed).when(full).then(fact(Customer.ProfileChanged))

    def test_identification_needs_a_name_and_lasts(self, prospect: Stream) -> None:
        unknown = registered(name=None, identified=False)
        given(unknown).when(changing(identified=True)).refused(NameMissing)
        given(unknown).when(changing(identified=True, name="Acme")).then(
            fact(Customer.ProfileChanged, identified=True, name="Acme")
        )
        given(*prospect).when(changing(identified=False)).refused(AlreadyIdentified)


class TestContacts:
    ADDED = fact(
        Customer.ContactAdded,
        contact_id=CONTACT,
        name=Personal(CONTACT, "Li Wei"),
        department="purchasing",
        level=None,
        role=None,
        email=Personal(CONTACT, "li@example.com"),
        phone=None,
    )

    def test_are_personal_under_their_own_key(self, prospect: Stream) -> None:
        customer = given(*prospect).when(adding()).then(self.ADDED)
        assert customer.contacts == (Contact(**self.ADDED.fields),)

    def test_once(self, prospect: Stream) -> None:
        given(*prospect, self.ADDED).when(adding()).then()
        given(*prospect, self.ADDED).when(adding(role="buyer")).refused(ContactDiffers)

    def test_at_most_a_thousand(self, prospect: Stream) -> None:
        fields = {**self.ADDED.fields}
        thousand = [
            fact(Customer.ContactAdded, at=START, **{**fields, "contact_id": UUID(int=i)})
            for i in range(1000)
        ]
        given(*prospect, *thousand).when(adding()).refused(TooManyContacts)
        given(*prospect, *thousand[1:]).when(adding()).then(self.ADDED)

    def test_refuses_bad_values(self, prospect: Stream) -> None:
        given(*prospect).when(adding(name="")).refused(InvalidText)
        given(*prospect).when(adding(email="x" * 255)).refused(InvalidText)
        given(*prospect).when(adding(phone="\x00")).refused(InvalidText)


class TestErasure:
    PERSON = registered(
        kind=CustomerKind.PERSON,
        name=None,
        personal_name=Personal(ID, "Li Wei"),
        external_id=ExternalId("shop", "li@example.com"),
        attributes={"old": 1},
        personal_attributes=Personal(ID, '{"born": "1980"}'),
    )
    ERASED = fact(Customer.Erased)
    GONE = fact(Customer.ContactErased, contact_id=CONTACT)

    @staticmethod
    def erasing(customer: Customer) -> None:
        customer.erase(at=NOW)

    @staticmethod
    def erasing_contact(customer: Customer) -> None:
        customer.erase_contact(contact_id=CONTACT, at=NOW)

    def test_of_a_person_leaves_nothing_even_in_memory(self) -> None:
        customer = given(self.PERSON).when(self.erasing).then(self.ERASED)
        assert customer.personal_name == Personal(ID, None)
        assert (customer.attributes, customer.personal_attributes) == ({}, ())
        assert customer.external_id is None

    def test_once(self, prospect: Stream) -> None:
        given(self.PERSON, self.ERASED).when(self.erasing).then()
        added = TestContacts.ADDED
        given(*prospect, added, self.GONE).when(self.erasing_contact).then()

    def test_of_a_contact_leaves_the_others(self, prospect: Stream) -> None:
        other = UUID(int=9)
        second = fact(
            Customer.ContactAdded,
            **{**TestContacts.ADDED.fields, "contact_id": other, "name": Personal(other, "Li Na")},
        )
        customer = (
            given(*prospect, TestContacts.ADDED, second).when(self.erasing_contact).then(self.GONE)
        )
        first, kept = customer.contacts
        assert (first.name, first.email) == (Personal(CONTACT, None), Personal(CONTACT, None))
        assert (first.phone, first.department) == (None, "purchasing")
        assert kept.name == Personal(other, "Li Na")

    def test_of_whom_there_is(self, prospect: Stream) -> None:
        given(*prospect).when(self.erasing).refused(NotAPerson)
        given(*prospect).when(self.erasing_contact).refused(ContactNotFound)

    def test_nothing_new_is_written_about_who_was_erased(self, prospect: Stream) -> None:
        past = (self.PERSON, self.ERASED)
        given(*past).when(changing(name="Li Wei")).refused(SubjectErased)
        given(*past).when(changing(attributes={"born": "1980"})).refused(SubjectErased)
        given(*past).when(
            lambda c: c.raise_churn_signal(
                kind="complaint", severity=Severity.LOW, detail="a text", at=NOW
            )
        ).refused(SubjectErased)
        contact = (*prospect, TestContacts.ADDED, self.GONE)
        given(*contact).when(adding()).refused(SubjectErased)

    def test_the_customer_goes_on(self) -> None:
        past = (self.PERSON, self.ERASED)
        given(*past).when(changing(region="south", removed_attributes=("born",))).then(
            fact(Customer.ProfileChanged, region="south", personal_attributes=None)
        )
        given(*past).when(ordering()).then(fact(Customer.OrderPlaced))
        given(*past).when(adding()).then(TestContacts.ADDED)


class TestFacts:
    def test_a_response_makes_a_responder(self, prospect: Stream, buyer: Stream) -> None:
        def respond(customer: Customer) -> None:
            customer.respond(campaign_id=CAMPAIGN, channel="web", kind="enquiry", at=NOW)

        responded = fact(
            Customer.CampaignResponded, campaign_id=CAMPAIGN, channel="web", kind="enquiry"
        )
        assert given(*prospect).when(respond).then(responded).type is CustomerType.RESPONDER
        assert given(*buyer).when(respond).then(responded).type is CustomerType.RELATIONSHIP
        given(*prospect, responded).when(respond).then(responded)
        given(*prospect).when(
            lambda c: c.respond(campaign_id=CAMPAIGN, channel="W W", kind="enquiry", at=NOW)
        ).refused(InvalidChannel)

    def test_an_order_counts_once(self, prospect: Stream, buyer: Stream) -> None:
        placed = fact(Customer.OrderPlaced, order_id="o-1", amount=eur("10"))
        given(*prospect).when(ordering()).then(placed)
        given(*buyer).when(ordering()).then()
        given(*buyer).when(ordering(value="11")).refused(OrderDiffers)
        given(*buyer).when(ordering("o-2", "11")).then(fact(Customer.OrderPlaced))
        given(*buyer).when(ordering("")).refused(InvalidText)

    def test_an_order_may_have_its_cost(self, prospect: Stream, buyer: Stream) -> None:
        placed = fact(Customer.OrderPlaced, order_id="o-1", amount=eur("10"), cost=eur("0"))
        customer = given(*prospect).when(ordering(cost=eur("0"))).then(placed)
        assert customer.order_costs == {"o-1": eur("0")}
        given(*prospect, placed).when(ordering(cost=eur("0"))).then()
        given(*prospect, placed).when(ordering(cost=eur("1"))).refused(OrderDiffers)
        given(*prospect, placed).when(ordering()).refused(OrderDiffers)
        given(*buyer).when(ordering(cost=eur("1"))).refused(OrderDiffers)
        yen = Money.of("1", "JPY")
        given(*prospect).when(ordering(cost=yen)).refused(CurrencyDiffers)

    def test_a_delivery_counts_once(self, prospect: Stream, buyer: Stream) -> None:
        delivered = fact(Customer.Delivered, delivery_id="d-1", order_id="o-1")
        customer = given(*buyer).when(delivering()).then(delivered)
        assert customer.deliveries == {"d-1": "o-1"}
        given(*buyer, delivered).when(delivering(at=EARLY)).then()
        given(*buyer, delivered).when(delivering(order_id="o-2")).refused(DeliveryDiffers)
        given(*buyer, delivered).when(delivering(order_id=None)).refused(DeliveryDiffers)
        given(*buyer, delivered).when(delivering("d-2")).then(fact(Customer.Delivered))
        given(*buyer).when(delivering(" ")).refused(InvalidText)
        given(*buyer).when(delivering(order_id="x" * 201)).refused(InvalidText)

    def test_a_delivery_may_be_told_before_its_order(self, prospect: Stream) -> None:
        customer = (
            given(*prospect)
            .when(delivering(order_id=" "))
            .then(fact(Customer.Delivered, delivery_id="d-1", order_id=None))
        )
        assert customer.type is CustomerType.PROSPECT
        told = fact(Customer.Delivered, delivery_id="d-1", order_id=None)
        given(*prospect, told).when(delivering(order_id=None)).then()
        given(*prospect).when(delivering(order_id="unknown")).then(
            fact(Customer.Delivered, order_id="unknown")
        )

    @pytest.mark.parametrize(
        ("kind", "event_class"),
        [
            (PaymentKind.OVERDUE, Customer.PaymentOverdue),
            (PaymentKind.SETTLED, Customer.PaymentSettled),
        ],
    )
    def test_a_payment_counts_once_a_kind(
        self, prospect: Stream, kind: PaymentKind, event_class: type[Any]
    ) -> None:
        recorded = fact(event_class, reference="i-1", amount=eur("10"))
        given(*prospect).when(paying(kind)).then(recorded)
        given(*prospect, recorded).when(paying(kind)).then()
        given(*prospect, recorded).when(paying(kind, "11")).refused(PaymentDiffers)
        given(*prospect, recorded).when(paying(kind, reference="")).refused(InvalidText)

    def test_part_of_what_is_overdue_may_be_settled(self, prospect: Stream) -> None:
        overdue = fact(Customer.PaymentOverdue, reference="i-1", amount=eur("10"))
        given(*prospect, overdue).when(paying(PaymentKind.SETTLED, "4")).then(
            fact(Customer.PaymentSettled, reference="i-1", amount=eur("4"))
        )

    def test_a_churn_signals_detail_is_personal(self, prospect: Stream) -> None:
        raised = fact(
            Customer.ChurnSignalRaised,
            kind="complaint",
            severity=Severity.HIGH,
            detail=Personal(ID, "Li is angry"),
        )
        given(*prospect, raised).when(
            lambda customer: customer.raise_churn_signal(
                kind="complaint", severity=Severity.HIGH, detail="Li is angry", at=NOW
            )
        ).then(raised)


class TestRelationship:
    def test_begins_with_the_first_order(self, prospect: Stream) -> None:
        customer = given(*prospect).when(ordering()).then(fact(Customer.OrderPlaced))
        assert (customer.type, customer.level) == (CustomerType.RELATIONSHIP, Level.NEW)

    def test_or_with_the_first_won_deal(self, prospect: Stream, buyer: Stream) -> None:
        started = fact(Customer.RelationshipStarted, opportunity_id=DEAL)
        customer = given(*prospect).when(starting()).then(started)
        assert (customer.type, customer.level) == (CustomerType.RELATIONSHIP, Level.NEW)
        given(*prospect, started).when(starting()).then()
        given(*buyer).when(starting()).then()

    def test_a_win_after_the_loss_starts_it_again(self, lost_customer: Stream) -> None:
        customer = given(*lost_customer).when(starting()).then(fact(Customer.RelationshipStarted))
        assert (customer.type, customer.level) == (CustomerType.RELATIONSHIP, Level.NEW)

    def test_a_win_before_the_loss_does_not(self, lost_customer: Stream) -> None:
        given(*lost_customer).when(starting(EARLY)).then()

    def test_levels_only_inside_it(
        self, prospect: Stream, buyer: Stream, lost_customer: Stream
    ) -> None:
        given(*buyer).when(levelling(Level.STABLE)).then(
            fact(Customer.LevelChanged, level=Level.STABLE, previous=Level.NEW)
        )
        given(*buyer).when(levelling(Level.NEW)).then()
        for outside in (prospect, lost_customer):
            given(*outside).when(levelling(Level.NEW)).refused(NotInRelationship)

    @pytest.mark.parametrize("level", Level)
    def test_every_level_is_reached(self, buyer: Stream, level: Level) -> None:
        changed = fact(Customer.LevelChanged, level=Level.GROWING, previous=Level.NEW)
        event = () if level is Level.GROWING else (fact(Customer.LevelChanged, level=level),)
        customer = given(*buyer, changed).when(levelling(level)).then(*event)
        assert customer.level is level

    def test_a_level_of_the_past_does_not_change_the_present_one(self, buyer: Stream) -> None:
        changed = fact(Customer.LevelChanged, at=NOW, level=Level.STABLE, previous=Level.NEW)
        customer = (
            given(*buyer, changed)
            .when(levelling(Level.GROWING, EARLY))
            .then(fact(Customer.LevelChanged, level=Level.GROWING))
        )
        assert customer.level is Level.STABLE

    def test_a_rule_changes_the_level_with_its_evidence(self, buyer: Stream) -> None:
        changed = fact(
            Customer.LevelChanged,
            at=NOW,
            level=Level.GROWING,
            previous=Level.NEW,
            evidence=EVIDENCE,
        )
        customer = given(*buyer).when(ruling(Level.GROWING)).then(changed)
        assert customer.level is Level.GROWING
        given(*buyer, changed).when(ruling(Level.GROWING)).then()

    def test_a_rule_comes_too_late_where_a_level_was_set_since(self, buyer: Stream) -> None:
        told = fact(Customer.LevelChanged, at=NOW, level=Level.STABLE, previous=Level.NEW)
        before = NOW - timedelta(seconds=1)
        given(*buyer, told).when(ruling(Level.GROWING, before)).then()
        given(*buyer, told).when(ruling(Level.GROWING)).then(fact(Customer.LevelChanged))
        given(*buyer).when(ruling(Level.GROWING, EARLY)).then()

    def test_a_rule_says_nothing_outside_it(self, prospect: Stream, lost_customer: Stream) -> None:
        for outside in (prospect, lost_customer):
            given(*outside).when(ruling(Level.GROWING)).then()

    def test_churn(self, prospect: Stream, buyer: Stream, lost_customer: Stream) -> None:
        for customer in (prospect, buyer):
            lost = (
                given(*customer)
                .when(churning())
                .then(fact(Customer.Churned, cause=ChurnCause.PRICE))
            )
            assert (lost.type, lost.level) == (CustomerType.LOST, None)
        given(*lost_customer).when(churning()).then()
        given(*lost_customer).when(churning(ChurnCause.CLOSURE)).refused(AlreadyLost)

    def test_win_back(self, buyer: Stream, lost_customer: Stream) -> None:
        customer = given(*lost_customer).when(winning_back()).then(fact(Customer.WonBack))
        assert (customer.type, customer.level) == (CustomerType.RELATIONSHIP, Level.NEW)
        given(*lost_customer, fact(Customer.WonBack)).when(winning_back()).then()
        given(*buyer).when(winning_back()).refused(NotLost)
        given(*lost_customer).when(winning_back(EARLY)).refused(NotLost)

    def test_can_be_lost_twice_at_one_instant(self, lost_customer: Stream) -> None:
        given(*lost_customer, fact(Customer.WonBack, at=NOW)).when(churning()).then(
            fact(Customer.Churned)
        )

    def test_an_order_brings_a_lost_customer_back(self, lost_customer: Stream) -> None:
        customer = given(*lost_customer).when(ordering("o-2")).then(fact(Customer.OrderPlaced))
        assert (customer.type, customer.level) == (CustomerType.RELATIONSHIP, Level.NEW)

    def test_an_order_from_before_the_loss_does_not(self, lost_customer: Stream) -> None:
        late_known = given(*lost_customer).when(ordering("o-2", at=EARLY))
        customer = late_known.then(fact(Customer.OrderPlaced, at=EARLY))
        assert customer.type is CustomerType.LOST

    def test_a_loss_from_before_the_last_order_is_known_but_over(self, buyer: Stream) -> None:
        churned = fact(Customer.Churned, at=EARLY, cause=ChurnCause.PRICE)
        customer = given(*buyer).when(churning(at=EARLY)).then(churned)
        assert customer.type is CustomerType.RELATIONSHIP
        given(*buyer, churned).when(churning(at=EARLY)).then()


def test_facts_never_refuse_however_odd_the_history(prospect: Stream) -> None:
    given(
        *prospect,
        fact(Customer.WonBack),
        fact(Customer.LevelChanged, level=Level.STABLE, previous=None),
        fact(Customer.ProfileChanged, removed_attributes=("nothing",)),
        fact(Customer.Churned, cause=ChurnCause.OTHER),
        fact(Customer.Churned, cause=ChurnCause.PRICE),
        fact(Customer.PaymentSettled, reference="?", amount=eur("1")),
    ).when(lambda customer: None).then()
