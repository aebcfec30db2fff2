"""The write path: a command is done once, however often it is sent.

Decisions are made on the event loop, on aggregates from memory; what is not there is loaded in
a thread, and the decision made again. Recording is the log's group commit. One command at a time
is under way per aggregate and process; between processes the log's versions decide.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast
from uuid import UUID
from weakref import WeakValueDictionary

import psycopg2
import structlog
from eventsourcing.application import AggregateNotFoundError, Repository
from eventsourcing.persistence import DataError, EventStore, IntegrityError, PersistenceError
from msgspec import Struct, field, structs

from domain.aggregate import LedgerAggregate
from domain.application import CRM
from domain.errors import DomainError, Invalid
from infra import tracing
from infra.eventstore.recorders import PostgresApplicationRecorder
from infra.eventstore.records import (
    AlreadyDone,
    Append,
    Appended,
    Envelope,
    LogUnavailable,
    OutcomeUnknown,
    Receipt,
)
from infra.ids import new_id
from infra.vault import KeyNotCached, Vault, WrongMasterKey

log = structlog.get_logger(__name__)
_level = logging.getLogger(__name__)
"""Asked before a line is put together that most will never see."""

T = TypeVar("T")
Decision = Callable[[], Any]
"""Loads, decides and returns the changed aggregate, or a tuple of them, the answer's first.

Called again after a conflict: it must do nothing but change the aggregates it loads.
"""

MAX_TRIES = 8
MAX_LOADS = 64
"""Aggregates loaded for one try, at most."""
FRESH = 1.0
"""Seconds after which an aggregate that decisions only read is loaded anew in the background."""
STALE = 3.0
"""Seconds that such an aggregate may be old at most."""
RECENT = 10_000
"""Answers remembered, so that a prompt repetition costs its neighbours in the group nothing."""
SNAPSHOT_EVERY = 200
"""A snapshot is due when an aggregate passes a multiple of this many versions."""


class CommandError(Exception):
    """The command was not done, for a reason that is not the domain's."""


class StaleVersion(CommandError):
    """`If-Match` names another version than the aggregate has."""

    def __init__(self, current: int) -> None:
        super().__init__(f"the version is {current}")
        self.current = current


class KeyReused(CommandError):
    """The idempotency key belongs to another request."""


class KeyInFlight(CommandError):
    """The first request with this idempotency key is still running."""


class StillConflicting(CommandError):
    """Others kept changing the aggregate: nothing was recorded."""


class StoreUnavailable(CommandError):
    """The database cannot be reached, or the vault not be opened: nothing was recorded."""


class Request(Struct, frozen=True):
    """Who asks, and what makes a repetition recognisable.

    `hash` is a keyed hash of method, path, body and `If-Match`. Without `key` the command has no
    receipt: only for callers that can tell by themselves whether it was done. Without
    `correlation_id` the command is a conversation of its own. `traceparent`: the trace context that
    its events get; without it that of a span of their own, where traces are on.
    """

    actor: str
    key: str | None
    hash: bytes = b""
    if_match: int | None = None
    reason: str | None = None
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    traceparent: str | None = None
    command_id: UUID = field(default_factory=new_id)

    @property
    def conversation(self) -> UUID:
        """The correlation id of what is recorded."""
        return self.correlation_id or self.command_id


class Answer(Struct, frozen=True):
    """What the command came to; `repeated` if it had been done before."""

    status: int
    id: UUID
    version: int
    position: int
    extra: Mapping[str, Any]
    repeated: bool = False


class _NotLoaded(LookupError):
    """The aggregate has to be loaded in a thread before the decision can be made."""

    def __init__(self, id_: UUID) -> None:
        super().__init__(str(id_))
        self.id = id_


