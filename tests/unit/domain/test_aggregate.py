"""Snapshots, copies, and replay after any sequence of commands."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, get_type_hints
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.aggregate import LedgerAggregate
from domain.campaign import Campaign
from domain.customer import Customer
from domain.errors import DomainError
from domain.exchange_rate import ExchangeRate
from domain.opportunity import Opportunity
from domain.pipeline import DEFAULT_STAGES, Pipeline
from domain.values import (
    AlertKind,
    ChurnCause,
    CustomerKind,
    Level,
    LevelEvidence,
    Money,
    PaymentKind,
    RepeatType,
    Severity,
)
from tests.given_when_then import ID, START, replay
from tests.unit.domain.streams import CAMPAIGN, CUSTOMER, eur

Steps = list[tuple[str, dict[str, Any]]]

times = st.integers(0, 400).map(lambda hours: START + timedelta(hours=hours))
amounts = st.sampled_from([eur("1"), eur("2.50")])
words = st.sampled_from(["a", "b", "", "\x00", "客户"])
days = st.dates(date(2023, 12, 30), date(2024, 1, 10))


def steps(**commands: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Steps]:
    """Any number of the commands, in any order, at any time."""
    each = [
        st.tuples(st.just(name), st.fixed_dictionaries({"at": times, **arguments}))
        for name, arguments in commands.items()
    ]
    return st.lists(st.one_of(each), max_size=25)


def pipeline() -> Pipeline:
    defined = Pipeline.define(ID, name="x", stages=DEFAULT_STAGES, approvals=(), at=START)
    defined.revise(stages=DEFAULT_STAGES[1:], approvals=("suspend",), at=START)
    return defined


def deal() -> Opportunity:
    return Opportunity.open(
        ID,
        customer_id=CUSTOMER,
        name="new press",
        amount=eur("1"),
        pipeline=pipeline(),
        stage=None,
        expected_close=None,
        owner=None,
        campaign_id=None,
        referred_by=None,
        external_id=None,
        at=START,
    )


def customer() -> Customer:
    return Customer.register(
        ID,
        kind=CustomerKind.PERSON,
        name=None,
        identified=False,
        region=None,
        industry=None,
        source=None,
        external_id=None,
        attributes={},
        at=START,
    )


def campaign() -> Campaign:
    return Campaign.plan(
        ID,
        name="spring",
        channel="web",
        region=None,
        starts_on=date(2024, 3, 1),
        ends_on=date(2024, 3, 31),
        budget=eur("9"),
        external_id=None,
        product=None,
        plan=None,
        at=START,
    )


def exchange_rate() -> ExchangeRate:
    return ExchangeRate.quote(ID, from_currency="EUR", to_currency="CNY", at=START)


maybe_word = st.none() | words
quantities = st.sampled_from([Decimal(-1), Decimal(0), Decimal("0.5"), Decimal(3), Decimal("NaN")])
of_pipeline = {"pipeline": st.builds(pipeline), "approver": maybe_word}
deal_steps = steps(
    change_stage={**of_pipeline, "stage": st.sampled_from(["prospect", "bid", "contract", "?"])},
    change_amount={"amount": amounts},
    change_expected_close={"expected_close": st.none() | days},
    transfer={"owner": words},
    suspend=of_pipeline,
    resume={},
    terminate=of_pipeline,
    sign_contract={
        "amount": amounts,
        "signed_on": days,
        "cost": st.none() | amounts | st.just(Money.of("1", "CNY")),
        "timezone": st.just(UTC),
    },
    lose={"cause": words, "competitor": maybe_word},
    review={"summary": words, "competitor": maybe_word},
    estimate_chance={"chance": st.sampled_from([Decimal("0.5"), Decimal(2), Decimal("NaN")])},
    record_activity={"kind": words, "result": words},
    book_expense={"purpose": words, "amount": amounts},
    close={},
    archive={},
    purge={},
)
customer_steps = steps(
    change_profile={
        "name": maybe_word,
        "identified": st.none() | st.booleans(),
        "region": maybe_word,
        "industry": maybe_word,
        "source": maybe_word,
        "attributes": st.dictionaries(words, st.integers() | st.floats() | st.booleans() | words),
        "removed_attributes": st.lists(words),
    },
    add_contact={
        "contact_id": st.sampled_from([UUID(int=1), UUID(int=2)]),
        "name": words,
        "department": maybe_word,
        "level": maybe_word,
        "role": maybe_word,
        "email": maybe_word,
        "phone": maybe_word,
    },
    respond={"campaign_id": st.just(CAMPAIGN), "channel": words, "kind": words},
    place_order={
        "order_id": words,
        "amount": amounts,
        "cost": st.none() | amounts | st.just(Money.of("1", "CNY")),
    },
    record_payment={
        "kind": st.sampled_from(PaymentKind),
        "reference": words,
        "amount": amounts,
    },
    raise_churn_signal={
        "kind": words,
        "severity": st.sampled_from(Severity),
        "detail": maybe_word,
    },
    start_relationship={"opportunity_id": st.just(CUSTOMER)},
    change_level={"level": st.sampled_from(Level)},
    change_level_by_rule={
        "level": st.sampled_from(Level),
        "evidence": st.just(LevelEvidence("levels/1", {"revenue": "3"}, CUSTOMER)),
    },
    describe_demand={
        "repeat_type": st.none() | st.sampled_from(RepeatType),
        "cycle_days": st.sampled_from([None, 0, 1, 7, 3_651]),
        "stock_alert_below": st.none() | quantities,
    },
    report_stock={"level": quantities},
    alert_demand={
        "kind": st.sampled_from(AlertKind),
        "rule": words,
        "due_at": times,
        "event_id": st.sampled_from([CAMPAIGN, CUSTOMER]),
    },
    plan_retention={
        "worth_keeping": st.booleans(),
        "social_effect": st.none() | st.sampled_from(Severity),
        "limit": st.sampled_from([eur("0"), eur("3"), Money.of("9", "CNY")]),
    },
    book_retention_cost={"amount": amounts, "reference": words},
    churn={"cause": st.sampled_from(ChurnCause)},
    win_back={},
)
campaign_steps = steps(
    submit={},
    approve={"by": words},
    reject={},
    start={},
    book_cost={"amount": amounts, "reference": words},
    record_attendance={"attendees": st.integers(-1, 3)},
    complete={},
    cancel={},
)
rate_steps = steps(record={"rate": quantities, "on": days})
STREAMS = [
    (deal, deal_steps),
    (customer, customer_steps),
    (campaign, campaign_steps),
    (exchange_rate, rate_steps),
]


@pytest.mark.parametrize(
    ("begin", "commands"), STREAMS, ids=["deal", "customer", "campaign", "exchange rate"]
)
@settings(max_examples=60)
@given(st.data())
def test_any_sequence_of_commands_is_refused_or_replays_to_the_same_state(
    begin: Callable[[], LedgerAggregate], commands: st.SearchStrategy[Steps], data: st.DataObject
) -> None:
    aggregate = begin()
    key = aggregate.partition_key
    for name, arguments in data.draw(commands):
        before = deepcopy(aggregate)
        try:
            getattr(aggregate, name)(**arguments)
        except DomainError:
            assert aggregate == before
            continue
        added = len(aggregate.pending_events) - len(before.pending_events)
        assert added in (0, 1)
    events = aggregate.collect_events()
    assert replay(events) == aggregate
    assert aggregate.last_occurred_on == max(event.timestamp for event in events)
    assert aggregate.partition_key == key
    snapshot = type(aggregate).Snapshot.take(aggregate)
    assert snapshot.mutate(None) == aggregate


@pytest.mark.parametrize("begin", [pipeline, deal, customer, campaign, exchange_rate])
def test_state_is_declared_and_unset_state_has_its_default(
    begin: Callable[[], LedgerAggregate],
) -> None:
    aggregate = begin()
    declared = get_type_hints(type(aggregate))
    technical = {"_id", "_version", "_pending_events"}
    assert vars(aggregate).keys() - technical <= declared.keys()
    for name in declared.keys() - {"INITIAL_VERSION"}:
        getattr(aggregate, name)


def test_a_copy_and_a_snapshot_stay_as_they_were() -> None:
    original = customer()
    original.place_order(order_id="a", amount=eur("1"), cost=None, at=START)
    copied, snapshot = deepcopy(original), Customer.Snapshot.take(original)
    original.place_order(order_id="b", amount=eur("1"), cost=None, at=START)
    assert list(copied.orders) == list(snapshot.state["orders"]) == ["a"]
    assert (len(copied.pending_events), len(original.pending_events)) == (2, 3)
    assert snapshot.topic == "crm.customer"


def test_each_stream_begins_with_its_own_defaults() -> None:
    first, second = customer(), customer()
    first.place_order(order_id="a", amount=eur("1"), cost=None, at=START)
    assert second.orders == {}


def test_the_latest_time_is_kept_whatever_comes_in_which_order() -> None:
    stream = customer()
    for month in (5, 3, 4):
        at = datetime(2024, month, 1, tzinfo=UTC)
        stream.place_order(order_id=str(month), amount=eur("1"), cost=None, at=at)
    assert stream.last_occurred_on == datetime(2024, 5, 1, tzinfo=UTC)
    assert stream.created_on == START
