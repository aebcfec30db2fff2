"""``crm policies``: reads the log, sets timers, and gives the commands that policies decide on.

What holds however often a process is killed, or runs twice:

- Commands are durable before the position moves or a timer is deleted, and their keys are derived
  from the policy and the causing event: giving one again changes nothing.
- Timers, states and position are written in one transaction, from the position that was read, and
  read only as they are there: of two processes at the same events one writes, the other drops its
  work, and decides nothing from what the first has seen further on.
- Timers fire only when the log has been taken in to its end. What is recorded while one fires is
  seen by the command itself, or by the policy when it comes to it.

An event whose body cannot be read is left out, counted and written to the log of the process: there
is no state of a key that later events would have to wait for. One that a later version of the
program has written ends the worker.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

import structlog
import uvloop
from eventsourcing.utils import resolve_topic

from domain.definitions import Definitions
from domain.errors import DomainError, InTheFuture
from domain.policies.demand import Demand
from domain.policies.levels import Levels
from domain.policies.passive_loss import PassiveLoss
from domain.policies.policy import (
    Cancel,
    Cause,
    Command,
    Happened,
    Judgement,
    Reaction,
    Timer,
)
from infra import tracing
from infra.cluster import make_data_dir
from infra.definitions import load as load_definitions
from infra.eventstore.feed import Batch, Recorded, StoreFeed, Undecodable
from infra.eventstore.policy_memory import Overtaken, PolicyMemory
from infra.eventstore.transcoder import event_codec
from infra.ids import event_id
from infra.metrics import WorkerMetrics
from infra.postgres import Pool
from infra.settings import Settings, SettingsError
from projections.origin import NewerProgram
from workers.exposing import expose
from workers.loop import Signals, Worker
from workers.steps import Step, Steps, computed_id
from workers.wiring import Databases, Ledger, databases, ledger

log = structlog.get_logger(__name__)

BATCH: Final = 1000
"""Positions of the log that are taken in at once."""
AT_ONCE: Final = 100
"""Timers that fire together."""
LAZY: Final = 1000
"""Positions without a wanted event after which the position is written all the same."""
PAUSE: Final = timedelta(seconds=1)
"""Between two looks for what is due, and the longest wait for events."""

Policy: TypeAlias = Reaction | Judgement[Any]


class Feed(Protocol):
    """The log, in order of position."""

    def read(self, after: int, limit: int) -> Batch: ...

    def wait(self, after: int, timeout: float) -> bool: ...


Give = Callable[[Sequence[Step], str], list[DomainError | None]]
"""Gives an actor's commands and waits until they are durable: for each none, or the refusal.