class Look:
    """How old what a decision sees may be.

    The target may be of any age, since its version is checked when it is recorded; what is only
    read must have been loaded in the last `STALE` seconds before the look began, and is loaded
    anew in the background when it is older than `FRESH`. After a first refusal all of it is loaded
    anew: a refusal, or that there is nothing to do, is only said of the present state.
    """

    __slots__ = ("absent", "aging", "began", "given", "since", "target")

    def __init__(self, target: UUID | None) -> None:
        self.target = target
        self.absent: set[UUID] = set()
        self.given: dict[UUID, Any] = {}
        """What the present try has seen, and may have changed."""
        self.aging: set[UUID] = set()
        """What was seen, only to be read, that is to be loaded anew for those who come later."""
        self.began = time.monotonic()
        self.since: float | None = None

    def demand_present(self) -> None:
        """Accept nothing that was loaded before now."""
        self.since = time.monotonic()
        self.absent.clear()

    @property
    def present(self) -> bool:
        """Whether only the present state is accepted."""
        return self.since is not None

    def oldest(self, id_: UUID) -> float:
        """The time before which the aggregate must not have been loaded."""
        if self.since is not None:
            return self.since
        return 0.0 if id_ == self.target else self.began - STALE


class LoopRepository(Repository[UUID]):
    """Aggregates in memory, as they are in the log. Only `load` asks the database.

    An aggregate is taken out of memory before it may change and comes back when the change is
    committed, so what is remembered is always a committed state.
    """

    def __init__(self, *args: Any, capacity: int = 20_000, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._capacity = capacity
        self._held: OrderedDict[UUID, tuple[Any, float]] = OrderedDict()
        self.look = Look(target=None)

    def get(self, aggregate_id: UUID, **kwargs: Any) -> Any:
        """The aggregate in memory, if it is as fresh as the present look at it demands.

        Errors: `_NotLoaded`, and `AggregateNotFoundError` where the log has no such stream.
        """
        if aggregate_id in self.look.absent:
            raise AggregateNotFoundError(str(aggregate_id))
        held = self._held.get(aggregate_id)
        if held is None or held[1] < self.look.oldest(aggregate_id):
            raise _NotLoaded(aggregate_id)
        self._held.move_to_end(aggregate_id)
        self.look.given[aggregate_id] = held[0]
        if held[1] < self.look.began - FRESH and aggregate_id != self.look.target:
            self.look.aging.add(aggregate_id)
        return held[0]

    def load(self, aggregate_id: UUID) -> Any | None:
        """The aggregate from the log; none if there is no such stream. Blocks."""
        try:
            return super().get(aggregate_id)
        except AggregateNotFoundError:
            return None

    def hold(self, aggregate: Any, since: float) -> None:
        """Remember a committed state, unless a later one is remembered.

        `since` is a time at which it is known to have been the present one, or later.
        """
        held = self._held.get(aggregate.id)
        if held is not None and held[0].version > aggregate.version:
            return
        self._held[aggregate.id] = (aggregate, since)
        self._held.move_to_end(aggregate.id)
        if len(self._held) > self._capacity:
            self._held.popitem(last=False)

    def release(self, aggregate_id: UUID) -> None:
        """Forget what is remembered of the aggregate."""
        self._held.pop(aggregate_id, None)


class LoopCRM(CRM):
    """The application with its aggregates in the memory of an event loop."""

    def construct_repository(self) -> LoopRepository:
        """Instead of the library's cache, which copies each aggregate and reads on each get."""
        return LoopRepository(self.events, snapshot_store=self.snapshots)


class Commands:
    """Carries out commands for one event loop. `crm` must use our recorder.

    `wait_for_key` (seconds) bounds how long a repetition waits for its first.
    """

    def __init__(self, crm: LoopCRM, vault: Vault, *, wait_for_key: float = 10.0) -> None:
        if not isinstance(crm.recorder, PostgresApplicationRecorder):
            raise TypeError("the application must record in our log")
        if not isinstance(crm.repository, LoopRepository):
            raise TypeError("the application must be a LoopCRM")
        self.crm = crm
        self._recorder = crm.recorder
        self._repository = crm.repository
        self._vault = vault
        self._wait_for_key = wait_for_key
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="load")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._in_flight: dict[tuple[str, str], asyncio.Task[Answer]] = {}
        self._recent: OrderedDict[tuple[str, str], Receipt] = OrderedDict()
        self._tasks: set[asyncio.Task[Answer]] = set()
        self._loading: dict[UUID, asyncio.Task[tuple[float, bool]]] = {}

    @property
    def ready(self) -> bool:
        """Whether commands can be taken."""
        return self._recorder.committer.alive

    async def close(self) -> None:
        """Wait for the commands under way, then stop."""
        while self._tasks or self._loading:
            await asyncio.wait([*self._tasks, *self._loading.values()])
        self._threads.shutdown()

    async def aggregate(self, id_: UUID) -> LedgerAggregate | None:
        """The aggregate as it is in the log now; none if there is no such stream."""
        return await self.blocking(self._repository.load, id_)

    async def blocking(self, function: Callable[..., T], *args: Any) -> T:
        """What the function gives, called in a thread. Errors of the store as of `execute`."""
        return await self._in_thread(function, *args)

    def forget(self, id_: UUID) -> None:
        """Read the aggregate from the log when it is needed next; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._repository.release, id_)

    async def receipts(self, actor: str, keys: Iterable[str]) -> dict[str, Receipt]:
        """What is known of the commands that the actor gave under these keys, by key."""
        return await self._in_thread(self._recorder.receipts, actor, list(keys))

    async def stream(self, id_: UUID) -> list[LedgerAggregate.Event]:
        """What was recorded of one aggregate, in order; personal texts may be unopened."""
        return await self._in_thread(lambda: cast(Any, list(self.crm.events.get(id_))))

    async def execute(
        self,
        decide: Decision,
        *,
        target: UUID,
        request: Request,
        status: int = 200,
        extra: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Do the command once and answer; a repetition gets the first answer.

        Checked in this order: receipt, `If-Match`, rule. Errors: `DomainError` and the
        `CommandError`s of this module, with nothing recorded; `OutcomeUnknown`, after which a retry
        with the same key tells. A caller that goes away does not stop a command that has begun.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        slot = None if request.key is None else (request.actor, request.key)
        if slot is not None:
            first = self._in_flight.get(slot)
            if first is not None:
                await asyncio.wait([first], timeout=self._wait_for_key)
                if not first.done():
                    raise KeyInFlight
                return await self.execute(
                    decide, target=target, request=request, status=status, extra=extra
                )
            done = self._recent.get(slot)
            if done is not None:
                return self._repeated(done, request)
        task = asyncio.create_task(self._run(decide, target, request, status, extra or {}))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if slot is not None:
            self._in_flight[slot] = task
            task.add_done_callback(lambda _: self._in_flight.pop(slot, None))
        return await asyncio.shield(task)

    async def _run(
        self,
        decide: Decision,
        target: UUID,
        request: Request,
        status: int,
        extra: Mapping[str, Any],
    ) -> Answer:
        """In a task of its own, so that what is bound here is on this command's log lines only."""
        structlog.contextvars.bind_contextvars(
            command_id=request.command_id, correlation_id=request.conversation
        )
        if not _level.isEnabledFor(logging.DEBUG):
            return await self._carried_out(decide, target, request, status, extra)
        began = time.monotonic()
        told = log.bind(command=_name(decide), actor=request.actor)
        try:
            answer = await self._carried_out(decide, target, request, status, extra)
        except Exception as error:
            told.debug("command not done", error=type(error).__name__, ms=_ms_since(began))
            raise
        told.debug(
            "command done",
            id=answer.id,
            version=answer.version,
            position=answer.position,
            repeated=answer.repeated,
            ms=_ms_since(began),
        )
        return answer

    async def _carried_out(
        self,
        decide: Decision,
        target: UUID,
        request: Request,
        status: int,
        extra: Mapping[str, Any],
    ) -> Answer:
        lock = self._locks.get(target)
        if lock is None:
            lock = self._locks[target] = asyncio.Lock()
        async with lock:
            look = Look(target)
            for _ in range(MAX_TRIES):
                try:
                    changed = await self._decided(decide, look, request)
                    if look.present or any(aggregate.pending_events for aggregate in changed):
                        return await self._recorded(changed, request, status, extra)
                    look.demand_present()
                except AlreadyDone as before:
                    return self._repeated(before.receipt, request)
                except IntegrityError:
                    look.demand_present()
                except (DomainError, StaleVersion):
                    done = await self._done_before(request)
                    if done is not None:
                        return done
                    if look.present:
                        raise
                    look.demand_present()
        raise StillConflicting

    async def _recorded(
        self,
        changed: tuple[LedgerAggregate, ...],
        request: Request,
        status: int,
        extra: Mapping[str, Any],
    ) -> Answer:
        """The answer, when what the decision came to has been committed."""
        first = changed[0]
        pending = [aggregate for aggregate in changed if aggregate.pending_events]
        if not pending and request.key is None:
            end = await self._in_thread(self._recorder.max_notification_id)
            return Answer(status, first.id, first.version, end or 0, extra)
        added = [len(aggregate.pending_events) for aggregate in pending]
        began = time.monotonic()
        appended = await self._record(pending, first, request, status, extra)
        for aggregate, count in zip(pending, added, strict=True):
            self._repository.hold(aggregate, began)
            self._snapshot_if_due(aggregate, count)
        return Answer(status, first.id, first.version, appended.last, extra)

    async def _decided(
        self, decide: Decision, look: Look, request: Request
    ) -> tuple[LedgerAggregate, ...]:
        """The decision's aggregates, taken out of memory where they have changed."""
        for _ in range(MAX_LOADS):
            self._repository.look = look
            look.given.clear()
            try:
                self._check_version(look, request)
                result = decide()
            except _NotLoaded as missing:
                self._release_changed(look)
                id_ = missing.id
            except BaseException:
                for id_ in look.given:
                    self._repository.release(id_)
                raise
            else:
                self._release_changed(look)
                for id_ in look.aging:
                    self._loading_of(id_)
                return result if isinstance(result, tuple) else (result,)
            began, found = await asyncio.shield(self._loading_of(id_))
            if not found and began >= look.oldest(id_):
                look.absent.add(id_)
        raise StillConflicting

    def _loading_of(self, id_: UUID) -> asyncio.Task[tuple[float, bool]]:
        """The load of this aggregate that is under way: one for all who wait for it.

        Gives when it began and whether there is such a stream.
        """
        loading = self._loading.get(id_)
        if loading is None:
            loading = self._loading[id_] = asyncio.create_task(self._load(id_))
            loading.add_done_callback(lambda done: self._loaded(id_, done))
        return loading

    async def _load(self, id_: UUID) -> tuple[float, bool]:
        began = time.monotonic()
        aggregate = await self._in_thread(self._repository.load, id_)
        if aggregate is not None:
            self._repository.hold(aggregate, began)
        return began, aggregate is not None

    def _loaded(self, id_: UUID, loading: asyncio.Task[tuple[float, bool]]) -> None:
        del self._loading[id_]
        if not loading.cancelled():
            loading.exception()  # whoever waits for it hears of it; nobody may

    def _release_changed(self, look: Look) -> None:
        for id_, aggregate in look.given.items():
            if aggregate.pending_events:
                self._repository.release(id_)

    def _check_version(self, look: Look, request: Request) -> None:
        if request.if_match is None or look.target is None:
            return
        try:
            version = self._repository.get(look.target).version
        except AggregateNotFoundError:
            return  # the decision has its own word for it
        if version != request.if_match:
            raise StaleVersion(version)

    async def _record(
        self,
        pending: list[LedgerAggregate],
        first: LedgerAggregate,
        request: Request,
        status: int,
        extra: Mapping[str, Any],
    ) -> Appended:
        events = [event for aggregate in pending for event in aggregate.collect_events()]
        while True:
            try:
                stored = [self.crm.mapper.to_stored_event(event) for event in events]
                break
            except KeyNotCached as missing:
                await self._in_thread(self._vault.prepare, [missing.subject])
        receipt = None
        if request.key is not None:
            receipt = Receipt(
                scope=request.actor,
                key=request.key,
                request_hash=request.hash,
                status=status,
                id=first.id,
                version=first.version,
                extra=extra or None,
            )
        with tracing.UNTRACED if request.traceparent else tracing.span("record") as span:
            append = Append(
                events=stored,
                envelope=Envelope(
                    actor=request.actor,
                    command_id=request.command_id,
                    correlation_id=request.conversation,
                    causation_id=request.causation_id,
                    reason=request.reason,
                    traceparent=request.traceparent or tracing.current(),
                ),
                partition_keys={aggregate.id: aggregate.partition_key for aggregate in pending},
                receipt=receipt,
            )
            outcome: Appended | Receipt
            try:
                outcome = await self._asking_the_store(
                    self._recorder.committer.submit_from_loop(append)
                )
            except AlreadyDone as before:
                outcome = before.receipt  # which is no failure: it leaves the span as an answer
            if tracing.enabled():
                span.note(_told(append, outcome))
        if isinstance(outcome, Receipt):
            raise AlreadyDone(outcome)
        appended = outcome
        if receipt is not None:
            self._recent[receipt.scope, receipt.key] = structs.replace(
                receipt, position=appended.last
            )
            if len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        return appended

    async def _done_before(self, request: Request) -> Answer | None:
        if request.key is None:
            return None
        receipt = await self._in_thread(self._recorder.receipt, request.actor, request.key)
        return None if receipt is None else self._repeated(receipt, request)

    @staticmethod
    def _repeated(receipt: Receipt, request: Request) -> Answer:
        if receipt.request_hash != request.hash:
            raise KeyReused
        return Answer(
            receipt.status,
            receipt.id,
            receipt.version,
            receipt.position,
            receipt.extra or {},
            repeated=True,
        )

    def _snapshot_if_due(self, aggregate: LedgerAggregate, added: int) -> None:
        passed = aggregate.version % SNAPSHOT_EVERY < added
        if passed and self.crm.snapshots is not None:
            self._threads.submit(self._snapshot, self.crm.snapshots, aggregate.id)

    def _snapshot(self, snapshots: EventStore[UUID], id_: UUID) -> None:
        """Off the command path: one that fails only costs a longer load."""
        try:
            aggregate = self._repository.load(id_)
            if aggregate is not None:
                snapshots.put([type(aggregate).Snapshot.take(aggregate)])
        except Exception:
            log.exception("snapshot failed", stream_id=str(id_))

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        loop = asyncio.get_running_loop()
        return await self._asking_the_store(loop.run_in_executor(self._threads, function, *args))

    @staticmethod
    async def _asking_the_store(answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (AlreadyDone, IntegrityError, OutcomeUnknown):
            raise
        except DataError as error:
            raise Invalid("the store cannot hold one of the values") from error
        except LogUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        except (PersistenceError, psycopg2.Error, WrongMasterKey) as error:
            log.warning("store unavailable", error=type(error).__name__)
            raise StoreUnavailable(type(error).__name__) from error


def _name(decide: Decision) -> str:
    """The command's name: that of the application's method."""
    return getattr(getattr(decide, "func", decide), "__name__", "")


def _ms_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)


def _told(append: Append, outcome: Appended | Receipt) -> tracing.Attributes:
    """What a trace says of a recording, or of a key that had a receipt already."""
    told: dict[str, str | int] = {
        "crm.command_id": str(append.envelope.command_id),
        "crm.correlation_id": str(append.envelope.correlation_id),
    }
    if isinstance(outcome, Appended):
        return {**told, "crm.position": outcome.last, "crm.events": outcome.count}
    return {**told, "crm.position": outcome.position, "crm.events": 0}
