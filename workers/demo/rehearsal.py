"""The script played once in memory, with the policies acting on it as they would have.

What they decide depends on what has happened, and when: so the policies themselves are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from heapq import heappop, heappush
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from eventsourcing.application import AggregateNotFoundError, Repository

from domain.aggregate import LedgerAggregate
from domain.application import CRM
from domain.definitions import BUILT_IN
from domain.pipeline import DEFAULT_PIPELINE_ID
from domain.policies.demand import Demand
from domain.policies.levels import Levels
from domain.policies.policy import Cause, Command, Happened, Judgement, Timer
from infra.ids import event_id
from workers.demo.script import Line

_MEMORY: Final = {"PERSISTENCE_MODULE": "eventsourcing.popo"}


def rehearsed(lines: Sequence[Line], end: datetime, zone: ZoneInfo) -> list[Line]:
    """`lines`, which are in order of time, and among them what the policies do before `end`.

    They go by the built-in definitions. Raises `DomainError` for a line that would be refused.
    """
    return _Rehearsal(end, zone).play(lines)


class _Stage(Repository[UUID]):
    """The aggregates themselves: nothing is stored, nothing copied."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.held: dict[UUID, Any] = {}

    def get(self, aggregate_id: UUID, **_: Any) -> Any:
        try:
            return self.held[aggregate_id]
        except KeyError:
            raise AggregateNotFoundError(str(aggregate_id)) from None


class _StageCRM(CRM):
    def construct_repository(self) -> _Stage:
        self.stage = _Stage(self.events)
        return self.stage


class _Acting:
    """A policy with what it remembers."""

    def __init__(self, policy: Judgement[Any]) -> None:
        self._policy = policy
        self._topics = frozenset(policy.topics)
        self._states: dict[UUID, Any] = {}
        self._timers: dict[UUID, Timer] = {}
        self._due: list[tuple[datetime, int, Timer]] = []
        """A heap, with those in it that have been moved or cancelled since."""
        self.actor = f"policy:{policy.id}"

    def take_in(self, happened: Happened) -> None:
        if getattr(happened.event, "TOPIC", None) not in self._topics:
            return
        key = happened.key
        if key not in self._states:
            self._states[key] = self._policy.load(None)
        self._policy.fold(self._states[key], happened)
        timer = self._policy.plan(key, self._states[key])
        if timer is None:
            self._timers.pop(key, None)
        else:
            self._timers[key] = timer
            heappush(self._due, (timer.due_at, happened.cause.position, timer))

    def next(self) -> Timer | None:
        """The one that is due first."""
        while self._due:
            timer = self._due[0][2]
            if self._timers.get(timer.key) is timer:
                return timer
            heappop(self._due)
        return None

    def fire(self, timer: Timer) -> Command:
        del self._timers[timer.key]
        return self._policy.due(timer, self._states[timer.key])


class _Rehearsal:
    def __init__(self, end: datetime, zone: ZoneInfo) -> None:
        self._end = end
        self._crm = _StageCRM(_MEMORY, clock=lambda: end, timezone=zone)
        self._crm.stage.held[DEFAULT_PIPELINE_ID] = self._crm.define_default_pipeline()
        self._policies = [_Acting(Levels(BUILT_IN.levels)), _Acting(Demand())]
        self._played: list[Line] = []
        self._position = 0

    def play(self, lines: Sequence[Line]) -> list[Line]:
        for line in lines:
            self._act_until(line.at)
            self._give(line)
        self._act_until(self._end)
        return self._played

    def _act_until(self, end: datetime) -> None:
        """What is due before that, one after the other."""
        while True:
            waiting = [(policy.next(), policy) for policy in self._policies]
            due = [(timer, policy) for timer, policy in waiting if timer and timer.due_at < end]
            if not due:
                return
            timer, policy = min(due, key=lambda one: one[0].due_at)
            self._give(self._line_of(policy, timer))

    def _line_of(self, policy: _Acting, timer: Timer) -> Line:
        command = policy.fire(timer)
        arguments = dict(command.arguments)
        # Nothing is dated back: two purchases of one day count as one, at the time of the later.
        at = max(arguments.pop("occurred_at"), self._played[-1].at)
        return Line(
            at.astimezone(self._crm.timezone),
            policy.actor,
            command.method.__name__,
            command.target,
            arguments,
            causation_id=timer.cause.event_id,
        )

    def _give(self, line: Line) -> None:
        """Into what is played, unless it changes nothing."""
        method = getattr(self._crm, line.method)
        changed = method(line.target, **line.arguments, occurred_at=line.at)
        happened = [
            self._happened(aggregate, event)
            for aggregate in (changed if isinstance(changed, tuple) else (changed,))
            for event in self._taken(aggregate)
        ]
        if happened:
            self._played.append(line)
        for one in happened:
            for policy in self._policies:
                policy.take_in(one)

    def _taken(self, aggregate: LedgerAggregate) -> list[Any]:
        self._crm.stage.held[aggregate.id] = aggregate
        return list(aggregate.collect_events())

    def _happened(self, aggregate: LedgerAggregate, event: LedgerAggregate.Event) -> Happened:
        self._position += 1
        cause = Cause(
            event_id=event_id(event.originator_id, event.originator_version),
            position=self._position,
            stream_id=event.originator_id,
            correlation_id=event.originator_id,
        )
        return Happened(cause, aggregate.partition_key, event.timestamp, event)
