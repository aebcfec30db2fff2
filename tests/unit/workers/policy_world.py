"""The policies worker in memory: a log, what a policy remembers of it, receipts, and a fate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid5

from domain.customer import Customer
from domain.errors import DomainError
from domain.policies.policy import Timer
from infra.eventstore.feed import Batch, Head, Recorded
from infra.eventstore.policy_memory import Overtaken, PolicyMemory
from tests.unit.domain.test_application import TODAY, MemoryCRM
from workers.policies import Policy, PolicyWorker
from workers.steps import Step

BEGIN = TODAY - timedelta(days=400)
HEAD = Head(0, UUID(int=0))


class Killed(BaseException):
    """As by SIGKILL: no handler of the worker sees it."""


class World:
    """A log, what a policy remembers of it, and receipts. `fate` decides where a worker is killed:
    it is asked at each point, and by default spares."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.crm = MemoryCRM()
        self.crm.now = BEGIN
        self.log: list[Recorded] = []
        self.timers: dict[UUID, Timer] = {}
        self.states: dict[UUID, str] = {}
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
                command_id=str(UUID(int=0)),
                correlation_id=str(uuid5(key, str(len(self.log)))),
                causation_id=None,
                reason=None,
                traceparent=None,
                event=event,
            )
        )

    def worker(self) -> PolicyWorker:
        return PolicyWorker(
            self.policy,
            application=self.crm,
            feed=self,
            memory=cast(PolicyMemory, _Memory(self)),
            give=self.give,
            clock=lambda: self.crm.now,
        )

    def read(self, after: int, limit: int) -> Batch:
        wanted = [e for e in self.log[after : after + limit] if e.topic in self.policy.topics]
        return Batch(wanted, min(after + limit, len(self.log)), HEAD)

    def wait(self, after: int, timeout: float) -> bool:
        return len(self.log) > after

    def give(self, steps: Sequence[Step], actor: str) -> list[DomainError | None]:
        assert actor == f"policy:{self.policy.id}"
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
            event = recorded.event
            rests_on = getattr(event, "silence", None) or getattr(event, "evidence", None)
            told = (recorded.topic, recorded.occurred_at, rests_on)
            found.setdefault(recorded.stream_id, []).append(told)
        return found

    def losses(self) -> list[datetime]:
        return [e.occurred_at for e in self.log if e.topic == Customer.Churned.TOPIC]

    def forget(self) -> None:
        """As if the policy had never run, save for what has come of it."""
        self.at = 0
        self.timers.clear()
        self.states.clear()
        self.receipts.clear()


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

    def states(self, keys: set[UUID], at: int) -> dict[UUID, Any]:
        if self._world.at != at:
            raise Overtaken
        known = self._world.states
        return {key: json.loads(known[key]) for key in keys if key in known}

    def save(
        self,
        before: int,
        through: int,
        timers: Mapping[UUID, Timer | None],
        states: Mapping[UUID, Any],
        *,
        left_out: int = 0,
    ) -> None:
        self._world.may_die()
        if self._world.at != before:
            raise Overtaken
        self._world.at = through
        self._world.left_out += left_out
        self._world.states.update({key: json.dumps(state) for key, state in states.items()})
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


def chaotic(world: World, deaths: list[bool], turns: list[int]) -> None:
    """Two workers, one step of either after the other, killed where `deaths` says."""
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
