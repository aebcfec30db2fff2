"""Group commit: commands that wait while another commits go together in the next transaction.

One thread owns one connection. It takes all that waits (up to a limit), appends it as one
autocommit statement and answers each command. If the statement is refused, nothing of it is
in the log; then the group is done command by command under the head lock, each behind a
savepoint, so that whatever is wrong with one, its neighbours go in.

The commands of an event loop go by a `Lane` instead, once one is open; what is not plainly
appended there comes back to the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

import psycopg2
import structlog
from eventsourcing.persistence import DataError, IntegrityError, InternalError
from psycopg2 import errors as pg

from infra.crashpoints import reach
from infra.eventstore import groups
from infra.eventstore.groups import SESSION_ENDED, Answers, Outcome, Waiting, hung_up
from infra.eventstore.lane import Lane, connected
from infra.eventstore.records import (
    AlreadyDone,
    Append,
    Appended,
    LogUnavailable,
    OutcomeUnknown,
)
from infra.eventstore.statements import (
    APPEND_GROUP,
    INSERT_EVENTS,
    INSERT_RECEIPT,
    NOT_A_ROW,
    PREPARING,
    SELECT_RECEIPT,
    TRACK,
    as_json,
    group_of,
    receipt_of,
    rows_of,
)

log = structlog.get_logger(__name__)

_LANE_REST = 1.0
"""Seconds between two tries to open a lane."""

# Refused before anything was written, and likely to pass when tried again.
_TRY_AGAIN = (pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure, pg.QueryCanceled)


class Committer:
    """Appends to the log, many commands a transaction.

    `connect` gives a new autocommit connection of the writer role, `connect_lane` an asynchronous
    one (without it no lanes are opened). `patience` (seconds) bounds how long a group is tried
    again while the head is locked by somebody else. `on_commit` is called after each transaction,
    before its commands are answered, in the thread that committed it.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        connect_lane: Callable[[], Any] | None = None,
        patience: float = 15.0,
        on_commit: Callable[[], None] | None = None,
    ) -> None:
        self._answer = groups.answer
        self._connect = connect
        self._connect_lane = connect_lane
        self._patience = patience
        self._on_commit = on_commit
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._lane: Lane | None = None
        self._lane_tried = -_LANE_REST
        self._closed = False
        self._stopped = False
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
        lane = self._lane
        return self._queue.qsize() + (0 if lane is None else lane.waiting())

    def submit(self, append: Append) -> Future[Appended]:
        """Queue a command; the future gives its positions or one of these errors.

        `IntegrityError` (a version or tracking conflict), `AlreadyDone` (the key has a
        receipt), `DataError` (the database refuses a value), `OutcomeUnknown`, `LogUnavailable`.
        """
        future: Future[Appended] = Future()
        self._enqueue(Waiting(append, future, None))
        return future

    def submit_from_loop(self, append: Append) -> asyncio.Future[Appended]:
        """As `submit`, for the running event loop: one wake-up answers a whole group."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(append, loop.create_future(), loop)
        lane = self._lane
        if lane is not None and lane.loop.is_closed():
            lane.finish()
        if (
            lane is None
            or lane.loop is not loop
            or append.tracking is not None
            or lane.waiting() >= groups.MAX_WAITING
            or self._closed
        ):
            self._enqueue(waiting)
        else:
            lane.add(waiting)
        return waiting.future  # type: ignore[return-value]

    def close(self) -> None:
        """Commit what waits, then stop. Commands submitted later are refused."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            lane = self._lane
        if lane is not None:
            self._finish(lane)
        with self._lock:
            self._stopped = True
            thread = self._thread
            self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._lock:
            rest = self._drained()
        self._answer([(waiting, LogUnavailable("the log is closed")) for waiting in rest])

    def _enqueue(self, waiting: Waiting) -> None:
        with self._lock:
            if self._closed:
                refused = "the log is closed"
            elif self._queue.qsize() >= groups.MAX_WAITING:
                refused = "too many commands are waiting"
            else:
                self._put(waiting)
                return
        self._answer([(waiting, LogUnavailable(refused))])

    def _put(self, waiting: Waiting) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
            self._thread.start()
        self._queue.put(waiting)

    def _take_back(self, group: Sequence[Waiting]) -> None:
        """From a lane; also while it is finished in order to close."""
        with self._lock:
            if not self._stopped:
                for waiting in group:
                    self._put(waiting)
                return
        self._answer([(waiting, LogUnavailable("the log is closed")) for waiting in group])

    def _committed(self, commands: int) -> None:
        self.groups += 1
        self.commands += commands
        if self._on_commit is not None:
            self._on_commit()

    def _open_lane(self, group: Sequence[Waiting]) -> None:
        """For the commands of an event loop that come after these, if there is none yet."""
        loop = next((waiting.loop for waiting in group if waiting.loop is not None), None)
        if loop is None or self._lane is not None or self._connect_lane is None or self._closed:
            return
        if time.monotonic() < self._lane_tried + _LANE_REST:
            return
        self._lane_tried = time.monotonic()
        try:
            connection = connected(self._connect_lane)
        except psycopg2.Error as error:
            log.debug("no lane", error=type(error).__name__)
            return
        lane = Lane(
            connection,
            loop,
            back=self._take_back,
            gone=self._lane_gone,
            committed=self._committed,
        )
        with self._lock:
            opened = not self._closed
            if opened:
                self._lane = lane
        try:
            if opened:
                loop.call_soon_threadsafe(lane.start)
        except RuntimeError:  # the loop is closed
            opened = False
        if not opened:
            self._lane = None
            connection.close()

    def _lane_gone(self) -> None:
        self._lane = None

    @staticmethod
    def _finish(lane: Lane) -> None:
        finished = threading.Event()

        def finish() -> None:
            lane.finish()
            finished.set()

        try:
            here = asyncio.get_running_loop() is lane.loop
        except RuntimeError:
            here = False
        with contextlib.suppress(RuntimeError):
            if not here and lane.loop.is_running():
                lane.loop.call_soon_threadsafe(finish)
                while lane.loop.is_running() and not finished.wait(0.05):
                    pass
        if not finished.is_set():
            lane.finish()

    def _run(self) -> None:
        group: list[Waiting] = []
        try:
            while True:
                group = self._take()
                if not group:
                    self._disconnect()
                    return
                answers = self._commit(group)
                reach("commit.after")
                self._committed(len(group))
                self._answer(answers)
                done, group = group, []
                self._open_lane(done)
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

    def _drained(self) -> list[Waiting]:
        """All that wait. Under the lock: the sentinel of `close` must not be taken from another."""
        rest: list[Waiting] = []
        while True:
            try:
                waiting = self._queue.get_nowait()
            except Empty:
                return rest
            if waiting is not None:
                rest.append(waiting)

    def _take(self) -> list[Waiting]:
        """Wait for a command, then take all that wait with it; empty when closed."""
        first = self._queue.get()
        if first is None:
            return []
        group = [first]
        size = first.size
        patience = time.monotonic() + groups.LINGER
        while len(group) < groups.MAX_COMMANDS and size < groups.MAX_BYTES:
            try:
                waiting = self._queue.get_nowait()
            except Empty:
                left = patience - time.monotonic()
                if len(group) >= min(self._usual, groups.ENOUGH) or left <= 0:
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

    def _commit(self, group: list[Waiting]) -> Answers:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._try_commit(group)
            except _TRY_AGAIN as error:
                if time.monotonic() >= deadline:
                    message = f"the log is busy: {type(error).__name__}"
                    return [(waiting, LogUnavailable(message)) for waiting in group]
                log.warning("append tried again", error=type(error).__name__, commands=len(group))

    def _try_commit(self, group: list[Waiting]) -> Answers:
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
                except SESSION_ENDED:
                    raise
                except (
                    psycopg2.IntegrityError,
                    psycopg2.DataError,
                    pg.ProgramLimitExceeded,
                    *NOT_A_ROW,
                ) as error:
                    if connection.closed:
                        raise
                    log.debug("group refused", error=type(error).__name__, commands=len(group))
            return self._append_each(connection, group)
        except SESSION_ENDED as error:
            self._disconnect()
            return groups.unknown(group, error)
        except _TRY_AGAIN:
            raise
        except psycopg2.Error as error:
            broken = bool(connection.closed) or error.pgcode is None
            self._disconnect()
            if broken:
                return groups.unknown(group, error)
            log.exception("append refused", commands=len(group))
            message = f"the database refused the append: {error.pgcode}"
            return [(waiting, LogUnavailable(message)) for waiting in group]

    def _connected(self) -> Any:
        connection = self._connection
        if connection is not None and hung_up(connection):
            self._disconnect()
            connection = None
        if connection is None:
            connection = self._connect()
            self._connection = connection
            with connection.cursor() as cursor:
                for statement in PREPARING:
                    cursor.execute(statement)
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except psycopg2.Error:
                log.debug("closing a broken connection failed")

    def _append_group(self, connection: Any, group: list[Waiting]) -> Answers:
        rows, lasts = group_of(waiting.append for waiting in group)
        reach("commit.before")
        with connection.cursor() as cursor:
            cursor.execute(APPEND_GROUP, rows)
            base = cursor.fetchone()[0]
        return groups.appended(group, base, lasts)

    def _append_each(self, connection: Any, group: list[Waiting]) -> Answers:
        answers: list[tuple[Waiting, Outcome]] = []
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
                    except NOT_A_ROW as error:
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
        given = {"rows": as_json(rows_of(append, 1)), "base": base, "recorded_at": recorded_at}
        # The receipt first: a repeated command is told so, even where its events conflict too.
        if append.receipt is not None:
            cursor.execute(INSERT_RECEIPT, given)
        if append.events:
            cursor.execute(INSERT_EVENTS, given)
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
