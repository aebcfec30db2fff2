"""Policies on a real log: killed between command and position, run twice at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

from domain.application import CRM
from domain.customer import Customer
from domain.definitions import BUILT_IN, LevelDefinition
from domain.errors import DomainError
from domain.policies.levels import Levels
from domain.policies.passive_loss import PassiveLoss
from domain.policies.policy import Command, Decision, Happened, Reaction, Timer
from domain.values import Severity
from infra.eventstore.feed import Batch, StoreFeed
from infra.eventstore.policy_memory import Overtaken, PolicyMemory
from infra.ids import event_id
from infra.postgres import Pool
from infra.settings import Settings, SettingsError
from tests.integration.eventstore import fixtures
from tests.integration.eventstore.products import NOON, Product
from tests.integration.eventstore.stepping import Log
from workers import policies
from workers.cli import cli
from workers.policies import Policy, PolicyWorker, configured, give_all, policing, run_policies
from workers.steps import LogUnreachable, Step, Steps
from workers.wiring import Databases, ledger

pytestmark = pytest.mark.database

log_environment, log = fixtures.log_environment, fixtures.log

DAYS = 10
WAITING = timedelta(days=DAYS)


class Killed(BaseException):
    """As by SIGKILL: no handler of the worker sees it."""


class Warning_(Reaction):  # noqa: N801
    """A sign of churn on each order: a command that would be done again if it were given again."""

    name = "warning"
    version = 1
    topics: ClassVar[tuple[str, ...]] = (Customer.OrderPlaced.TOPIC,)

    def react(self, happened: Happened, timer: Timer | None) -> Sequence[Decision]:
        sign = {"kind": "order", "severity": Severity.LOW}
        return (Command(CRM.raise_churn_signal, happened.key, sign),)

    def due(self, timer: Timer) -> Command:
        raise NotImplementedError


class Process:
    """A process that runs a policy, with connections and a view of the log of its own."""

    def __init__(self, product: Product, environment: dict[str, str], policy: Policy) -> None:
        self.product = product
        self._runner = asyncio.Runner()
        self._pools = [
            Pool(
                environment["LOG_DATABASE_URL"],
                size=2,
                role="crm_writer",
                search_path=[environment["LOG_SCHEMA"]],
                autocommit=autocommit,
            )
            for autocommit in (True, False)
        ]
        self.memory = PolicyMemory(self._pools[1], policy)
        self.worker = PolicyWorker(
            policy,
            application=product.crm,
            feed=StoreFeed(self._pools[0], product.factory.doorbell, policy.topics),
            memory=self.memory,
            give=self._give,
            clock=lambda: product.now,
        )
        self._steps = Steps(product.commands, b"secret")
        self.giving: Callable[[], None] = lambda: None
        """Called before commands are given."""
        self.given: Callable[[], None] = lambda: None
        """Called when the commands of a step are durable, before anything else is written."""

    def _give(self, steps: Sequence[Step], actor: str) -> list[DomainError | None]:
        self.giving()
        outcome = self._runner.run(give_all(self._steps, steps, actor))
        self.given()
        return outcome

    def drain(self) -> None:
        while self.worker.step():
            pass

    def dies_before_it_is_written(self) -> None:
        def die() -> None:
            raise Killed

        self.given = die
        with pytest.raises(Killed):
            self.drain()

    def do(self, action: Any) -> Any:
        """A command of somebody else, through this process."""
        return self._runner.run(action)

    def leave(self) -> None:
        self._runner.run(self.product.commands.close())
        self._runner.close()
        for pool in self._pools:
            pool.close()
        self.product.crm.close()


Start = Callable[..., Process]


@pytest.fixture
def start(log_environment: dict[str, str]) -> Iterator[Start]:
    """Starts processes on the same log."""
    with ExitStack() as stack:

        def begin(policy: Policy | None = None) -> Process:
            process = Process(
                Product(log_environment), log_environment, policy or PassiveLoss(DAYS)
            )
            stack.callback(process.leave)
            return process

        yield begin


@pytest.fixture
def buyer(start: Start) -> UUID:
    """A customer who bought at noon."""
    process, id_ = start(), uuid4()
    process.do(process.product.register(id_))
    process.do(process.product.order(id_, "1"))
    return id_


def topics(log: Log) -> list[str]:
    rows = log.rows("SELECT topic FROM events ORDER BY position")
    return [row[0].rpartition(".")[2] for row in rows]


def timers(log: Log) -> list[tuple[UUID, datetime]]:
    return [(row[0], row[1]) for row in log.rows("SELECT key, due_at FROM policy_timer")]


def at(process: Process, moment: datetime) -> Process:
    process.product.now = moment
    return process


def test_a_timer_fires_once_when_its_time_has_come(start: Start, buyer: UUID, log: Log) -> None:
    process = start()
    process.drain()
    assert timers(log) == [(buyer, NOON + WAITING)]
    at(process, NOON + WAITING - timedelta(seconds=1)).drain()
    assert topics(log) == ["registered", "order-placed"]
    at(process, NOON + WAITING + timedelta(hours=3)).drain()
    at(process, NOON + WAITING * 5).drain()
    assert topics(log) == ["registered", "order-placed", "churned"]
    assert timers(log) == []


def test_the_loss_says_who_when_and_why(start: Start, buyer: UUID, log: Log) -> None:
    process = at(start(), NOON + WAITING * 2)
    process.drain()
    bought, lost = log.rows(
        "SELECT stream_id, version, actor, occurred_at, correlation_id, causation_id,"
        " convert_from(state, 'UTF8')::jsonb FROM events WHERE position > 1 ORDER BY position"
    )
    cause = event_id(buyer, 2)
    assert lost[:3] == (buyer, 3, "policy:silence/1:10")
    assert lost[3] == NOON + WAITING
    assert (lost[4], lost[5]) == (bought[4], cause)
    assert lost[6] == {
        "cause": "silence",
        "silence": {
            "rule": "silence/1:10",
            "since": "2024-05-01T12:00:00Z",
            "days": DAYS,
            "event_id": str(cause),
        },
    }


def test_a_purchase_between_due_and_firing_keeps_the_customer(
    start: Start,
    buyer: UUID,
    log: Log,
) -> None:
    process = start()
    process.drain()
    at(process, NOON + WAITING)
    process.do(process.product.order(buyer, "2"))
    process.drain()
    assert "churned" not in topics(log)
    assert timers(log) == [(buyer, NOON + WAITING * 2)]


def test_a_purchase_while_it_fires_keeps_the_customer(start: Start, buyer: UUID, log: Log) -> None:
    process, other = start(), start()
    at(process, NOON + WAITING)
    at(other, NOON + WAITING)
    look = process.memory.due

    def due(now: datetime, limit: int) -> list[Timer]:
        found = look(now, limit)
        if found:
            other.do(other.product.order(buyer, "2"))
        return found

    process.memory.due = due  # type: ignore[method-assign]
    process.drain()
    assert topics(log) == ["registered", "order-placed", "order-placed"]
    assert timers(log) == [(buyer, NOON + WAITING * 2)]


def test_killed_between_command_and_position_it_gives_the_command_once(
    start: Start,
    buyer: UUID,
    log: Log,
) -> None:
    for _ in range(3):
        start(Warning_()).dies_before_it_is_written()
    start(Warning_()).drain()
    assert topics(log) == ["registered", "order-placed", "churn-signal-raised"]


def test_killed_while_a_timer_fires_it_has_fired_once(start: Start, buyer: UUID, log: Log) -> None:
    at(start(), NOON + WAITING).dies_before_it_is_written()
    assert timers(log) == [(buyer, NOON + WAITING)]
    at(start(), NOON + WAITING).drain()
    assert topics(log) == ["registered", "order-placed", "churned"]
    assert timers(log) == []


def test_of_two_at_once_one_writes_and_the_other_drops_its_work(
    start: Start,
    buyer: UUID,
    log: Log,
) -> None:
    one, two = start(Warning_()), start(Warning_())
    one.given = two.drain  # the second overtakes the first before it writes
    assert one.worker.step() == 0
    assert topics(log) == ["registered", "order-placed", "churn-signal-raised"]
    one.given = lambda: None
    one.drain()
    two.drain()
    (position,) = log.rows("SELECT position FROM policy_position WHERE policy = 'warning/1'")
    assert position[0] >= 2
    assert topics(log).count("churn-signal-raised") == 1


def test_two_that_fire_the_same_timer_lose_one_customer(
    start: Start,
    buyer: UUID,
    log: Log,
) -> None:
    one, two = (at(start(), NOON + WAITING) for _ in range(2))
    both = threading.Barrier(2, timeout=30)
    failures: list[BaseException] = []

    def run(process: Process) -> None:
        look = process.memory.due

        def due(now: datetime, limit: int) -> list[Timer]:
            found = look(now, limit)
            both.wait()
            return found

        process.memory.due = due  # type: ignore[method-assign]
        try:
            process.worker.step()
        except BaseException as failure:
            failures.append(failure)
            both.abort()

    one.drain()  # sets the timer; with the clock where it is, fires it
    assert topics(log).count("churned") == 1
    for process in (one, two):  # again, from a customer who is back
        at(process, NOON + WAITING * 2)
    one.do(one.product.order(buyer, "2"))
    one.drain()
    for process in (one, two):
        at(process, NOON + WAITING * 3)
    two.memory.position()
    threads = [threading.Thread(target=run, args=[process]) for process in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert topics(log).count("churned") == 2
    assert timers(log) == []


def test_a_timer_that_was_set_anew_is_not_discarded(start: Start, buyer: UUID, log: Log) -> None:
    process = start()
    process.drain()
    (old,) = process.memory.due(NOON + WAITING, 10)
    at(process, NOON + timedelta(days=1))
    process.do(process.product.order(buyer, "2"))
    process.drain()
    process.memory.discard([old])
    assert timers(log) == [(buyer, NOON + timedelta(days=1) + WAITING)]


class Second(Warning_):
    """A sign of churn on each order after the first: the timer stands for the one before."""

    name = "second"

    def react(self, happened: Happened, timer: Timer | None) -> Sequence[Decision]:
        planned = Timer(happened.key, happened.occurred_at + WAITING, happened.cause)
        return (planned,) if timer is None else (planned, *super().react(happened, timer))


def test_who_is_overtaken_decides_nothing_from_timers_of_what_it_has_not_seen(
    start: Start, buyer: UUID, log: Log
) -> None:
    late, other = start(Second()), start(Second())
    read = late.worker._feed.read

    def overtaken(after: int, limit: int) -> Batch:
        found = read(after, limit)
        other.drain()
        return found

    late.worker._feed.read = overtaken  # type: ignore[method-assign]
    late.drain()
    assert topics(log) == ["registered", "order-placed"]


def test_nothing_is_written_from_a_position_that_was_left(start: Start, log: Log) -> None:
    memory = start().memory
    assert memory.position() == 0
    memory.save(0, 5, {}, left_out=2)
    with pytest.raises(Overtaken):
        memory.save(0, 7, {uuid4(): None}, left_out=1)
    assert memory.position() == 5
    assert log.rows("SELECT left_out FROM policy_position") == [(2,)]


def test_switched_to_other_days_it_plans_anew(start: Start, buyer: UUID, log: Log) -> None:
    start().drain()
    start(Warning_()).memory.position()
    start(PassiveLoss(20)).drain()
    assert timers(log) == [(buyer, NOON + timedelta(days=20))]
    found = log.rows("SELECT policy FROM policy_position ORDER BY policy")
    assert found == [("silence/1:20",), ("warning/1",)]


def test_timers_that_another_process_plans_anew_do_not_fire_half_way(
    start: Start, buyer: UUID, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = at(start(), NOON + timedelta(days=5))
    idle.do(idle.product.order(buyer, "2"))
    idle.drain()
    start(PassiveLoss(20)).memory.forget_others()
    monkeypatch.setattr(policies, "BATCH", 2)
    start().worker.step()  # as far as the first order
    monkeypatch.undo()
    assert timers(log) == [(buyer, NOON + WAITING)]
    given: list[None] = []
    idle.giving = lambda: given.append(None)
    at(idle, NOON + WAITING).drain()
    assert given == []
    idle.drain()
    assert timers(log) == [(buyer, NOON + timedelta(days=5) + WAITING)]


def test_a_log_that_is_away_only_delays(start: Start, buyer: UUID, log: Log) -> None:
    process = at(start(), NOON + WAITING)
    away = [LogUnreachable("away")] * 2

    def giving() -> None:
        if away:
            raise away.pop()

    process.giving = giving
    for _ in range(2):
        with pytest.raises(LogUnreachable):
            process.drain()
        assert timers(log) == [(buyer, NOON + WAITING)]
    process.drain()
    assert topics(log) == ["registered", "order-placed", "churned"]


LEVELS = Levels(LevelDefinition(window_days=10, new_days=20, overdue_days=3, value_days=30))


def levels(log: Log) -> list[tuple[str, datetime]]:
    rows = log.rows(
        "SELECT convert_from(state, 'UTF8')::jsonb ->> 'level', occurred_at FROM events"
        " WHERE topic = 'crm.customer.level-changed' ORDER BY position"
    )
    return [(row[0], row[1]) for row in rows]


def test_between_two_batches_it_remembers_what_was_bought(
    start: Start, buyer: UUID, log: Log
) -> None:
    start(LEVELS).drain()
    late = at(start(LEVELS), NOON + timedelta(days=25))
    late.do(late.product.order(buyer, "2", amount=5))
    start(LEVELS).drain()  # a third process, which has seen nothing of it
    later = at(start(LEVELS), NOON + timedelta(days=100))
    later.drain()
    days = [(level, (on - NOON).days) for level, on in levels(log)]
    assert days == [("declining", 20), ("growing", 25), ("declining", 35)]
    assert timers(log) == []
    (row,) = log.rows("SELECT key, state #>> '{level}' FROM policy_state")
    assert row == (buyer, "declining")


def test_killed_while_it_moves_a_customer_it_has_moved_it_once(
    start: Start, buyer: UUID, log: Log
) -> None:
    at(start(LEVELS), NOON + timedelta(days=25)).dies_before_it_is_written()
    assert len(levels(log)) == 1
    for _ in range(2):
        at(start(LEVELS), NOON + timedelta(days=25)).drain()
    assert levels(log) == [("declining", NOON + timedelta(days=20))]


def test_of_two_that_judge_the_same_one_drops_its_work(start: Start, buyer: UUID, log: Log) -> None:
    one, two = (at(start(LEVELS), NOON + timedelta(days=25)) for _ in range(2))
    one.given = two.drain  # the second overtakes the first before it writes
    one.drain()
    two.drain()
    assert levels(log) == [("declining", NOON + timedelta(days=20))]
    assert log.rows("SELECT key FROM policy_state") == [(buyer,)]


def test_states_are_not_read_nor_written_at_a_position_that_was_left(
    start: Start, log: Log
) -> None:
    memory, key = start(LEVELS).memory, uuid4()
    memory.position()
    memory.save(0, 5, {}, {key: {"known": 2**53 + 1, "name": "ü"}})
    assert memory.states([key, uuid4()], 5) == {key: {"known": 2**53 + 1, "name": "ü"}}
    with pytest.raises(Overtaken):
        memory.states([key], 4)
    with pytest.raises(Overtaken):
        memory.save(4, 6, {}, {key: {}})
    memory.save(5, 6, {}, {key: {"known": 1}})
    assert memory.states([key], 6) == {key: {"known": 1}}


def test_another_definition_reads_the_log_again(start: Start, buyer: UUID, log: Log) -> None:
    at(start(LEVELS), NOON + timedelta(days=25)).drain()
    other = Levels(LevelDefinition(window_days=8, new_days=20, overdue_days=3, value_days=30))
    at(start(other), NOON + timedelta(days=25)).drain()
    assert levels(log) == [("declining", NOON + timedelta(days=20))]
    assert log.rows("SELECT policy FROM policy_position") == [(other.id,)]
    assert log.rows("SELECT policy FROM policy_state") == [(other.id,)]


def test_a_level_says_who_when_and_why(start: Start, buyer: UUID, log: Log) -> None:
    at(start(LEVELS), NOON + timedelta(days=25)).drain()
    ((actor, causation, state),) = log.rows(
        "SELECT actor, causation_id, convert_from(state, 'UTF8')::jsonb FROM events"
        " WHERE topic = 'crm.customer.level-changed'"
    )
    cause = event_id(buyer, 2)
    assert (actor, causation) == (f"policy:{LEVELS.id}", cause)
    assert state == {
        "level": "declining",
        "previous": "new",
        "evidence": {
            "rule": LEVELS.id,
            "event_id": str(cause),
            "figures": {
                "window_days": "10",
                "revenue": "0.00",
                "revenue_before": "0.00",
                "growth": "none",
                "threshold": "-0.2",
                "currency": "EUR",
            },
        },
    }


def test_without_a_policy_it_says_what_switches_one_on(installation: Any) -> None:
    with pytest.raises(SettingsError, match="CRM_SILENCE_DAYS"):
        run_policies(installation.settings(), lambda _: None)


def test_the_command_is_there() -> None:
    told = CliRunner().invoke(cli, ["policies", "--help"]).output
    for name in ("CRM_SILENCE_DAYS", "CRM_LEVEL_POLICY", "CRM_DEMAND_POLICY"):
        assert name in told


def test_settings_switch_policies_on() -> None:
    def ids(**settings: object) -> list[str]:
        return [policy.id for policy in configured(Settings(**settings), BUILT_IN)]  # type: ignore[arg-type]

    assert ids() == []
    assert ids(silence_days=365) == ["silence/1:365"]
    assert ids(level_policy=True, demand_policy=True) == ["levels/1:1", "demand/1"]


def test_wired_as_in_the_product_it_runs_beside_the_commands(installation: Any) -> None:
    """Two years of a company, of whom many have bought nothing for a month."""
    installation.demo(until=datetime(2024, 1, 1).date())  # noqa: DTZ001
    settings = installation.settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    addresses = Databases(installation.url, installation.url)

    def lost() -> list[Any]:
        rows: list[Any] = installation.query(
            "SELECT stream_id, actor FROM log.events WHERE topic = 'crm.customer.churned'"
            " AND actor LIKE 'policy:%'"
        )
        return rows

    async def run(book: Any) -> None:
        async with policing([PassiveLoss(30)], addresses, book) as workers:
            heard = book.doorbell.rings
            while not installation.query(
                "SELECT true FROM log.policy_position WHERE position >= (SELECT max(position)"
                " FROM log.events WHERE topic IN ('crm.customer.churned',"
                " 'crm.customer.order-placed', 'crm.opportunity.contract-signed'))"
                " AND NOT EXISTS (SELECT FROM log.policy_timer WHERE due_at <= now())"
            ):
                await asyncio.to_thread(book.doorbell.wait, heard, 1.0)
                heard = book.doorbell.rings
        assert not any(worker.is_alive() for worker in workers)
        await book.commands.close()

    with ledger(settings, addresses) as book:
        asyncio.run(run(book))
    found = lost()
    assert found
    assert {actor for _, actor in found} == {"policy:silence/1:30"}
    assert len(found) == len({stream for stream, _ in found})