Raises ``LogUnreachable`` if the log cannot take one; the others may have been done.
"""


def configured(settings: Settings, definitions: Definitions) -> list[Policy]:
    """The policies that are switched on."""
    policies: list[Policy] = []
    if settings.silence_days is not None:
        policies.append(PassiveLoss(settings.silence_days))
    if settings.level_policy:
        policies.append(Levels(definitions.levels))
    if settings.demand_policy:
        policies.append(Demand())
    return policies


@dataclass(slots=True)
class _Found:
    """What follows from some events: to be done, and to be remembered."""

    steps: list[Step] = field(default_factory=list)
    timers: dict[UUID, Timer | None] = field(default_factory=dict)
    states: dict[UUID, dict[str, Any]] = field(default_factory=dict)


class PolicyWorker:
    """Runs one policy: ``step`` does what there is to do, ``idle`` waits for more."""

    def __init__(
        self,
        policy: Policy,
        *,
        application: object,
        feed: Feed,
        memory: PolicyMemory,
        give: Give,
        clock: Callable[[], datetime],
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        """``application`` is what the commands' methods are called on."""
        self._policy = policy
        self._application = application
        self._feed = feed
        self._memory = memory
        self._give = give
        self._clock = clock
        self._beat = beat
        self._actor = f"policy:{policy.id}"
        self._begun = False
        self._written: int | None = None  # None: to be read back
        self._through = 0
        self._looked: datetime | None = None

    def step(self) -> int:
        """Takes in the next events and, when there are no more, fires what is due.

        Returns how many of both. Raises ``NewerProgram`` before an event of a later version, and
        what the log and the database raise.
        """
        self._beat()
        try:
            return self._step()
        except Overtaken:
            log.debug("another process runs this policy", policy=self._policy.id)
            self._written = None
            return 0

    def idle(self) -> None:
        """Waits for events, for a second at most."""
        self._feed.wait(self._through, PAUSE.total_seconds())

    def _step(self) -> int:
        if not self._begun:
            self._memory.forget_others()
            self._begun = True
        if self._written is None:
            self._written = self._through = self._memory.position()
        after = self._through
        batch = self._feed.read(after, BATCH)
        given = self._take_in(batch, self._written)
        if given or batch.through == after + BATCH:
            return len(batch.events) or 1  # there may be more, of our own making too
        return len(batch.events) + self._fire(self._written)

    def _take_in(self, batch: Batch, written: int) -> int:
        """Returns how many commands were given."""
        events, through = _known(batch)
        happened: list[Happened] = []
        for event in events:
            if isinstance(event.event, Undecodable):
                self._leave_out(event, event.event)
            else:
                happened.append(_happened(event))
        if isinstance(self._policy, Judgement):
            found = self._judge(self._policy, happened, written)
        else:
            found = self._react(self._policy, happened, written)
        self._do(found.steps)
        if events or through - written >= LAZY:
            left_out = len(events) - len(happened)
            self._memory.save(written, through, found.timers, found.states, left_out=left_out)
            self._written = through
        self._through = through
        return len(found.steps)

    def _react(self, policy: Reaction, happened: Sequence[Happened], written: int) -> _Found:
        found = _Found()
        if not happened:
            return found
        timers = self._memory.timers({one.key for one in happened}, written)
        for one in happened:
            for number, decision in enumerate(policy.react(one, timers.get(one.key))):
                match decision:
                    case Timer():
                        timers[decision.key] = found.timers[decision.key] = decision
                    case Cancel():
                        timers.pop(decision.key, None)
                        found.timers[decision.key] = None
                    case Command():
                        found.steps.append(self._step_of(decision, one.cause, number))
        return found

    def _judge(self, policy: Judgement[Any], happened: Sequence[Happened], written: int) -> _Found:
        found = _Found()
        if not happened:
            return found
        keys = {one.key for one in happened}
        plain = self._memory.states(keys, written)
        states = {key: policy.load(plain.get(key)) for key in keys}
        for one in happened:
            policy.fold(states[one.key], one)
        for key, state in states.items():
            found.states[key] = policy.dump(state)
            found.timers[key] = policy.plan(key, state)
        return found

    def _fire(self, written: int) -> int:
        now = self._clock()
        if self._looked is not None and timedelta(0) <= now - self._looked < PAUSE:
            return 0
        due = self._memory.due(now, AT_ONCE)
        if due and self._memory.position() != written:
            raise Overtaken  # they may be of further back: another process plans anew
        commands = self._commands(due, written)
        steps = [
            self._step_of(command, timer.cause, f"due {timer.due_at.isoformat()}")
            for timer, command in zip(due, commands, strict=True)
        ]
        refusals = self._do(steps)
        fired = [
            timer
            for timer, refusal in zip(due, refusals, strict=True)
            if not isinstance(refusal, InTheFuture)  # the clock was put back: it is due again
        ]
        if fired:
            self._memory.discard(fired)
        self._looked = None if fired else now  # what comes of them may be due at once
        return len(fired)

    def _commands(self, due: Sequence[Timer], written: int) -> list[Command]:
        policy = self._policy
        if isinstance(policy, Reaction):
            return [policy.due(timer) for timer in due]
        plain = self._memory.states({timer.key for timer in due}, written) if due else {}
        return [policy.due(timer, policy.load(plain.get(timer.key))) for timer in due]

    def _step_of(self, command: Command, cause: Cause, what: str | int) -> Step:
        name = ("policy", self._policy.id, str(cause.event_id), what)
        return Step(
            method=partial(command.method, self._application),
            target=command.target,
            key=str(computed_id(*name)),
            content=name,  # one key, one content: whatever a later program makes of the event
            arguments=command.arguments,
            correlation_id=cause.correlation_id,
            causation_id=cause.event_id,
        )

    def _do(self, steps: Sequence[Step]) -> list[DomainError | None]:
        if not steps:
            return []
        refusals = self._give(steps, self._actor)
        for step, refusal in zip(steps, refusals, strict=True):
            if refusal is not None:
                log.warning(
                    "a policy's command was refused",
                    policy=self._policy.id,
                    target=str(step.target),
                    causation_id=str(step.causation_id),
                    correlation_id=str(step.correlation_id),
                    error=refusal.type,
                )
        return refusals

    def _leave_out(self, event: Recorded, found: Undecodable) -> None:
        log.error(
            "a policy leaves out an event that it cannot read",
            policy=self._policy.id,
            position=event.position,
            topic=event.topic,
            stream_id=str(event.stream_id),
            error=found.error,
        )


