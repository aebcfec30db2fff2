"""Group commit: commands that wait while another commits go together in the next transaction.

One thread owns one connection. It takes all that waits (up to a limit), appends it as one
autocommit statement and answers each command. If the statement is refused, nothing of it is
in the log; then the group is done command by command under the head lock, each behind a
savepoint, so that whatever is wrong with one, its neighbours go in.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from queue import Empty, SimpleQueue
from typing import Any

import orjson
import psycopg2
import structlog
from eventsourcing.persistence import DataError, IntegrityError, InternalError
from psycopg2 import errors as pg

from infra.crashpoints import reach
from infra.eventstore.records import (
    AlreadyDone,
    Append,
    Appended,
    LedgerEvent,
    LogUnavailable,
    OutcomeUnknown,
    Receipt,
)

log = structlog.get_logger(__name__)

MAX_COMMANDS = 512
MAX_BYTES = 4 * 1024 * 1024
MAX_WAITING = 20_000
LINGER = 0.001
"""Seconds that a group waits until it is as large as the last one: under load, fewer and fuller
groups cost less for all; a command that comes alone waits for nobody."""

# Refused before anything was written, and likely to pass when tried again.
_TRY_AGAIN = (pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure, pg.QueryCanceled)
# The session was ended by the server: whether a commit under way went through is not known.
_SESSION_ENDED = (
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.IdleInTransactionSessionTimeout,
    pg.IdleSessionTimeout,
)
# What building the rows of a command raises when a value in it is of no use.
_NOT_A_ROW = (ValueError, TypeError, AttributeError, LookupError)

_EVENT_COLUMNS = """position, stream_id, version, topic, class_version, partition_key, occurred_at,
    recorded_at, actor, command_id, correlation_id, causation_id, reason, traceparent, state"""
_EVENT_RECORD = """(n int, stream_id uuid, version int, topic text, class_version smallint,
    partition_key uuid, occurred_at timestamptz, actor text, command_id uuid,
    correlation_id uuid, causation_id uuid, reason text, traceparent text, state text)"""
_EVENT_VALUES = """{base} + e.n, e.stream_id, e.version, e.topic, e.class_version,
    e.partition_key, coalesce(e.occurred_at, {recorded_at}), {recorded_at}, e.actor,
    e.command_id, e.correlation_id, e.causation_id, e.reason, e.traceparent,
    decode(e.state, 'hex')"""
_RECEIPT_COLUMNS = """scope, key, request_hash, status, id, version, extra, position, recorded_at"""
_RECEIPT_RECORD = """(n int, scope text, key text, request_hash text, status smallint, id uuid,
    version int, extra jsonb)"""
_RECEIPT_VALUES = """r.scope, r.key, decode(r.request_hash, 'hex'), r.status, r.id, r.version,
    r.extra, {base} + r.n, {recorded_at}"""

_PREPARE_GROUP = f"""
PREPARE append_group (int, json, json) AS
WITH head AS (
    UPDATE head SET position = position + $1,
                    recorded_at = greatest(clock_timestamp(), recorded_at)
    RETURNING position - $1 AS base, recorded_at
), events_in AS (
    INSERT INTO events ({_EVENT_COLUMNS})
    SELECT {_EVENT_VALUES.format(base="head.base", recorded_at="head.recorded_at")}
    FROM head, json_to_recordset($2) AS e {_EVENT_RECORD}
), receipts_in AS (
    INSERT INTO receipts ({_RECEIPT_COLUMNS})
    SELECT {_RECEIPT_VALUES.format(base="head.base", recorded_at="head.recorded_at")}
    FROM head, json_to_recordset($3) AS r {_RECEIPT_RECORD}
)
SELECT base, pg_notify('crm_' || current_schema(), '') FROM head
"""
_INSERT_EVENTS = f"""
INSERT INTO events ({_EVENT_COLUMNS})
SELECT {_EVENT_VALUES.format(base="%(base)s", recorded_at="%(recorded_at)s")}
FROM json_to_recordset(%(rows)s::json) AS e {_EVENT_RECORD}
"""
_INSERT_RECEIPT = f"""
INSERT INTO receipts ({_RECEIPT_COLUMNS})
SELECT {_RECEIPT_VALUES.format(base="%(base)s", recorded_at="%(recorded_at)s")}
FROM json_to_recordset(%(rows)s::json) AS r {_RECEIPT_RECORD}
"""
TRACK = """
INSERT INTO tracking (application_name, notification_id) VALUES (%s, %s)
ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id
WHERE tracking.notification_id < excluded.notification_id
"""
SELECT_RECEIPT = """
SELECT scope, key, request_hash, status, id, version, extra, position
FROM receipts WHERE scope = %s AND key = %s
"""
SELECT_RECEIPTS = """
SELECT scope, key, request_hash, status, id, version, extra, position
FROM receipts WHERE scope = %s AND key = ANY(%s)
"""


def receipt_of(row: Sequence[Any]) -> Receipt:
    """The receipt in a row of `SELECT_RECEIPT` or `SELECT_RECEIPTS`."""
    scope, key, request_hash, status, id_, version, extra, position = row
    return Receipt(scope, key, bytes(request_hash), status, id_, version, extra, position)


def _event_rows(append: Append, first: int) -> list[dict[str, Any]]:
    envelope = append.envelope
    rows = []
    for n, event in enumerate(append.events, first):
        stream = event.originator_id
        row: dict[str, Any] = {
            "n": n,
            "stream_id": stream,
            "version": event.originator_version,
            "topic": event.topic,
            "class_version": 1,
            "partition_key": append.partition_keys.get(stream, stream),
            "actor": envelope.actor,
            "command_id": envelope.command_id,
            "correlation_id": envelope.correlation_id,
            "state": event.state.hex(),
        }
        if isinstance(event, LedgerEvent):
            row["class_version"] = event.class_version
            row["occurred_at"] = event.occurred_at
        if envelope.causation_id is not None:
            row["causation_id"] = envelope.causation_id
        if envelope.reason is not None:
            row["reason"] = envelope.reason
        if envelope.traceparent is not None:
            row["traceparent"] = envelope.traceparent
        rows.append(row)
    return rows


def _receipt_row(receipt: Receipt, last: int) -> dict[str, Any]:
    return {
        "n": last,
        "scope": receipt.scope,
        "key": receipt.key,
        "request_hash": receipt.request_hash.hex(),
        "status": receipt.status,
        "id": receipt.id,
        "version": receipt.version,
        "extra": receipt.extra,
    }


def _json(rows: list[dict[str, Any]]) -> str:
    return orjson.dumps(rows).decode()


def _hung_up(connection: Any) -> bool:
    """Whether an idle connection was ended by the server: nothing was sent on it, so that what
    would have been can go on another one."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


