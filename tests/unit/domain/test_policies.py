"""The policy of passive losses: given a timer, when an event comes, then decisions; and what its
commands come to on the customer's present state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from domain.application import CRM
from domain.customer import Customer
from domain.errors import CauseReserved, InTheFuture
from domain.opportunity import Opportunity
from domain.policies.passive_loss import PassiveLoss
from domain.policies.policy import Cancel, Cause, Command, Decision, Happened, Timer
from domain.values import ChurnCause, CustomerKind, CustomerType, Level, Silence
from tests.given_when_then import ID, NOW, START, Fact, fact, given
from tests.unit.domain.streams import Stream, eur
from tests.unit.domain.test_application import TODAY, MemoryCRM

DEAL = UUID("44444444-4444-4444-8444-444444444444")
POLICY = PassiveLoss(10)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def cause(number: float, stream: UUID = ID) -> Cause:
    """Of the event that happened on that day."""
    return Cause(uuid5(stream, str(number)), 1, stream, uuid5(ID, "conversation"))


def ordered(on: float) -> tuple[float, Fact]:
    return on, fact(Customer.OrderPlaced, order_id="o", amount=eur("1"))


def won_back(on: float) -> tuple[float, Fact]:
    return on, fact(Customer.WonBack)


def churned(on: float) -> tuple[float, Fact]:
    return on, fact(Customer.Churned, cause=ChurnCause.PRICE)


def signed(on: float) -> tuple[float, Fact]:
    return on, fact(Opportunity.ContractSigned, amount=eur("1"), signed_on=date(2024, 1, 1))


def happened(told: tuple[float, Fact]) -> Happened:
    on, what = told
    stream = DEAL if what.event_class is Opportunity.ContractSigned else ID
    return Happened(cause(on, stream), ID, day(on), what.event(2))


def timer(due: float, since: float, stream: UUID = ID) -> Timer:
    """Set by what happened to the stream on day `since`."""
    return Timer(ID, day(due), cause(since, stream))


class after:  # noqa: N801
    """after(events).then(decisions on the last of them)"""

    def __init__(self, *told: tuple[float, Fact]) -> None:
        self.timer: Timer | None = None
        self.decisions: list[Decision] = []
        for each in told:
            self.decisions = list(POLICY.react(happened(each), self.timer))
            self.timer = _applied(self.timer, self.decisions)

    def then(self, *expected: Decision) -> None:
        assert self.decisions == list(expected)


def _applied(known: Timer | None, decisions: Iterable[Decision]) -> Timer | None:
    for decision in decisions:
        if isinstance(decision, Timer):
            known = decision
        elif isinstance(decision, Cancel):
            known = None
    return known


class TestTimer:
    def test_a_purchase_sets_it(self) -> None:
        after(ordered(1)).then(timer(11, since=1))
        after(signed(1)).then(timer(11, since=1, stream=DEAL))
        after((1, fact(Customer.RelationshipStarted, opportunity_id=DEAL))).then(timer(11, since=1))

    def test_a_later_purchase_moves_it(self) -> None:
        after(ordered(1), ordered(4)).then(timer(14, since=4))
        after(ordered(1), signed(4)).then(timer(14, since=4, stream=DEAL))

    def test_a_purchase_recorded_late_does_not_move_it_back(self) -> None:
        after(ordered(4), ordered(1)).then()
        after(ordered(4), signed(1)).then()

    def test_of_two_at_one_instant_the_later_recorded_is_the_cause(self) -> None:
        after(signed(1), ordered(1)).then(timer(11, since=1))

    def test_a_loss_cancels_it(self) -> None:
        after(ordered(1), churned(2)).then(Cancel(ID))
        after(ordered(1), churned(1)).then(Cancel(ID))
        after(churned(2)).then()

    def test_who_comes_back_is_waited_for_anew(self) -> None:
        after(ordered(1), churned(2), won_back(3)).then(timer(13, since=3))
        after(ordered(1), churned(2), ordered(3)).then(timer(13, since=3))

    def test_a_loss_from_before_the_last_purchase_is_over(self) -> None:
        after(ordered(4), churned(3)).then()

    def test_a_contract_after_a_loss_that_did_not_know_of_it_resumes_the_relationship(self) -> None:
        resume = Command(
            CRM.start_relationship, ID, {"opportunity_id": DEAL, "occurred_at": day(4)}
        )
        after(ordered(1), signed(4), churned(3)).then(resume)

    def test_it_says_when_it_fires_what_it_rests_on(self) -> None:
        silence = Silence(rule="silence/1:10", since=day(1), days=10, event_id=cause(1).event_id)
        command = Command(CRM.churn_silent, ID, {"silence": silence, "occurred_at": day(11)})
        assert POLICY.due(timer(11, since=1)) == command

    @given_any(st.lists(st.tuples(st.sampled_from([ordered, signed, won_back]), st.integers(0, 9))))
    def test_in_any_order_of_recording_it_stands_at_the_latest(self, told: list[Any]) -> None:
        waiting = after(*(tell(on) for tell, on in told)).timer
        latest = max((on for _, on in told), default=None)
        assert (waiting and waiting.due_at) == (None if latest is None else day(latest + 10))


def test_another_configuration_is_another_policy() -> None:
    assert len({PassiveLoss(10).id, PassiveLoss(11).id}) == 2


def silence(since: datetime) -> Silence:
    return Silence(rule="silence/1:10", since=since, days=10, event_id=ID)


def going_silent(since: datetime, at: datetime = NOW) -> Any:
    return lambda customer: customer.churn_silent(silence=silence(since), at=at)


BOUGHT = START + timedelta(hours=1)
"""When the order of `buyer` was placed."""


class TestPassiveLoss:
    def test_it_carries_its_evidence(self, buyer: Stream) -> None:
        expected = fact(Customer.Churned, at=NOW, cause=ChurnCause.SILENCE, silence=silence(BOUGHT))
        customer = given(*buyer).when(going_silent(BOUGHT)).then(expected)
        assert (customer.type, customer.level) == (CustomerType.LOST, None)
        assert customer.churn_cause is ChurnCause.SILENCE

    def test_a_contract_that_the_stream_does_not_know_of_counts(self, buyer: Stream) -> None:
        since = BOUGHT + timedelta(days=3)
        given(*buyer).when(going_silent(since)).then(fact(Customer.Churned))

    def test_nothing_after_a_later_purchase(self, buyer: Stream) -> None:
        given(*buyer).when(going_silent(BOUGHT - timedelta(seconds=1))).then()

    def test_nothing_after_a_loss(self, lost_customer: Stream) -> None:
        given(*lost_customer).when(going_silent(BOUGHT)).then()

    def test_nothing_a_second_time(self, buyer: Stream) -> None:
        gone = fact(Customer.Churned, cause=ChurnCause.SILENCE, silence=silence(BOUGHT))
        given(*buyer, gone).when(going_silent(BOUGHT)).then()

    def test_nothing_after_a_win_back(self, lost_customer: Stream) -> None:
        given(*lost_customer, fact(Customer.WonBack)).when(going_silent(BOUGHT)).then()

    def test_nothing_without_a_relationship(self, prospect: Stream) -> None:
        given(*prospect).when(going_silent(BOUGHT)).then()

    def test_who_was_lost_so_can_be_won_back(self, buyer: Stream) -> None:
        gone = fact(Customer.Churned, cause=ChurnCause.SILENCE, silence=silence(BOUGHT))
        back = given(*buyer, gone).when(lambda customer: customer.win_back(at=NOW))
        assert back.then(fact(Customer.WonBack)).level is Level.NEW

    def test_nobody_can_say_it(self, buyer: Stream) -> None:
        given(*buyer).when(
            lambda customer: customer.churn(cause=ChurnCause.SILENCE, at=NOW)
        ).refused(CauseReserved)


@pytest.fixture
def crm() -> Iterator[MemoryCRM]:
    with MemoryCRM() as crm:
        crm.save(crm.define_default_pipeline())
        yield crm


@pytest.fixture
def bought(crm: MemoryCRM) -> datetime:
    """When the customer ID bought: 20 days after being registered, 30 days ago."""
    crm.now = TODAY - timedelta(days=50)
    crm.save(crm.register_customer(ID, kind=CustomerKind.COMPANY, name="Acme"))
    crm.now = TODAY - timedelta(days=30)
    crm.save(crm.place_order(ID, order_id="1", amount=eur("1")))
    at, crm.now = crm.now, TODAY
    return at


class TestCommands:
    def test_a_loss_is_dated_when_it_became_true(self, crm: MemoryCRM, bought: datetime) -> None:
        due = bought + timedelta(days=10)
        lost = crm.churn_silent(ID, silence=silence(bought), occurred_at=due)
        assert [event.timestamp for event in lost.pending_events] == [due]

    def test_but_not_before_what_is_known_last(self, crm: MemoryCRM, bought: datetime) -> None:
        known = bought + timedelta(days=12)
        crm.save(crm.change_profile(ID, region="north", occurred_at=known))
        due = bought + timedelta(days=10)
        lost = crm.churn_silent(ID, silence=silence(bought), occurred_at=due)
        assert [event.timestamp for event in lost.pending_events] == [known]

    def test_nor_in_the_future(self, crm: MemoryCRM, bought: datetime) -> None:
        with pytest.raises(InTheFuture):
            crm.churn_silent(ID, silence=silence(bought), occurred_at=TODAY + timedelta(seconds=1))

    def test_a_relationship_is_resumed_once(self, crm: MemoryCRM, bought: datetime) -> None:
        lost_on = bought + timedelta(days=10)
        crm.save(crm.churn_silent(ID, silence=silence(bought), occurred_at=lost_on))
        signed_on = lost_on + timedelta(days=1)
        for events in (1, 0):
            customer = crm.start_relationship(ID, opportunity_id=DEAL, occurred_at=signed_on)
            assert len(customer.pending_events) == events
            crm.save(customer)
        assert customer.type is CustomerType.RELATIONSHIP

    def test_not_by_a_contract_from_before_the_loss(self, crm: MemoryCRM, bought: datetime) -> None:
        lost_on = bought + timedelta(days=10)
        crm.save(crm.churn_silent(ID, silence=silence(bought), occurred_at=lost_on))
        customer = crm.start_relationship(ID, opportunity_id=DEAL, occurred_at=bought)
        assert not customer.pending_events

    def test_a_contract_older_than_the_customer_is_dated_with_it(
        self, crm: MemoryCRM, bought: datetime
    ) -> None:
        other = UUID(int=7)
        crm.save(crm.register_customer(other, kind=CustomerKind.COMPANY, name="B"))
        customer = crm.start_relationship(other, opportunity_id=DEAL, occurred_at=bought)
        assert [event.timestamp for event in customer.pending_events] == [TODAY]