def _known(batch: Batch) -> tuple[list[Recorded], int]:
    """The events before the first that a later version of the program has written, and how far
    they reach. Raises ``NewerProgram`` if that is none."""
    for number, event in enumerate(batch.events):
        found = event.event
        if isinstance(found, Undecodable) and found.class_version > _version(event.topic):
            if number:
                return batch.events[:number], event.position - 1
            raise NewerProgram(
                f"{event.topic} at position {event.position:,} is of version"
                f" {found.class_version}: a later version of the program has written it"
            )
    return batch.events, batch.through


def _version(topic: str) -> int:
    return event_codec(resolve_topic(topic)).version


def _happened(event: Recorded) -> Happened:
    cause = Cause(
        event_id=event_id(event.stream_id, event.version),
        position=event.position,
        stream_id=event.stream_id,
        correlation_id=UUID(event.correlation_id),
    )
    return Happened(cause, event.partition_key, event.occurred_at, event.event)


async def give_all(steps: Steps, given: Sequence[Step], actor: str) -> list[DomainError | None]:
    """Gives them side by side, those for one target in order. Raises ``LogUnreachable``."""
    answers = await asyncio.gather(
        *(steps.do(step, actor) for step in given), return_exceptions=True
    )
    refusals: list[DomainError | None] = []
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, DomainError):
            raise answer
        refusals.append(answer if isinstance(answer, DomainError) else None)
    return refusals


class _Ending(Exception):
    """The process ends: nobody waits for commands any more."""


class _Across:
    """Gives commands on an event loop, from other threads."""

    def __init__(self, steps: Steps, loop: asyncio.AbstractEventLoop) -> None:
        self._steps = steps
        self._loop = loop
        self._lock = threading.Lock()
        self._ending = False
        self._waiting: set[Future[list[DomainError | None]]] = set()

    def give(self, given: Sequence[Step], actor: str) -> list[DomainError | None]:
        with self._lock:
            if self._ending:
                raise _Ending
            giving = give_all(self._steps, given, actor)
            future = asyncio.run_coroutine_threadsafe(giving, self._loop)
            self._waiting.add(future)
        try:
            return future.result()
        except CancelledError:
            raise _Ending from None
        finally:
            with self._lock:
                self._waiting.discard(future)

    def end(self) -> None:
        """Raises `_Ending` in those who wait. What has begun is done all the same."""
        with self._lock:
            self._ending = True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()


