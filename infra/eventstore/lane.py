"""The quick way into the log for the commands of an event loop: its groups are sent and answered
in the loop itself, so that no group waits for a thread's turn at the interpreter."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg2
import structlog
from psycopg2.extensions import POLL_OK, POLL_WRITE

from infra.crashpoints import reach
from infra.eventstore import groups
from infra.eventstore.groups import SESSION_ENDED, Answers, Waiting, hung_up, settle
from infra.eventstore.records import OutcomeUnknown
from infra.eventstore.statements import APPEND_GROUP, NOT_A_ROW, PREPARING, group_of

log = structlog.get_logger(__name__)


class Lane:
    """One asynchronous connection, and the commands that go over it, group by group.

    Only what is sure is decided here: a group that went in, or one of which nothing can be said
    because the connection broke; then the lane is `gone`. A group that the server refuses as a
    whole, none of which is in the log, is handed `back`. All but `connected` and `finish` belong
    to the loop's thread.
    """

    def __init__(
        self,
        connection: Any,
        loop: asyncio.AbstractEventLoop,
        *,
        back: Callable[[Sequence[Waiting]], None],
        gone: Callable[[], None],
        committed: Callable[[int], None],
    ) -> None:
        """`committed` is told of each group, by its commands, before they are answered."""
        self.loop = loop
        self._connection = connection
        self._cursor = connection.cursor()
        self._back, self._gone, self._committed = back, gone, committed
        self._queue: list[Waiting] = []
        self._group: list[Waiting] = []  # under way
        self._lasts: list[int] = []
        self._usual = 1
        self._check: asyncio.Handle | None = None
        self._until, self._seen = 0.0, 0
        self._descriptor: int = connection.fileno()
        self._writes = self._dropped = False

    def start(self) -> None:
        """The loop looks after the connection from now on."""
        if not self._dropped:
            self.loop.add_reader(self._descriptor, self._ready)

    def waiting(self) -> int:
        """How many commands wait to be taken into a group."""
        return len(self._queue)

    def add(self, waiting: Waiting) -> None:
        """Queue a command."""
        self._queue.append(waiting)
        if not self._group:
            self._do(self._next)

    def _do(self, step: Callable[[], None]) -> None:
        """Whatever goes wrong in a step, nobody waits for ever."""
        try:
            step()
        except BaseException as error:
            log.exception("committer died")
            group, self._group = self._group, []
            died = f"the committer died: {type(error).__name__}"
            settle([(waiting, OutcomeUnknown(died)) for waiting in group])
            self.drop()
            if not isinstance(error, Exception):
                raise

    def _next(self) -> None:
        """Send what waits if it is enough, or comes alone as the last did; else as soon as no more
        has come for a turn of the loop."""
        count = len(self._queue)
        if count >= groups.ENOUGH or count == self._usual == 1:
            self._send()
        elif count and self._check is None:
            self._until, self._seen = self.loop.time() + groups.LINGER, count
            self._check = self.loop.call_soon(self._look)

    def _look(self) -> None:
        self._check = None
        count = len(self._queue)
        if not count or self._group:
            return
        if count > self._seen and self.loop.time() < self._until:
            self._seen = count
            self._check = self.loop.call_soon(self._look)
        else:
            self._do(self._send)

    def _look_no_more(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _send(self) -> None:
        self._look_no_more()
        if hung_up(self._connection):
            self.drop()
            return
        self._take()
        try:
            rows, self._lasts = group_of(waiting.append for waiting in self._group)
        except NOT_A_ROW:
            self._hand_back()
            return
        reach("commit.before")
        try:
            self._cursor.execute(APPEND_GROUP, rows)
        except psycopg2.Error as error:
            self._failed(error)
            return
        self._go_on()

    def _take(self) -> None:
        count = size = 0
        for waiting in self._queue[: groups.MAX_COMMANDS]:
            if count and size >= groups.MAX_BYTES:
                break
            count += 1
            size += waiting.size
        self._group = self._queue[:count]
        del self._queue[:count]
        self._usual = count

    def _ready(self) -> None:
        """The connection has something for us, or takes more of what we have for it."""
        if self._group:
            self._do(self._go_on)
        elif hung_up(self._connection):
            self.drop()

    def _go_on(self) -> None:
        try:
            state = self._connection.poll()
        except psycopg2.Error as error:
            self._failed(error)
            return
        if (state == POLL_WRITE) is not self._writes:
            self._writes = not self._writes
            if self._writes:
                self.loop.add_writer(self._descriptor, self._ready)
            else:
                self.loop.remove_writer(self._descriptor)
        if state == POLL_OK:
            settle(self._done())
            self._group = []
            self._next()

    def _done(self) -> Answers:
        base = self._cursor.fetchone()[0]
        reach("commit.after")
        self._committed(len(self._group))
        return groups.appended(self._group, base, self._lasts)

    def _failed(self, error: psycopg2.Error) -> None:
        if self._is_broken(error):
            group, self._group = self._group, []
            settle(groups.unknown(group, error))
            self.drop()
        else:
            self._hand_back()

    def _is_broken(self, error: psycopg2.Error) -> bool:
        lost = bool(self._connection.closed) or error.pgcode is None
        return lost or isinstance(error, SESSION_ENDED)

    def _hand_back(self) -> None:
        group, self._group = self._group, []
        log.debug("group handed back", commands=len(group))
        self._back(group)
        self._next()

    def drop(self) -> None:
        """Close the connection; what waits is handed back."""
        if self._dropped:
            return
        self._look_no_more()
        self.loop.remove_reader(self._descriptor)
        self.loop.remove_writer(self._descriptor)
        self._close()

    def finish(self) -> None:
        """Wait for the group under way, hand back what waits, and close: in the loop's thread, or
        in any if the loop does not run."""
        while self._group:
            try:
                state = self._connection.poll()
            except psycopg2.Error as error:
                group, self._group = self._group, []
                if self._is_broken(error):
                    groups.answer(groups.unknown(group, error))
                else:
                    self._back(group)
                break
            if state == POLL_OK:
                groups.answer(self._done())
                self._group = []
            else:
                _wait_for(self._connection, state)
        if self.loop.is_closed():
            self._close()
        else:
            self.drop()

    def _close(self) -> None:
        self._dropped = True
        with suppress(psycopg2.Error):
            self._connection.close()
        self._gone()
        rest, self._queue = self._queue, []
        self._back(rest)


def _wait_for(connection: Any, state: int) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLOUT if state == POLL_WRITE else select.POLLIN)
    poll.poll()


def _until_done(connection: Any) -> None:
    while (state := connection.poll()) != POLL_OK:
        _wait_for(connection, state)


def connected(connect: Callable[[], Any]) -> Any:
    """An asynchronous connection on which groups can be sent at once. Blocks for a moment; raises
    `psycopg2.Error`."""
    connection = connect()
    try:
        _until_done(connection)
        cursor = connection.cursor()
        for statement in PREPARING:
            cursor.execute(statement)
            _until_done(connection)
    except BaseException:
        connection.close()
        raise
    return connection
