"""Levels and demand as the worker runs them in memory: however it is batched, doubled and killed,
and however late it is switched on again, it comes to the same events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid5

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from domain.customer import Customer
from domain.definitions import LevelDefinition
from domain.errors import InTheFuture
from domain.policies.demand import Demand
from domain.policies.levels import Levels
from domain.values import ChurnCause, CustomerKind, Level, PaymentKind, RepeatType
from tests.unit.domain.streams import eur
from tests.unit.workers.policy_world import BEGIN, World, chaotic, drained
from workers import policies
from workers.policies import Policy

ACME, OTHER = CUSTOMERS = [UUID(int=n) for n in (1, 2)]
LEVELS = Levels(LevelDefinition(window_days=10, new_days=20, overdue_days=3, value_days=30))
DEMAND = Demand()
RUNS = pytest.mark.parametrize("policy", [LEVELS, DEMAND], ids=["levels", "demand"])

Act = Callable[[World, UUID, datetime, str], None]


def started(policy: Policy) -> World:
    world = World(policy)
    world.act(world.crm.define_default_pipeline)
    for customer in CUSTOMERS:
        world.act(world.crm.register_customer, customer, kind=CustomerKind.COMPANY, name="A")
    return world


def order(world: World, customer: UUID, at: datetime, mark: str) -> None:
    """Of an amount and a cost that follow from the mark."""
    amount = uuid5(customer, mark).int % 200
    named = {"order_id": mark, "amount": eur(str(amount)), "occurred_at": at}
    cost = eur("100") if amount % 5 == 0 else None
    world.act(world.crm.place_order, customer, cost=cost, **named)


def contract(world: World, customer: UUID, at: datetime, mark: str) -> None:
    crm, deal = world.crm, uuid5(customer, mark)
    opening = {"customer_id": customer, "name": "d", "amount": eur("50"), "occurred_at": at}
    world.act(crm.open_opportunity, deal, **opening)
    signing = {"amount": eur("50"), "signed_on": at.date(), "occurred_at": at}
    world.act(crm.sign_contract, deal, **signing)


def overdue(world: World, customer: UUID, at: datetime, mark: str) -> None:
    named = {"reference": mark[-1], "amount": eur("9"), "occurred_at": at}
    world.act(world.crm.record_payment, customer, kind=PaymentKind.OVERDUE, **named)


def settled(world: World, customer: UUID, at: datetime, mark: str) -> None:
    named = {"reference": mark[-1], "amount": eur("9"), "occurred_at": at}
    world.act(world.crm.record_payment, customer, kind=PaymentKind.SETTLED, **named)


def churn(world: World, customer: UUID, at: datetime, mark: str) -> None:
    world.act(world.crm.churn, customer, cause=ChurnCause.PRICE, occurred_at=at)


def win_back(world: World, customer: UUID, at: datetime, mark: str) -> None:
    world.act(world.crm.win_back, customer, occurred_at=at)


def judge(world: World, customer: UUID, at: datetime, mark: str) -> None:
    level = list(Level)[len(mark) % 6]
    world.act(world.crm.change_level, customer, level=level, occurred_at=at)


def describe(world: World, customer: UUID, at: datetime, mark: str) -> None:
    wanted = {"cycle_days": 5 + len(mark), "stock_alert_below": Decimal(10)}
    world.act(world.crm.describe_demand, customer, occurred_at=at, **wanted)


def report(world: World, customer: UUID, at: datetime, mark: str) -> None:
    level = Decimal(uuid5(customer, mark).int % 20)
    world.act(world.crm.report_stock, customer, level=level, occurred_at=at)


ACTS = [order, order, contract, overdue, settled, churn, win_back, judge, describe, report]
actions = st.tuples(st.sampled_from(ACTS), st.sampled_from(CUSTOMERS), st.integers(0, 12))
rounds = st.lists(st.tuples(st.lists(actions, max_size=5), st.integers(0, 25)), max_size=6)
Rounds = list[tuple[list[tuple[Act, UUID, int]], int]]


def told(policy: Policy, rounds: Rounds, run: Callable[[World], None]) -> World:
    """In each round things happen, some of them in the past; days go by, and the policy runs."""
    world = started(policy)
    world.crm.now += timedelta(days=12)
    count = 0
    for acts, days in rounds:
        for act, customer, back in acts:
            count += 1
            act(world, customer, world.crm.now - timedelta(days=back), str(count))
        world.crm.now += timedelta(days=days)
        run(world)
    return world


def planned(world: World) -> dict[UUID, tuple[datetime, UUID]]:
    """Positions may differ: streams may lie otherwise between each other."""
    return {key: (timer.due_at, timer.cause.event_id) for key, timer in world.timers.items()}


@RUNS
@settings(max_examples=60)
@given(rounds, st.data())
def test_however_it_runs_it_comes_to_the_same(
    policy: Policy, rounds: Rounds, data: st.DataObject
) -> None:
    batch = data.draw(st.integers(1, 7), label="batch")
    deaths = data.draw(st.lists(st.booleans(), max_size=30), label="killed at its points")
    turns = data.draw(st.lists(st.integers(0, 1), max_size=30), label="whose turn it is")
    expected = told(policy, rounds, drained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "BATCH", batch)
        patch.setattr(policies, "LAZY", batch)
        found = told(policy, rounds, lambda world: chaotic(world, deaths, turns))
    assert found.histories() == expected.histories()
    assert planned(found) == planned(expected)


@RUNS
@settings(max_examples=60)
@given(rounds)
def test_run_again_from_the_beginning_it_changes_nothing(policy: Policy, rounds: Rounds) -> None:
    world = told(policy, rounds, drained)
    before = world.histories()
    states, timers = dict(world.states), dict(world.timers)
    world.forget()
    drained(world)
    assert world.histories() == before
    assert (world.states, world.timers) == (states, timers)


LOST_AND_BACK_BEFORE_THE_LAST_LEVEL: Rounds = [
    ([(order, ACME, 0)], 20),
    ([(churn, ACME, 1)], 0),
    ([(churn, ACME, 1), (order, ACME, 1)], 0),
]


@settings(max_examples=60)
@given(rounds)
@example(LOST_AND_BACK_BEFORE_THE_LAST_LEVEL)
def test_each_level_by_rule_is_another_one_and_never_before_the_last(rounds: Rounds) -> None:
    """The last of the same relationship: a loss and a return that are told late begin another."""
    world = told(LEVELS, rounds, drained)
    for customer in CUSTOMERS:
        related: datetime | None = None
        on: datetime | None = None
        for recorded in world.log:
            if recorded.stream_id != customer:
                continue
            event, at = recorded.event, recorded.occurred_at
            match event:
                case Customer.OrderPlaced() | Customer.RelationshipStarted() | Customer.WonBack():
                    related = at if related is None else max(related, at)
                case Customer.Churned() if related is None or at >= related:
                    related, on = at, None
                case Customer.LevelChanged(evidence=evidence):
                    if evidence is not None:
                        assert event.level is not event.previous
                        assert on is None or at >= on
                    on = at if on is None else max(on, at)


def test_every_level_is_reached() -> None:
    """R64: by orders on these days, of these amounts and costs, and a payment that is overdue."""
    world = started(LEVELS)
    crm = world.crm
    for on, amount, cost in (
        (0, "100", "10"),
        (5, "100", "10"),
        (15, "100", "10"),
        (25, "300", "10"),
        (75, "10", "20"),
    ):
        placing = {"order_id": str(on), "amount": eur(amount), "cost": eur(cost)}
        crm.now = BEGIN + timedelta(days=on)
        world.act(crm.place_order, ACME, **placing)
        drained(world)
    world.act(crm.record_payment, ACME, kind=PaymentKind.OVERDUE, reference="r", amount=eur("1"))
    crm.now = BEGIN + timedelta(days=90)
    drained(world)
    moves = [
        (recorded.event.level.value, (recorded.occurred_at - BEGIN).days)
        for recorded in world.log
        if isinstance(recorded.event, Customer.LevelChanged)
    ]
    assert moves == [
        ("stable", 20),
        ("growing", 25),
        ("declining", 35),
        ("no-value", 75),
        ("problem", 78),
    ]
    assert {Level.NEW, *(Level(level) for level, _ in moves)} == set(Level)


def test_switched_on_late_it_walks_through_the_past() -> None:
    live, late = started(LEVELS), started(LEVELS)
    for on in (0, 5, 15, 18, 30, 55):
        for world in (live, late):
            world.crm.now = BEGIN + timedelta(days=on)
            order(world, ACME, world.crm.now, str(on))
        drained(live)
    for world in (live, late):
        world.crm.now = BEGIN + timedelta(days=100)
        drained(world)

    def levels(world: World) -> list[tuple[str, datetime]]:
        return [
            (recorded.event.level, recorded.occurred_at)
            for recorded in world.log
            if isinstance(recorded.event, Customer.LevelChanged)
        ]

    assert levels(live) == levels(late) != []


def test_another_definition_leaves_levels_that_are_as_it_says() -> None:
    world = started(LEVELS)
    for on in (0, 5, 15, 18, 30, 55):
        world.crm.now = BEGIN + timedelta(days=on)
        order(world, ACME, world.crm.now, str(on))
    world.crm.now = BEGIN + timedelta(days=100)
    drained(world)
    before = world.histories()
    for definition in (
        LevelDefinition(2, 10, new_days=20, overdue_days=3, value_days=30),
        LevelDefinition(1, 10, new_days=20, overdue_days=4, value_days=30),
    ):
        world.forget()
        world.policy = Levels(definition)
        drained(world)
        assert world.histories() == before


@RUNS
def test_a_clock_that_is_put_back_only_delays(policy: Policy) -> None:
    world = started(policy)
    describe(world, ACME, BEGIN, "1")
    order(world, ACME, BEGIN, "1")
    drained(world)
    (timer,) = world.timers.values()
    count = len(world.log)
    world.crm.now = timer.due_at
    world.refusal = InTheFuture("not yet")
    worker = world.worker()
    with capture_logs():
        worker.step()
    assert list(world.timers.values()) == [timer]
    world.refusal = None
    world.crm.now -= timedelta(hours=1)
    worker.step()
    assert len(world.log) == count
    world.crm.now += timedelta(hours=1)
    drained(world)
    assert len(world.log) == count + 1


def test_alerts_follow_purchases_and_stock() -> None:
    world = started(DEMAND)
    crm = world.crm
    wanted = {"cycle_days": 30, "stock_alert_below": Decimal(10)}
    world.act(crm.describe_demand, ACME, repeat_type=RepeatType.PERIODIC, **wanted)
    world.act(crm.describe_demand, OTHER, repeat_type=RepeatType.PROJECT)
    for customer in CUSTOMERS:
        order(world, customer, crm.now, "1")

    def alerts() -> list[tuple[str, float]]:
        return [
            (recorded.event.kind.value, (recorded.occurred_at - BEGIN) / timedelta(days=1))
            for recorded in world.log
            if isinstance(recorded.event, Customer.DemandAlerted)
        ]

    crm.now = BEGIN + timedelta(days=29, hours=23)
    drained(world)
    assert alerts() == []
    contract(world, ACME, BEGIN + timedelta(days=20), "2")
    crm.now = BEGIN + timedelta(days=49, hours=23)
    drained(world)
    assert alerts() == []
    for days in (50, 55, 400):
        crm.now = BEGIN + timedelta(days=days, hours=7)
        drained(world)
        assert alerts() == [("cycle", 50)]
    for level in (20, 9, 5, 10, 9):
        crm.now += timedelta(days=1)
        world.act(crm.report_stock, ACME, level=Decimal(level))
        drained(world)
        world.act(crm.report_stock, OTHER, level=Decimal(level))
    assert [kind for kind, _ in alerts()] == ["cycle", "stock", "stock"]
    assert [int(on) for _, on in alerts()] == [50, 402, 405]
    assert all(
        recorded.stream_id == ACME
        for recorded in world.log
        if isinstance(recorded.event, Customer.DemandAlerted)
    )