@asynccontextmanager
async def policing(
    policies: Sequence[Policy],
    addresses: Databases,
    book: Ledger,
    beat: Callable[[], object] = lambda: None,
) -> AsyncIterator[list[Worker]]:
    """The policies run, each in a thread, while this is entered; commands go through ``book``.

    To be entered on the event loop that uses the ``book``'s commands, and left before they are
    closed. A worker ends by itself where a later version of the program has taken over.
    """
    # A key stands for one content, which is no secret: the hash is the same on every machine.
    steps = Steps(book.commands, b"policies")
    across = _Across(steps, asyncio.get_running_loop())
    with ExitStack() as stack:
        reading = stack.enter_context(_pool(addresses, len(policies), autocommit=True))
        writing = stack.enter_context(_pool(addresses, len(policies), autocommit=False))
        running: list[tuple[Worker, threading.Event]] = []
        for policy in policies:
            worker = PolicyWorker(
                policy,
                application=book.crm,
                feed=StoreFeed(reading, book.doorbell, policy.topics),
                memory=PolicyMemory(writing, policy),
                give=across.give,
                clock=book.crm.clock,
                beat=beat,
            )
            stopped = threading.Event()
            step = partial(_step_or_end, worker, policy, stopped)
            name = f"policy-{policy.name}"
            running.append((Worker(name, step, stopped=stopped, idle=worker.idle), stopped))
        for thread, _ in running:
            thread.start()
        try:
            yield [thread for thread, _ in running]
        finally:
            for _, stopped in running:
                stopped.set()
            across.end()
            book.doorbell.ring()
            for thread, _ in running:
                await asyncio.to_thread(thread.join)


def _pool(addresses: Databases, size: int, *, autocommit: bool) -> Pool:
    return Pool(
        addresses.log,
        size=max(1, size),
        role="crm_writer",
        search_path=["log"],
        application_name="crm-policies",
        autocommit=autocommit,
    )


def _step_or_end(worker: PolicyWorker, policy: Policy, stopped: threading.Event) -> int:
    try:
        return worker.step()
    except NewerProgram as reason:
        log.info("policy ends", policy=policy.id, reason=str(reason))
        stopped.set()
    except _Ending:
        stopped.set()
    return 0


def run_policies(settings: Settings, told: Callable[[str], None]) -> None:
    """Runs the policies until SIGINT or SIGTERM. ``told`` hears which.

    Raises ``SettingsError`` if none is switched on or the definitions cannot be used,
    ``CannotListen``, and whatever keeps the log from being used.
    """
    policies = configured(settings, load_definitions(settings.definitions_file))
    if not policies:
        raise SettingsError(
            "no policy is switched on: CRM_SILENCE_DAYS, CRM_LEVEL_POLICY and CRM_DEMAND_POLICY"
            " do that"
        )
    make_data_dir(settings.data_dir)
    with ExitStack() as stack:
        tracing.configure(settings.otlp_endpoint, "crm-policies")
        stack.callback(tracing.close)
        signals = stack.enter_context(Signals())
        try:
            addresses = stack.enter_context(databases(settings, administering=False))
            book = stack.enter_context(ledger(settings, addresses))
            metrics = stack.enter_context(_metrics(settings))
            signals.serving = True
        except KeyboardInterrupt:
            return
        told(f"crm-ledger runs {', '.join(policy.id for policy in policies)}")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(policies, addresses, book, signals, metrics))


@contextmanager
def _metrics(settings: Settings) -> Iterator[WorkerMetrics]:
    """Served while this is entered, where a port is set. Raises ``CannotListen``."""
    metrics = WorkerMetrics()
    expose(settings, metrics)
    try:
        yield metrics
    finally:
        metrics.close()


async def _run(
    policies: Sequence[Policy],
    addresses: Databases,
    book: Ledger,
    signals: Signals,
    metrics: WorkerMetrics,
) -> None:
    beat = partial(metrics.beat, "policies")
    try:
        async with policing(policies, addresses, book, beat) as workers:
            while not signals.stopped.is_set() and any(worker.is_alive() for worker in workers):
                await asyncio.to_thread(signals.stopped.wait, PAUSE.total_seconds())
    finally:
        await book.commands.close()
