"""The commands over a store in memory: loading, times, and what one command asks of several."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from eventsourcing.persistence import Transcoder

from domain.application import CRM
from domain.campaign import Campaign
from domain.customer import Customer
from domain.errors import (
    AlreadyExists,
    BeforeFirst,
    CampaignNotFound,
    CustomerNotFound,
    InTheFuture,
    InvalidDate,
    InvalidRate,
    NaiveTime,
    OpportunityNotFound,
    PipelineNotFound,
    SignedBeforeOpening,
)
from domain.exchange_rate import ExchangeRate, exchange_rate_id
from domain.member import member_id
from domain.opportunity import Opportunity
from domain.pipeline import DEFAULT_PIPELINE_ID, DEFAULT_STAGES, Pipeline
from domain.values import (
    AlertKind,
    ChurnCause,
    CustomerKind,
    CustomerType,
    ExternalId,
    Level,
    LevelEvidence,
    OpportunityStatus,
    Severity,
    stream_id,
)
from tests.unit.domain.streams import eur

SHANGHAI = ZoneInfo("Asia/Shanghai")
TODAY = datetime(2024, 7, 1, 4, tzinfo=UTC)  # noon in Shanghai


class PickleTranscoder(Transcoder):
    def encode(self, obj: Any) -> bytes:
        return pickle.dumps(obj)

    def decode(self, data: bytes) -> Any:
        return pickle.loads(data)


class MemoryCRM(CRM):
    now = TODAY

    def __init__(self) -> None:
        super().__init__(clock=lambda: self.now, timezone=SHANGHAI)

    def construct_transcoder(self) -> Transcoder:
        return PickleTranscoder()


@pytest.fixture
def crm() -> Iterator[MemoryCRM]:
    with MemoryCRM() as crm:
        crm.save(crm.define_default_pipeline())
        yield crm


@pytest.fixture
def customer_id(crm: MemoryCRM) -> UUID:
    customer_id = uuid4()
    crm.save(crm.register_customer(customer_id, kind=CustomerKind.COMPANY, name="Acme"))
    return customer_id


@pytest.fixture
def campaign_id(crm: MemoryCRM) -> UUID:
    campaign_id = uuid4()
    crm.save(plan(crm, campaign_id))
    return campaign_id


@pytest.fixture
def deal_id(crm: MemoryCRM, customer_id: UUID) -> UUID:
    """Opened on 2024-06-10, 20:00 in Shanghai."""
    deal_id = uuid4()
    opened_at = datetime(2024, 6, 10, 12, tzinfo=UTC)
    crm.save(
        crm.open_opportunity(
            deal_id,
            customer_id=customer_id,
            name="press",
            amount=eur("9"),
            occurred_at=opened_at,
        )
    )
    return deal_id


def plan(crm: CRM, campaign_id: UUID, external_id: ExternalId | None = None) -> Campaign:
    return crm.plan_campaign(
        campaign_id,
        name="spring",
        channel="web",
        starts_on=date(2024, 3, 1),
        ends_on=date(2024, 3, 31),
        budget=eur("9"),
        external_id=external_id,
    )


class TestTimes:
    def test_now_by_default(self, crm: MemoryCRM, customer_id: UUID) -> None:
        crm.now = TODAY + timedelta(hours=1)
        churned = crm.churn(customer_id, cause=ChurnCause.PRICE)
        assert churned.pending_events[0].timestamp == crm.now

    def test_never_before_the_streams_last_by_default(
        self, crm: MemoryCRM, customer_id: UUID
    ) -> None:
        crm.now = TODAY - timedelta(seconds=1)  # another machine's clock
        assert crm.churn(customer_id, cause=ChurnCause.PRICE).modified_on == TODAY

    def test_given_times_become_utc(self, crm: MemoryCRM, deal_id: UUID) -> None:
        given = datetime(2024, 6, 11, 9, tzinfo=timezone(timedelta(hours=8)))
        changed = crm.change_amount(deal_id, amount=eur("1"), occurred_at=given)
        assert changed.modified_on == given
        assert changed.modified_on.tzinfo is UTC

    @pytest.mark.parametrize(
        ("occurred_at", "error"),
        [
            (datetime(2024, 6, 11), NaiveTime),  # noqa: DTZ001
            (TODAY + timedelta(microseconds=1), InTheFuture),
            (datetime(2024, 6, 10, 11, 59, tzinfo=UTC), BeforeFirst),
            (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), InvalidDate),
            (datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))), InTheFuture),
        ],
    )
    def test_refused_times(
        self,
        crm: MemoryCRM,
        deal_id: UUID,
        occurred_at: datetime,
        error: type[Exception],
    ) -> None:
        with pytest.raises(error):
            crm.change_amount(deal_id, amount=eur("1"), occurred_at=occurred_at)
        if error is not BeforeFirst:
            with pytest.raises(error):
                crm.register_customer(
                    uuid4(), kind=CustomerKind.COMPANY, name="B", occurred_at=occurred_at
                )

    def test_facts_may_be_recorded_in_any_order(self, crm: MemoryCRM, deal_id: UUID) -> None:
        crm.save(crm.transfer(deal_id, owner="ann"))
        crm.save(crm.transfer(deal_id, owner="bob", occurred_at=TODAY - timedelta(days=3)))
        deal = crm.transfer(deal_id, owner="cid")
        assert deal.modified_on == TODAY


class TestFinding:
    def test_nothing_there(self, crm: MemoryCRM) -> None:
        nobody = uuid4()
        with pytest.raises(CustomerNotFound):
            crm.win_back(nobody)
        with pytest.raises(OpportunityNotFound):
            crm.resume(nobody)
        with pytest.raises(CampaignNotFound):
            crm.submit_campaign(nobody)
        with pytest.raises(PipelineNotFound):
            crm.revise_pipeline(nobody, stages=DEFAULT_STAGES)

    def test_something_else_there(self, crm: MemoryCRM, customer_id: UUID, deal_id: UUID) -> None:
        with pytest.raises(CustomerNotFound):
            crm.win_back(deal_id)
        with pytest.raises(OpportunityNotFound):
            crm.close_opportunity(customer_id)

    def test_a_deal_needs_what_it_refers_to(self, crm: MemoryCRM, customer_id: UUID) -> None:
        known: dict[str, Any] = {"customer_id": customer_id, "name": "press", "amount": eur("1")}
        with pytest.raises(CustomerNotFound):
            crm.open_opportunity(uuid4(), **{**known, "customer_id": uuid4()})
        with pytest.raises(CampaignNotFound):
            crm.open_opportunity(uuid4(), **known, campaign_id=uuid4())
        with pytest.raises(PipelineNotFound):
            crm.open_opportunity(uuid4(), **known, pipeline_id=uuid4())

    def test_a_response_needs_its_campaign(
        self, crm: MemoryCRM, customer_id: UUID, campaign_id: UUID
    ) -> None:
        with pytest.raises(CampaignNotFound):
            crm.record_response(customer_id, campaign_id=uuid4(), channel="web", kind="call")
        customer = crm.record_response(
            customer_id, campaign_id=campaign_id, channel="web", kind="call"
        )
        assert customer.type is CustomerType.RESPONDER

    def test_external_ids_are_taken_once(self, crm: MemoryCRM, customer_id: UUID) -> None:
        external_id = ExternalId("old-crm", "7")
        taken = stream_id("any", external_id)

        def register() -> Customer:
            return crm.register_customer(
                taken, kind=CustomerKind.COMPANY, name="B", external_id=external_id
            )

        def open_deal() -> Opportunity:
            return crm.open_opportunity(
                taken,
                customer_id=customer_id,
                name="press",
                amount=eur("1"),
                external_id=external_id,
            )

        crm.save(register())
        for again in (register, open_deal, lambda: plan(crm, taken, external_id)):
            with pytest.raises(AlreadyExists) as caught:
                again()
            assert caught.value.existing_id == taken

    def test_the_default_pipeline_is_defined_once(self, crm: MemoryCRM) -> None:
        pipeline = crm.define_default_pipeline()
        assert (pipeline.id, pipeline.pending_events) == (DEFAULT_PIPELINE_ID, [])
        with pytest.raises(AlreadyExists):
            crm.define_pipeline(DEFAULT_PIPELINE_ID, name="x", stages=DEFAULT_STAGES)


class TestContract:
    def won_at(self, crm: MemoryCRM, deal_id: UUID, day: date) -> datetime:
        deal, _ = crm.sign_contract(deal_id, amount=eur("9"), signed_on=day)
        assert deal.status is OpportunityStatus.WON
        return deal.modified_on

    def test_signed_today_is_won_now(self, crm: MemoryCRM, deal_id: UUID) -> None:
        assert self.won_at(crm, deal_id, date(2024, 7, 1)) == TODAY

    def test_today_is_reckoned_in_the_own_timezone(self, crm: MemoryCRM, deal_id: UUID) -> None:
        crm.now = datetime(2024, 7, 1, 17, tzinfo=UTC)  # the 2nd in Shanghai
        assert self.won_at(crm, deal_id, date(2024, 7, 2)) == crm.now

    def test_signed_earlier_is_won_as_that_day_begins(self, crm: MemoryCRM, deal_id: UUID) -> None:
        day_begins = datetime(2024, 6, 19, 16, tzinfo=UTC)
        assert self.won_at(crm, deal_id, date(2024, 6, 20)) == day_begins

    def test_signed_on_the_day_of_the_opening(self, crm: MemoryCRM, deal_id: UUID) -> None:
        opened_at = datetime(2024, 6, 10, 12, tzinfo=UTC)
        assert self.won_at(crm, deal_id, date(2024, 6, 10)) == opened_at
        crm.save(crm.transfer(deal_id, owner="ann"))
        assert self.won_at(crm, deal_id, date(2024, 6, 10)) == opened_at

    def test_not_before_what_is_known_of_that_day(self, crm: MemoryCRM, deal_id: UUID) -> None:
        that_day = datetime(2024, 6, 20, 3, tzinfo=UTC)
        crm.save(crm.change_stage(deal_id, stage="contract", occurred_at=that_day))
        assert self.won_at(crm, deal_id, date(2024, 6, 20)) == that_day

    def test_a_given_time_is_kept(self, crm: MemoryCRM, deal_id: UUID) -> None:
        at = datetime(2024, 6, 25, tzinfo=UTC)
        deal, _ = crm.sign_contract(
            deal_id, amount=eur("9"), signed_on=date(2024, 6, 20), occurred_at=at
        )
        assert deal.modified_on == at

    def test_not_signed_tomorrow_nor_before_the_opening(
        self, crm: MemoryCRM, deal_id: UUID
    ) -> None:
        for day, error in (
            (date(2024, 7, 2), InTheFuture),
            (date.max, InTheFuture),
            (date(2024, 6, 9), SignedBeforeOpening),
            (date.min, SignedBeforeOpening),
        ):
            with pytest.raises(error):
                crm.sign_contract(deal_id, amount=eur("9"), signed_on=day)

    def test_starts_the_relationship_once(self, crm: MemoryCRM, deal_id: UUID) -> None:
        signed = crm.sign_contract(deal_id, amount=eur("9"), signed_on=date(2024, 6, 20))
        started = signed[1].pending_events
        assert [type(event) for event in started] == [Customer.RelationshipStarted]
        assert started[0].timestamp == TODAY, "not before the customer was registered"
        crm.save(*signed)
        again = crm.sign_contract(deal_id, amount=eur("9"), signed_on=date(2024, 6, 20))
        assert [aggregate.pending_events for aggregate in again] == [[], []]

    def test_leaves_a_relationship_as_it_is(
        self, crm: MemoryCRM, deal_id: UUID, customer_id: UUID
    ) -> None:
        crm.save(crm.place_order(customer_id, order_id="o-1", amount=eur("1")))
        _, customer = crm.sign_contract(deal_id, amount=eur("9"), signed_on=date(2024, 7, 1))
        assert customer.pending_events == []

    def test_brings_back_a_lost_customer(
        self, crm: MemoryCRM, deal_id: UUID, customer_id: UUID
    ) -> None:
        crm.save(crm.place_order(customer_id, order_id="o-1", amount=eur("1")))
        crm.save(crm.churn(customer_id, cause=ChurnCause.PRICE))
        _, customer = crm.sign_contract(deal_id, amount=eur("9"), signed_on=date(2024, 7, 1))
        assert (customer.type, customer.level) == (CustomerType.RELATIONSHIP, Level.NEW)


def test_saving_tells_the_recorder_the_partition_keys(
    crm: MemoryCRM, deal_id: UUID, customer_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(crm.recorder, "insert_events", lambda events, **kw: seen.update(kw))
    signed = crm.sign_contract(deal_id, amount=eur("9"), signed_on=date(2024, 7, 1))
    crm.save(*signed, envelope="by ann")
    assert seen["partition_keys"] == {deal_id: customer_id, customer_id: customer_id}
    assert seen["envelope"] == "by ann"


def test_deciding_twice_changes_nothing_stored(crm: MemoryCRM, deal_id: UUID) -> None:
    first, second = (crm.transfer(deal_id, owner="bob") for _ in range(2))
    assert first == second
    crm.save(first)
    assert crm.repository.get(deal_id) == crm.transfer(deal_id, owner="bob")


def test_a_deal_from_opening_to_purge(crm: MemoryCRM, deal_id: UUID) -> None:
    crm.save(crm.change_stage(deal_id, stage="bid"))
    crm.save(crm.change_stage(deal_id, stage="prospect"))
    crm.save(crm.change_amount(deal_id, amount=eur("8")))
    crm.save(crm.change_expected_close(deal_id, expected_close=date(2024, 9, 1)))
    crm.save(crm.estimate_chance(deal_id, chance=Decimal("0.4")))
    crm.save(crm.record_activity(deal_id, kind="visit", result="met"))
    crm.save(crm.book_expense(deal_id, purpose="lunch", amount=eur("1")))
    crm.save(crm.suspend(deal_id))
    crm.save(crm.resume(deal_id))
    crm.save(crm.review(deal_id, summary="too dear", competitor="Umbra"))
    crm.save(crm.lose(deal_id, cause="price", competitor="Umbra"))
    crm.save(crm.close_opportunity(deal_id))
    crm.save(crm.archive_opportunity(deal_id))
    crm.save(crm.purge_opportunity(deal_id))
    deal: Opportunity = crm.repository.get(deal_id)
    assert (deal.version, deal.status, deal.purged) == (15, OpportunityStatus.LOST, True)
    assert deal.amount == eur("8")


def test_a_terminated_deal(crm: MemoryCRM, deal_id: UUID) -> None:
    assert crm.terminate(deal_id).status is OpportunityStatus.TERMINATED


def test_a_campaign_from_plan_to_completion(crm: MemoryCRM, campaign_id: UUID) -> None:
    crm.save(crm.submit_campaign(campaign_id))
    crm.save(crm.reject_campaign(campaign_id))
    crm.save(crm.submit_campaign(campaign_id))
    crm.save(crm.approve_campaign(campaign_id, by="boss"))
    crm.save(crm.start_campaign(campaign_id))
    crm.save(crm.book_cost(campaign_id, amount=eur("1"), reference="r-1"))
    crm.save(crm.record_attendance(campaign_id, attendees=40))
    crm.save(crm.complete_campaign(campaign_id))
    assert crm.complete_campaign(campaign_id).version == 9
    other = uuid4()
    crm.save(plan(crm, other))
    assert crm.cancel_campaign(other).version == 2


def test_a_customer_through_its_life(crm: MemoryCRM, customer_id: UUID) -> None:
    crm.save(crm.change_profile(customer_id, name="Acme Ltd", attributes={"size": 5}))
    crm.save(crm.add_contact(customer_id, contact_id=uuid4(), name="Li Wei"))
    crm.save(crm.place_order(customer_id, order_id="o-1", amount=eur("1")))
    crm.save(crm.record_delivery(customer_id, delivery_id="d-1", order_id="o-1"))
    assert not crm.record_delivery(customer_id, delivery_id="d-1", order_id="o-1").pending_events
    crm.save(crm.record_payment(customer_id, kind="overdue", amount=eur("1"), reference="i-1"))
    crm.save(crm.record_payment(customer_id, kind="settled", amount=eur("1"), reference="i-1"))
    crm.save(crm.raise_churn_signal(customer_id, kind="complaint", severity=Severity.LOW))
    crm.save(crm.change_level(customer_id, level=Level.DECLINING))
    crm.save(crm.churn(customer_id, cause=ChurnCause.SERVICE))
    customer = crm.win_back(customer_id)
    crm.save(customer)
    assert (customer.version, customer.level) == (11, Level.NEW)
    crm.save(crm.describe_demand(customer_id, cycle_days=30, stock_alert_below=Decimal(10)))
    crm.save(crm.report_stock(customer_id, level=Decimal(9)))
    crm.save(crm.plan_retention(customer_id, worth_keeping=True, limit=eur("9")))
    crm.save(crm.book_retention_cost(customer_id, amount=eur("9"), reference="r-1"))
    customer = crm.book_retention_cost(customer_id, amount=eur("9"), reference="r-1")
    assert (customer.version, customer.pending_events) == (15, [])


def test_an_owner_moves_from_team_to_team(crm: MemoryCRM) -> None:
    id_ = member_id("ann")
    crm.save(crm.assign_team(id_, owner="ann", team="north"))
    crm.now = TODAY + timedelta(days=5)
    again = crm.assign_team(id_, owner="ann", team="north")
    assert (again.version, again.pending_events) == (1, [])
    crm.save(crm.assign_team(id_, owner="ann"))
    told = TODAY + timedelta(days=2)
    member = crm.assign_team(id_, owner="ann", team="south", occurred_at=told)
    crm.save(member)
    found = [member.team_at(TODAY + timedelta(days=days)) for days in (0, 1, 2, 4, 5)]
    assert found == ["north", "north", "south", "south", None]
    with pytest.raises(BeforeFirst):
        crm.assign_team(id_, owner="ann", team="x", occurred_at=TODAY - timedelta(days=1))
    with pytest.raises(InTheFuture):
        crm.assign_team(id_, owner="ann", team="x", occurred_at=TODAY + timedelta(days=9))


class TestRules:
    """Commands that policies give, which may know of something before this customer does."""

    EVIDENCE = LevelEvidence("levels/1", {}, UUID(int=1))

    def test_a_level(self, crm: MemoryCRM, customer_id: UUID) -> None:
        crm.now = TODAY + timedelta(hours=1)
        crm.save(crm.place_order(customer_id, order_id="o-1", amount=eur("1")))
        change: dict[str, Any] = {"level": Level.GROWING, "evidence": self.EVIDENCE}
        before = TODAY - timedelta(days=1)
        unchanged = crm.change_level_by_rule(customer_id, **change, occurred_at=before)
        assert not unchanged.pending_events
        crm.now = TODAY + timedelta(days=2)
        due = TODAY + timedelta(days=1)
        changed = crm.change_level_by_rule(customer_id, **change, occurred_at=due)
        assert (changed.level, changed.modified_on) == (Level.GROWING, due)
        with pytest.raises(InTheFuture):
            crm.change_level_by_rule(
                customer_id, **change, occurred_at=crm.now + timedelta(seconds=1)
            )

    def test_an_alert_is_not_older_than_the_customer(
        self, crm: MemoryCRM, customer_id: UUID
    ) -> None:
        crm.save(crm.describe_demand(customer_id, cycle_days=30))
        due = TODAY - timedelta(days=1)
        alerted = crm.alert_demand(
            customer_id,
            kind=AlertKind.CYCLE,
            rule="demand/1",
            due_at=due,
            event_id=UUID(int=1),
            occurred_at=due,
        )
        alert: Any = alerted.pending_events[0]
        assert (alert.timestamp, alert.due_at) == (TODAY, due)


class TestRates:
    EUR_CNY: ClassVar[dict[str, Any]] = {"from_currency": "EUR", "to_currency": "CNY"}
    ID = exchange_rate_id("EUR", "CNY")

    def test_the_first_one_begins_the_stream(self, crm: MemoryCRM) -> None:
        rate = {**self.EUR_CNY, "rate": Decimal("7.8"), "on": date(2024, 7, 1)}
        crm.save(crm.record_rate(self.ID, **rate))
        assert crm.record_rate(self.ID, **rate).pending_events == []
        earlier = {**rate, "on": date(2020, 1, 1)}
        crm.save(crm.record_rate(self.ID, **earlier))
        found: ExchangeRate = crm.repository.get(self.ID)
        assert (found.version, list(found.rates)) == (3, [rate["on"], earlier["on"]])

    def test_nothing_is_left_of_a_pair_whose_first_rate_is_refused(self, crm: MemoryCRM) -> None:
        with pytest.raises(InvalidRate):
            crm.record_rate(self.ID, **self.EUR_CNY, rate=Decimal(0), on=date(2024, 7, 1))
        assert self.ID not in crm.repository

    def test_none_of_tomorrow(self, crm: MemoryCRM) -> None:
        crm.now = datetime(2024, 7, 1, 16, tzinfo=UTC)  # midnight in Shanghai
        rate: dict[str, Any] = {**self.EUR_CNY, "rate": Decimal("7.8")}
        with pytest.raises(InTheFuture):
            crm.record_rate(self.ID, **rate, on=date(2024, 7, 3))
        assert crm.record_rate(self.ID, **rate, on=date(2024, 7, 2)).version == 2


def test_a_running_deal_keeps_its_revision_until_moved(crm: MemoryCRM, deal_id: UUID) -> None:
    revised = crm.revise_pipeline(DEFAULT_PIPELINE_ID, stages=DEFAULT_STAGES[1:])
    crm.save(revised)
    kept: Opportunity = crm.repository.get(deal_id)
    assert kept.pipeline_revision == 1
    assert crm.change_stage(deal_id, stage="bid").pipeline_revision == 2
    stored: Pipeline = crm.repository.get(DEFAULT_PIPELINE_ID)
    assert stored == revised