class _Waiting:
    """A command in the queue and the future, of a thread or of an event loop, that waits for it."""

    __slots__ = ("append", "future", "loop", "size")

    def __init__(
        self,
        append: Append,
        future: Future[Appended] | asyncio.Future[Appended],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.append = append
        self.future = future
        self.loop = loop
        self.size = append.size()


Outcome = Appended | BaseException


def _settle(answers: list[tuple[_Waiting, Outcome]]) -> None:
    """Give each waiter its answer; one that went away holds up nobody else."""
    for waiting, outcome in answers:
        if waiting.future.done():
            continue
        try:
            if isinstance(outcome, BaseException):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)
        except (InvalidStateError, asyncio.InvalidStateError):
            continue


class Committer:
    """Appends to the log, many commands a transaction, in the order of submission.

    `connect` gives a new autocommit connection of the writer role. `patience` (seconds) bounds
    how long a group is tried again while the head is locked by somebody else. `on_commit` is
    called in the committer's thread after each transaction, before the commands are answered.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        patience: float = 15.0,
        on_commit: Callable[[], None] | None = None,
    ) -> None:
        self._connect = connect
        self._patience = patience
        self._on_commit = on_commit
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._connection: Any = None
        self._usual = 1
        self.groups = 0
        self.commands = 0

    @property
    def alive(self) -> bool:
        """Whether commands can be taken; false after `close` or when the thread has died."""
        thread = self._thread
        return not self._closed and (thread is None or thread.is_alive())

    def waiting(self) -> int:
        """How many commands wait to be taken into a group."""
        return self._queue.qsize()

    def submit(self, append: Append) -> Future[Appended]:
        """Queue a command; the future gives its positions or one of these errors.

        `IntegrityError` (a version or tracking conflict), `AlreadyDone` (the key has a
        receipt), `DataError` (the database refuses a value), `OutcomeUnknown`, `LogUnavailable`.
        """
        future: Future[Appended] = Future()
        self._enqueue(_Waiting(append, future, None))
        return future

    def submit_from_loop(self, append: Append) -> asyncio.Future[Appended]:
        """As `submit`, for the running event loop: one wake-up answers a whole group."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Appended] = loop.create_future()
        self._enqueue(_Waiting(append, future, loop))
        return future

    def close(self) -> None:
        """Commit what waits, then stop. Commands submitted later are refused."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
            self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._lock:
            rest = self._drained()
        self._answer([(waiting, LogUnavailable("the log is closed")) for waiting in rest])

    def _enqueue(self, waiting: _Waiting) -> None:
        with self._lock:
            if self._closed:
                refused = "the log is closed"
            elif self._queue.qsize() >= MAX_WAITING:
                refused = "too many commands are waiting"
            else:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
                    self._thread.start()
                self._queue.put(waiting)
                return
        self._answer([(waiting, LogUnavailable(refused))])

    def _run(self) -> None:
        group: list[_Waiting] = []
        try:
            while True:
                group = self._take()
                if not group:
                    self._disconnect()
                    return
                answers = self._commit(group)
                reach("commit.after")
                self.groups += 1
                self.commands += len(group)
                if self._on_commit is not None:
                    self._on_commit()
                self._answer(answers)
                group = []
        except BaseException as error:
            # Whatever ended the thread, nobody waits for ever: those under way may be recorded,
            # those still queued are not. The next command starts a new thread.
            with self._lock:
                self._thread = None
                rest = self._drained()
            died = f"the committer died: {type(error).__name__}"
            self._answer([(waiting, OutcomeUnknown(died)) for waiting in group])
            self._answer([(waiting, LogUnavailable(died)) for waiting in rest])
            self._disconnect()
            log.exception("committer died")
            if not isinstance(error, Exception):
                raise

    def _drained(self) -> list[_Waiting]:
        """All that wait. Under the lock: the sentinel of `close` must not be taken from another."""
        rest: list[_Waiting] = []
        while True:
            try:
                waiting = self._queue.get_nowait()
            except Empty:
                return rest
            if waiting is not None:
                rest.append(waiting)

    def _take(self) -> list[_Waiting]:
        """Wait for a command, then take all that wait with it; empty when closed."""
        first = self._queue.get()
        if first is None:
            return []
        group = [first]
        size = first.size
        patience = time.monotonic() + LINGER
        while len(group) < MAX_COMMANDS and size < MAX_BYTES:
            try:
                waiting = self._queue.get_nowait()
            except Empty:
                left = patience - time.monotonic()
                if len(group) >= self._usual or left <= 0:
                    break
                try:
                    waiting = self._queue.get(timeout=left)
                except Empty:
                    break
            if waiting is None:
                self._queue.put(None)
                break
            group.append(waiting)
            size += waiting.size
        self._usual = len(group)
        return group

    @staticmethod
    def _answer(answers: Sequence[tuple[_Waiting, Outcome]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop | None, list[tuple[_Waiting, Outcome]]] = {}
        for answer in answers:
            by_loop.setdefault(answer[0].loop, []).append(answer)
        for loop, part in by_loop.items():
            if loop is None:
                _settle(part)
                continue
            try:
                loop.call_soon_threadsafe(_settle, part)
            except RuntimeError:
                log.warning("event loop closed before its commands were answered", count=len(part))

    def _commit(self, group: list[_Waiting]) -> list[tuple[_Waiting, Outcome]]:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._try_commit(group)
            except _TRY_AGAIN as error:
                if time.monotonic() >= deadline:
                    message = f"the log is busy: {type(error).__name__}"
                    return [(waiting, LogUnavailable(message)) for waiting in group]
                log.warning("append tried again", error=type(error).__name__, commands=len(group))

    def _try_commit(self, group: list[_Waiting]) -> list[tuple[_Waiting, Outcome]]:
        try:
            connection = self._connected()
        except psycopg2.Error as error:
            self._disconnect()
            message = f"the database cannot be reached: {type(error).__name__}"
            return [(waiting, LogUnavailable(message)) for waiting in group]
        try:
            if all(waiting.append.tracking is None for waiting in group):
                try:
                    return self._append_group(connection, group)
                except _SESSION_ENDED:
                    raise
                except (
                    psycopg2.IntegrityError,
                    psycopg2.DataError,
                    pg.ProgramLimitExceeded,
                    *_NOT_A_ROW,
                ) as error:
                    if connection.closed:
                        raise
                    log.debug("group refused", error=type(error).__name__, commands=len(group))
            return self._append_each(connection, group)
        except _SESSION_ENDED as error:
            self._disconnect()
            return self._unknown(group, error)
        except _TRY_AGAIN:
            raise
        except psycopg2.Error as error:
            broken = bool(connection.closed) or error.pgcode is None
            self._disconnect()
            if broken:
                return self._unknown(group, error)
            log.exception("append refused", commands=len(group))
            message = f"the database refused the append: {error.pgcode}"
            return [(waiting, LogUnavailable(message)) for waiting in group]

    @staticmethod
    def _unknown(group: list[_Waiting], error: Exception) -> list[tuple[_Waiting, Outcome]]:
        log.warning("connection lost while committing", error=type(error).__name__)
        return [
            (waiting, OutcomeUnknown("the connection was lost while committing"))
            for waiting in group
        ]

    def _connected(self) -> Any:
        connection = self._connection
        if connection is not None and _hung_up(connection):
            self._disconnect()
            connection = None
        if connection is None:
            connection = self._connect()
            self._connection = connection
            with connection.cursor() as cursor:
                # A group's shape never changes: planning it once saves a third of its time.
                cursor.execute("SET plan_cache_mode = force_generic_plan")
                cursor.execute(_PREPARE_GROUP)
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except psycopg2.Error:
                log.debug("closing a broken connection failed")

    def _append_group(
        self, connection: Any, group: list[_Waiting]
    ) -> list[tuple[_Waiting, Outcome]]:
        events: list[dict[str, Any]] = []
        receipts: list[dict[str, Any]] = []
        lasts: list[int] = []
        for waiting in group:
            append = waiting.append
            events += _event_rows(append, len(events) + 1)
            lasts.append(len(events))
            if append.receipt is not None:
                receipts.append(_receipt_row(append.receipt, len(events)))
        reach("commit.before")
        with connection.cursor() as cursor:
            cursor.execute(
                "EXECUTE append_group (%s, %s, %s)", (len(events), _json(events), _json(receipts))
            )
            base = cursor.fetchone()[0]
        return [
            (waiting, Appended(base + last, len(waiting.append.events)))
            for waiting, last in zip(group, lasts, strict=True)
        ]

    def _append_each(
        self, connection: Any, group: list[_Waiting]
    ) -> list[tuple[_Waiting, Outcome]]:
        answers: list[tuple[_Waiting, Outcome]] = []
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                # Lock first, read in later statements: a statement that waits for the lock
                # reads with a snapshot from before it.
                cursor.execute("SELECT position FROM head FOR UPDATE")
                cursor.execute(
                    """UPDATE head SET recorded_at = greatest(clock_timestamp(), recorded_at)
                    RETURNING position, recorded_at"""
                )
                base, recorded_at = cursor.fetchone()
                start = base
                for waiting in group:
                    cursor.execute("SAVEPOINT command")
                    try:
                        outcome: Outcome = self._append_one(
                            cursor, waiting.append, base, recorded_at
                        )
                        base += len(waiting.append.events)
                    except IntegrityError as conflict:
                        cursor.execute("ROLLBACK TO SAVEPOINT command")
                        outcome = conflict
                    except pg.UniqueViolation as error:
                        cursor.execute("ROLLBACK TO SAVEPOINT command")
                        outcome = self._conflict(cursor, waiting.append, error)
                    except (
                        psycopg2.DataError,
                        psycopg2.IntegrityError,
                        pg.ProgramLimitExceeded,
                    ) as error:
                        cursor.execute("ROLLBACK TO SAVEPOINT command")
                        outcome = DataError(f"the database refuses a value: {error.pgcode}")
                    except _NOT_A_ROW as error:
                        cursor.execute("ROLLBACK TO SAVEPOINT command")
                        outcome = DataError(f"a value cannot be stored: {type(error).__name__}")
                    cursor.execute("RELEASE SAVEPOINT command")
                    answers.append((waiting, outcome))
                if base != start:
                    cursor.execute("UPDATE head SET position = %s", (base,))
                cursor.execute("SELECT pg_notify('crm_' || current_schema(), '')")
                reach("commit.locked")
                cursor.execute("COMMIT")
            except BaseException:
                # A connection that cannot roll back is closed by the caller, which does as much.
                with contextlib.suppress(psycopg2.Error):
                    cursor.execute("ROLLBACK")
                raise
        return answers

    @staticmethod
    def _append_one(cursor: Any, append: Append, base: int, recorded_at: Any) -> Appended:
        last = base + len(append.events)
        if append.tracking is not None:
            tracking = append.tracking
            cursor.execute(TRACK, (tracking.application_name, tracking.notification_id))
            if cursor.rowcount != 1:
                raise IntegrityError("a tracking record may only move forward")
        # The receipt first: a repeated command is told so, even where its events conflict too.
        if append.receipt is not None:
            rows = _json([_receipt_row(append.receipt, len(append.events))])
            cursor.execute(
                _INSERT_RECEIPT, {"rows": rows, "base": base, "recorded_at": recorded_at}
            )
        if append.events:
            rows = _json(_event_rows(append, 1))
            cursor.execute(_INSERT_EVENTS, {"rows": rows, "base": base, "recorded_at": recorded_at})
        return Appended(last, len(append.events))

    @staticmethod
    def _conflict(cursor: Any, append: Append, error: pg.UniqueViolation) -> Exception:
        table = error.diag.table_name
        if table == "receipts" and append.receipt is not None:
            cursor.execute(SELECT_RECEIPT, (append.receipt.scope, append.receipt.key))
            row = cursor.fetchone()
            if row is not None:
                return AlreadyDone(receipt_of(row))
        if table == "events" and error.diag.constraint_name == "events_pkey":
            return InternalError("the head row and the events disagree")
        return IntegrityError(f"conflict on {table}: {error.diag.constraint_name}")
