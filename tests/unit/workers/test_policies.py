"""The policies worker in memory: however it is batched, repeated, doubled and killed, it comes to
the same timers and the same events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from domain.customer import Customer
from domain.errors import CustomerNotFound, DomainError, InTheFuture
from domain.opportunity import Opportunity
from domain.policies import PassiveLoss, Timer
from domain.values import ChurnCause, CustomerKind
from infra.eventstore.feed import Batch, Head, Recorded, Undecodable
from infra.eventstore.policy_memory import Overtaken, PolicyMemory
from projections.origin import NewerProgram
from tests.unit.domain.streams import eur
from tests.unit.domain.test_application import TODAY, MemoryCRM
from workers import policies
from workers.policies import PolicyWorker
from workers.steps import Step

DAYS = 10
CUSTOMERS = [UUID(int=n) for n in (1, 2)]
BEGIN = TODAY - timedelta(days=400)
HEAD = Head(0, UUID(int=0))


class Killed(BaseException):
    """As by SIGKILL: no handler of the worker sees it."""


class World:
    """A log, what a policy remembers of it, and receipts. `fate` decides where a worker is killed:
    it is asked at each point, and by default spares."""

    def __init__(self) -> None:
        self.crm = MemoryCRM()
        self.crm.now = BEGIN
        self.log: list[Recorded] = []
        self.timers: dict[UUID, Timer] = {}
        self.at = 0
        self.left_out = 0
        self.receipts: set[str] = set()
        self.given: list[Step] = []
        self.fate: Callable[[], bool] = lambda: False
        self.refusal: DomainError | None = None

    def act(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """A command; what the domain refuses has not happened."""
        try:
            changed = method(*arguments, **named)
        except DomainError:
            return
        aggregates = changed if isinstance(changed, tuple) else (changed,)
        for aggregate in aggregates:
            for event in aggregate.pending_events:
                self.tell(event, aggregate.partition_key)
        self.crm.save(*aggregates)

    def tell(self, event: Any, key: UUID, topic: str | None = None) -> None:
        self.log.append(
            Recorded(
                position=len(self.log) + 1,
                stream_id=getattr(event, "originator_id", key),
                version=getattr(event, "originator_version", 1),
                topic=topic or event.TOPIC,
                partition_key=key,
                occurred_at=getattr(event, "timestamp", self.crm.now),
                recorded_at=self.crm.now,
                actor="tester",
                command_id=UUID(int=0),
                correlation_id=uuid5(key, str(len(self.log))),
                causation_id=None,
                reason=None,
                traceparent=None,
                event=event,
            )
        )

    def worker(self) -> PolicyWorker:
        return PolicyWorker(
            PassiveLoss(DAYS),
            application=self.crm,
            feed=self,
            memory=cast(PolicyMemory, _Memory(self)),
            give=self.give,
            clock=lambda: self.crm.now,
        )

    def read(self, after: int, limit: int) -> Batch:
        wanted = [e for e in self.log[after : after + limit] if e.topic in PassiveLoss.topics]
        return Batch(wanted, min(after + limit, len(self.log)), HEAD)

    def wait(self, after: int, timeout: float) -> bool:
        return len(self.log) > after

    def give(self, steps: Sequence[Step], actor: str) -> list[DomainError | None]:
        assert actor == "policy:silence/1:10"
        for step in steps:
            self.may_die()
            self.given.append(step)
            if self.refusal is not None:
                return [self.refusal] * len(steps)
            if step.key not in self.receipts:
                self.act(step.method, step.target, **step.arguments)
                self.receipts.add(step.key)
        self.may_die()
        return [None] * len(steps)

    def may_die(self) -> None:
        if self.fate():
            raise Killed

    def histories(self) -> dict[UUID, list[Any]]:
        """Of each stream what happened to it."""
        found: dict[UUID, list[Any]] = {}
        for recorded in self.log:
            silence = getattr(recorded.event, "silence", None)
            told = (recorded.topic, recorded.occurred_at, silence)
            found.setdefault(recorded.stream_id, []).append(told)
        return found

    def losses(self) -> list[datetime]:
        return [e.occurred_at for e in self.log if e.topic == Customer.Churned.TOPIC]


class _Memory:
    """As `PolicyMemory`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def forget_others(self) -> None:
        pass

    def position(self) -> int:
        return self._world.at

    def timers(self, keys: set[UUID], at: int) -> dict[UUID, Timer]:
        if self._world.at != at:
            raise Overtaken
        return {key: self._world.timers[key] for key in keys if key in self._world.timers}

    def save(
        self, before: int, through: int, timers: Mapping[UUID, Timer | None], *, left_out: int = 0
    ) -> None:
        self._world.may_die()
        if self._world.at != before:
            raise Overtaken
        self._world.at = through
        self._world.left_out += left_out
        for key, timer in timers.items():
            self._world.timers.pop(key, None)
            if timer is not None:
                self._world.timers[key] = timer
        self._world.may_die()

    def due(self, now: datetime, limit: int) -> list[Timer]:
        due = [timer for timer in self._world.timers.values() if timer.due_at <= now]
        return sorted(due, key=lambda timer: (timer.due_at, timer.key))[:limit]

    def discard(self, timers: list[Timer]) -> None:
        self._world.may_die()
        for timer in timers:
            if self._world.timers.get(timer.key) == timer:
                del self._world.timers[timer.key]
        self._world.may_die()


def drained(world: World) -> None:
    """What one worker that nothing happens to comes to."""
    worker = world.worker()
    while worker.step():
        pass


@pytest.fixture
def world() -> World:
    world = World()
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
    world = World()
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


@settings(max_examples=150, deadline=None)
@given(rounds, st.data())
def test_however_it_runs_it_comes_to_the_same(rounds: list[Round], data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 7), label="batch")
    deaths = data.draw(st.lists(st.booleans(), max_size=30), label="killed at its points")
    turns = data.draw(st.lists(st.integers(0, 1), max_size=30), label="whose turn it is")

    def chaos(world: World) -> None:
        world.fate = lambda: bool(deaths) and deaths.pop()
        workers = [world.worker(), world.worker()]
        idle = 0
        while idle < 4:  # each of the two found nothing to do, twice over
            turn = turns.pop() if turns else idle % 2
            try:
                idle = 0 if workers[turn].step() else idle + 1
            except Killed:
                workers[turn] = world.worker()
                idle = 0

    expected = told(rounds, drained)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "BATCH", batch)
        patch.setattr(policies, "LAZY", batch)
        found = told(rounds, chaos)
    assert found.histories() == expected.histories()
    assert found.timers.keys() == expected.timers.keys()
    assert {k: t.due_at for k, t in found.timers.items()} == {
        k: t.due_at for k, t in expected.timers.items()
    }


@settings(max_examples=100, deadline=None)
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
    assert step.correlation_id == bought.correlation_id
    assert step.causation_id == world.log[-1].event.silence.event_id != bought.correlation_id


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
