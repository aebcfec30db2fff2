"""What a group of commands is: how large, how long it waits for more, who waits for its outcome."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

import structlog
from psycopg2 import errors as pg

from infra.eventstore.records import Append, Appended, OutcomeUnknown

log = structlog.get_logger(__name__)

MAX_COMMANDS = 512
MAX_BYTES = 4 * 1024 * 1024
MAX_WAITING = 20_000
LINGER = 0.002
"""Seconds that a group may wait for more, while more come: under load, fewer and fuller groups
cost less for all; a command that comes alone waits for nobody."""
ENOUGH = 32
"""So many commands wait for no others: the server works on them while these come together."""

SESSION_ENDED = (
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.IdleInTransactionSessionTimeout,
    pg.IdleSessionTimeout,
)
"""The session was ended by the server: whether a commit under way went through is not known."""

Outcome = Appended | BaseException


class Waiting:
    """A command in a queue and the future, of a thread or of an event loop, that waits for it."""

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


Answers = Sequence[tuple[Waiting, Outcome]]


def settle(answers: Answers) -> None:
    """Give each waiter its answer; one that went away holds up nobody else. Waiters of an event
    loop are answered in it."""
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


def answer(answers: Answers) -> None:
    """As `settle`, from any thread: one wake-up of a loop answers all that wait in it."""
    by_loop: dict[asyncio.AbstractEventLoop | None, list[tuple[Waiting, Outcome]]] = {}
    for each in answers:
        by_loop.setdefault(each[0].loop, []).append(each)
    for loop, part in by_loop.items():
        if loop is None:
            settle(part)
            continue
        try:
            loop.call_soon_threadsafe(settle, part)
        except RuntimeError:
            log.warning("event loop closed before its commands were answered", count=len(part))


def appended(group: Sequence[Waiting], base: int, lasts: Sequence[int]) -> Answers:
    """The answers of a group that went in after the position `base`."""
    return [
        (waiting, Appended(base + last, len(waiting.append.events)))
        for waiting, last in zip(group, lasts, strict=True)
    ]


def unknown(group: Sequence[Waiting], error: BaseException) -> Answers:
    """The answers of a group whose connection was lost."""
    log.warning("connection lost while committing", error=type(error).__name__)
    lost = "the connection was lost while committing"
    return [(waiting, OutcomeUnknown(lost)) for waiting in group]


def hung_up(connection: Any) -> bool:
    """Whether an idle connection was ended by the server: nothing was sent on it, so that what
    would have been can go on another one."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
