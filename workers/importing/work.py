"""Steps of an import under way, many at once, so that they share group commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import UUID

from domain.aggregate import LedgerAggregate
from infra.eventstore.records import Receipt
from workers.importing.records import LineError
from workers.importing.report import Entry, Report
from workers.steps import LogUnreachable, Step, Steps

T = TypeVar("T")
Start = Callable[[Coroutine[Any, Any, None]], Awaitable[None]]

UNDER_WAY: Final = 64
"""Lines at once: their commands share group commits."""
CHUNK: Final = 256
"""Lines looked up at once."""


class Work:
    """What the loaders of one file do steps by. `actor` is whom the commands are given as."""

    def __init__(
        self, steps: Steps, report: Report, actor: str, stopped: Callable[[], bool]
    ) -> None:
        self.reported = 0
        """Lines of the file that were not taken, or not all of them."""
        self._steps = steps
        self._report = report
        self._actor = actor
        self._stopped = stopped
        self._seats = asyncio.Semaphore(UNDER_WAY)
        self._failure: LogUnreachable | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be started."""
        return self._stopped() or self._failure is not None

    @asynccontextmanager
    async def group(self) -> AsyncIterator[Start]:
        """Starts work that is not waited for before the end, at most UNDER_WAY at once.

        Raises LogUnreachable if a part of it met one, when all that was started has ended.
        """
        async with asyncio.TaskGroup() as tasks:

            async def start(work: Coroutine[Any, Any, None]) -> None:
                await self._seats.acquire()
                task = tasks.create_task(self._guarded(work))
                task.add_done_callback(lambda _: self._seats.release())

            try:
                yield start
            except LogUnreachable as error:  # bare, not in the group of what the tasks raise
                self._failure = error
        if self._failure is not None:
            raise self._failure

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except LogUnreachable as error:
            self._failure = error

    async def do(self, step: Step) -> None:
        """Raises what `Steps.do` raises."""
        await self._steps.do(step, self._actor)

    async def stream(self, id_: UUID) -> list[LedgerAggregate.Event]:
        return await self._steps.stream(id_)

    async def known(self, keys: Iterable[str]) -> dict[str, Receipt]:
        """The receipts of steps that are done, by key."""
        return await self._steps.receipts(self._actor, keys)

    def same(self, step: Step, receipt: Receipt) -> bool:
        return self.hash(step.content) == receipt.request_hash

    def hash(self, content: object) -> bytes:
        return self._steps.hash(content)

    def refused(self, file: str, line: int, id_: str, error: LineError) -> None:
        """Reports a line of the file."""
        self.reported += 1
        self.beside(file, line, id_, error)

    def beside(self, file: str, line: int, id_: str, error: LineError) -> None:
        """Reports what is no line of the file itself."""
        self._report.add(Entry(file, line, id_, error.problem, error.message))


def chunks(records: Iterable[T]) -> Iterator[list[T]]:
    """CHUNK at a time."""
    iterator = iter(records)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
