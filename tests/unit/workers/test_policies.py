"""The policies worker in memory: however it is batched, repeated, doubled and killed, it comes to
the same timers and the same events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import cast
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from domain.customer import Customer
from domain.errors import CustomerNotFound, DomainError, InTheFuture
from domain.opportunity import Opportunity
from domain.policies.passive_loss import PassiveLoss
from domain.policies.policy import Timer
from domain.values import ChurnCause, CustomerKind
from infra.eventstore.feed import Undecodable
from projections.origin import NewerProgram
from tests.unit.domain.streams import eur
from tests.unit.workers.policy_world import World, chaotic, drained
from workers import policies
from workers.steps import Step

DAYS = 10
CUSTOMERS = [UUID(int=n) for n in (1, 2)]


@pytest.fixture
def world() -> World:
    world = World(PassiveLoss(DAYS))
    world.act(world.crm.define_default_pipeline)
    for customer in CUSTOMERS:
        world.act(world.crm.register_customer, customer, kind=CustomerKind.COMPANY, name="A")
    return world


def order(world: World, customer: UUID, back: int = 0) -> None:
    crm = world.crm
    order_id = str(len(world.log))
    at = crm.now - timedelta(days=back)
    world.act(crm.place_order, customer, order_id=order_id, amount=eur("1"), occurred_at=at)


def contract(world: World, customer: UUID, back: int = 0) -> None:
    crm = world.crm
    deal = uuid5(customer, str(len(world.log)))
    at = crm.now - timedelta(days=back)
    opening = {"customer_id": customer, "name": "d", "amount": eur("1"), "occurred_at": at}
    world.act(crm.open_opportunity, deal, **opening)
    signing = {"amount": eur("1"), "signed_on": at.date(), "occurred_at": at}
    world.act(crm.sign_contract, deal, **signing)


def churn(world: World, customer: UUID, back: int = 0) -> None:
    at = world.crm.now - timedelta(days=back)
    world.act(world.crm.churn, customer, cause=ChurnCause.PRICE, occurred_at=at)


def win_back(world: World, customer: UUID, back: int = 0) -> None:
    world.act(world.crm.win_back, customer, occurred_at=world.crm.now - timedelta(days=back))


Action = tuple[Callable[..., None], UUID, int]
Round = tuple[list[Action], int]

actions = st.tuples(
    st.sampled_from([order, contract, churn, win_back]),
    st.sampled_from(CUSTOMERS),
    st.integers(0, 6),
)
rounds = st.lists(st.tuples(st.lists(actions, max_size=4), st.integers(0, 12)), max_size=6)


def told(rounds: list[Round], run: Callable[[World], None]) -> World:
    """After each round of actions, and some days, the policy runs."""
    world = World(PassiveLoss(DAYS))
    world.act(world.crm.define_default_pipeline)
    for customer in CUSTOMERS:
        world.act(world.crm.register_customer, customer, kind=CustomerKind.COMPANY, name="A")
    world.crm.now += timedelta(days=6)
    for acts, days in rounds:
        for act, customer, back in acts:
            act(world, customer, back)
        world.crm.now += timedelta(days=days)
        run(world)
    return world


@settings(max_examples=150)
@given(rounds, st.data())
def test_however_it_runs_it_comes_to_the_same(rounds: list[Round], data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 7), label="batch")
    deaths = data.draw(st.lists(st.booleans(), max_size=30), label="killed at its points")
    turns = data.draw(st.lists(st.integers(0, 1), max_size=30), label="whose turn it is")

    expected = told(rounds, drained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "BATCH", batch)
        patch.setattr(policies, "LAZY", batch)
        found = told(rounds, lambda world: chaotic(world, deaths, turns))
    assert found.histories() == expected.histories()
    assert found.timers.keys() == expected.timers.keys()
    assert {k: t.due_at for k, t in found.timers.items()} == {
        k: t.due_at for k, t in expected.timers.items()
    }


@settings(max_examples=100)
@given(rounds)
def test_who_is_lost_passively_had_bought_nothing_for_so_long(rounds: list[Round]) -> None:
    world = told(rounds, drained)
    purchases = (
        Customer.OrderPlaced.TOPIC,
        Customer.WonBack.TOPIC,
        Opportunity.ContractSigned.TOPIC,
    )
    for loss in world.log:
        silence = getattr(loss.event, "silence", None)
        if silence is None:
            continue
        before = [
            one.occurred_at
            for one in world.log[: loss.position]
            if one.partition_key == loss.partition_key and one.topic in purchases
        ]
        assert max(before) == silence.since
        assert silence.since + timedelta(days=DAYS) <= loss.occurred_at <= world.crm.now


def test_history_is_read_to_its_end_before_anything_fires(world: World) -> None:
    acme = CUSTOMERS[0]
    for _ in range(3):  # twice silent for long, in a past that the policy was not there in
        world.crm.now += timedelta(days=100)
        order(world, acme)
    last = world.crm.now
    world.crm.now += timedelta(days=100)
    drained(world)
    assert world.losses() == [last + timedelta(days=DAYS)]
    assert not world.timers


def test_commands_know_what_caused_them(world: World) -> None:
    order(world, CUSTOMERS[0])
    bought = world.log[-1]
    world.crm.now += timedelta(days=DAYS)
    drained(world)
    (step,) = world.given
    assert step.correlation_id == UUID(bought.correlation_id)
    assert step.causation_id == world.log[-1].event.silence.event_id != step.correlation_id


def test_a_command_that_is_given_again_has_its_key(world: World) -> None:
    order(world, CUSTOMERS[0])
    world.crm.now += timedelta(days=DAYS)
    drained(world)
    world.timers.clear()
    world.at = 0  # as if none of it had been written
    del world.log[-1]
    drained(world)
    first, second = world.given
    assert first.key == second.key
    assert first.content == second.content


def test_a_purchase_between_due_and_firing_counts(world: World) -> None:
    acme = CUSTOMERS[0]
    for buy in (order, contract):
        order(world, acme)
        worker = world.worker()
        while worker.step():
            pass
        world.crm.now += timedelta(days=DAYS)
        buy(world, acme)
        while worker.step():
            pass
        assert not world.losses()
        assert world.timers[acme].due_at == world.crm.now + timedelta(days=DAYS)


def test_a_contract_signed_while_the_loss_is_recorded_resumes_the_relationship(
    world: World,
) -> None:
    acme = CUSTOMERS[0]
    order(world, acme)
    world.crm.now += timedelta(days=DAYS + 1)
    hold = world.give

    def give(steps: Sequence[Step], actor: str) -> list[DomainError | None]:
        if not world.losses():
            contract(world, acme)
        return hold(steps, actor)

    world.give = give  # type: ignore[method-assign]
    drained(world)
    topics = [event.topic for event in world.log[-3:]]
    assert topics == [
        Opportunity.ContractSigned.TOPIC,
        Customer.Churned.TOPIC,
        Customer.RelationshipStarted.TOPIC,
    ]
    assert world.timers[acme].due_at == world.crm.now + timedelta(days=DAYS)


def test_a_refusal_ends_the_matter_but_not_the_policy(world: World) -> None:
    order(world, CUSTOMERS[0])
    world.crm.now += timedelta(days=DAYS)
    world.refusal = CustomerNotFound("gone")
    with capture_logs() as logs:
        drained(world)
    assert [line["error"] for line in logs] == ["customer-not-found"]
    assert not world.timers


def test_a_clock_that_was_put_back_only_delays(world: World) -> None:
    order(world, CUSTOMERS[0])
    world.crm.now += timedelta(days=DAYS)
    world.refusal = InTheFuture("not yet")
    worker = world.worker()
    with capture_logs():
        worker.step()
    assert CUSTOMERS[0] in world.timers
    world.refusal = None
    world.crm.now -= timedelta(hours=1)
    worker.step()
    world.crm.now += timedelta(hours=1)
    worker.step()
    assert len(world.losses()) == 1


def test_it_looks_for_timers_once_a_second_at_most(world: World) -> None:
    worker = world.worker()
    worker.step()
    world.timers[CUSTOMERS[0]] = cast(Timer, None)  # to look at it would raise
    world.crm.now += timedelta(milliseconds=999)
    assert worker.step() == 0
    world.crm.now += timedelta(milliseconds=1)
    with pytest.raises(AttributeError):
        worker.step()


def test_an_event_that_cannot_be_read_is_left_out_counted_and_told(world: World) -> None:
    order(world, CUSTOMERS[0])
    broken = Undecodable(1, b"{", "ValueError: broken")
    world.tell(broken, CUSTOMERS[1], topic=Customer.OrderPlaced.TOPIC)
    order(world, CUSTOMERS[1])
    with capture_logs() as logs:
        drained(world)
    (line,) = logs
    assert (line["log_level"], line["position"]) == ("error", world.log[-2].position)
    assert world.left_out == 1
    assert world.timers.keys() == set(CUSTOMERS)


def test_it_ends_before_an_event_of_a_later_program(world: World) -> None:
    order(world, CUSTOMERS[0])
    later = Undecodable(3, b"{}", "ValueError: of a later version")
    world.tell(later, CUSTOMERS[0], topic=Customer.Churned.TOPIC)
    order(world, CUSTOMERS[1])
    worker = world.worker()
    worker.step()
    with pytest.raises(NewerProgram):
        worker.step()
    assert world.at == world.log[-3].position
    assert world.timers.keys() == {CUSTOMERS[0]}
