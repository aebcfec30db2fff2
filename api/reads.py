"""Asking the read models: the two times of a question, and how much of the log the answer knows.

Queries block; they run in threads, on pooled connections, each in one read-only snapshot together
with the position it reflects.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

import psycopg2
import psycopg2.errors

from api.errors import InvalidRequest, NotYetRead, Parked, Unavailable
from infra.postgres import Pool
from projections.reading import Connection, Moment

T = TypeVar("T")

POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Question:
    """When, as known when, and how much of the log must be in the answer.

    `known_at` is a position or an instant.
    """

    as_of: datetime | None = None
    known_at: int | datetime | None = None
    min_position: int = 0


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """`position`: everything up to there is in the answer. `known_at`: nothing after it is."""

    value: T
    position: int
    moment: Moment
    parked: int

    def times(self) -> dict[str, object]:
        return {
            "position": self.position,
            "as_of": self.moment.as_of,
            "known_at": self.position if self.moment.known_at is None else self.moment.known_at,
        }


@dataclass(frozen=True, slots=True)
class State:
    """How far the projections are: for /health/ready and /metrics."""

    head: int
    reflected: Mapping[str, int]
    parked: Mapping[str, int]


class Reads:
    """`models`: name of a read model → its id in the table of positions."""

    def __init__(
        self,
        pool: Pool,
        log_pool: Pool,
        models: Mapping[str, str],
        clock: Callable[[], datetime],
        *,
        wait_seconds: float,
        threads: int,
    ) -> None:
        self._pool = pool
        self._log_pool = log_pool
        self._models = models
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._watch = _Watch(self._positions_now)

    async def ask(
        self,
        models: Sequence[str],
        question: Question,
        query: Callable[[Connection, Moment], T],
        *,
        key: UUID | None = None,
    ) -> Answered[T]:
        """The answer of `query`, from a snapshot that reflects what the question asks for.

        With `key`, the answer is about that key alone. Raises NotYetRead after a bounded wait,
        Parked, Unavailable, InvalidRequest for values the database does not take.
        """
        known_at = await self._resolve(question.known_at)
        moment = Moment(
            as_of=question.as_of or self._clock(),
            known_at=known_at,
            latest=question.as_of is None,
        )
        wanted = max(question.min_position, known_at or 0)
        ids = [self._models[model] for model in models]
        if wanted:
            await self._reach(ids, wanted)
        return await self.in_thread(self._answer, ids, moment, wanted, query, key)

    async def state(self) -> State:
        """Raises Unavailable."""
        return await self.in_thread(self._state)

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Runs what blocks. Raises Unavailable where the database cannot be asked."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, function, *arguments)
        except psycopg2.DataError:
            raise InvalidRequest.of_parameter("query", "holds a value out of range") from None
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            raise Unavailable("The database cannot be reached.") from None
        except psycopg2.errors.UndefinedTable:
            raise Unavailable("The read model has not been built yet.") from None

    def close(self) -> None:
        self._watch.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _reach(self, ids: Sequence[str], wanted: int) -> None:
        deadline = time.monotonic() + self._wait_seconds
        for id_ in ids:
            await self._watch.reach(id_, wanted, deadline)

    async def _resolve(self, known_at: int | datetime | None) -> int | None:
        if known_at is None:
            return None
        return await self.in_thread(self._position_at, known_at)

    def _position_at(self, known_at: int | datetime) -> int:
        """The last position of the log that counts."""
        with self._log_pool.connection() as connection, connection.cursor() as cursor:
            if isinstance(known_at, datetime):
                cursor.execute("SELECT position_at(%s)", (known_at,))
            else:
                cursor.execute("SELECT least(position, %s) FROM head", (known_at,))
            found: int = (cursor.fetchone() or (0,))[0]
            return found

    def _answer(
        self,
        ids: Sequence[str],
        moment: Moment,
        wanted: int,
        query: Callable[[Connection, Moment], T],
        key: UUID | None,
    ) -> Answered[T]:
        with self._pool.connection() as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            reflected = _reflected(connection, ids)
            position = min(reflected[id_] for id_ in ids)
            if position < wanted:  # a rebuild may have put the model back
                raise NotYetRead(wanted, position)
            parked = _parked_keys(connection, ids, key)
            if parked and key is not None:
                raise Parked
            return Answered(query(connection, moment), position, moment, parked)

    def _positions_now(self) -> Mapping[str, int]:
        with self._pool.connection() as connection:
            return _reflected(connection, list(self._models.values()))

    def _state(self) -> State:
        with self._log_pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT position FROM head")
            head: int = (cursor.fetchone() or (0,))[0]
        with self._pool.connection() as connection:
            reflected = _reflected(connection, list(self._models.values()))
            parked = {
                name: _parked_keys(connection, [id_], None) for name, id_ in self._models.items()
            }
        return State(head, {name: reflected[id_] for name, id_ in self._models.items()}, parked)


def _reflected(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Up to where each projection has applied the log, in all its partitions."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT projection, min(position) FROM position WHERE projection = ANY(%s)"
            " GROUP BY projection",
            (list(ids),),
        )
        found = dict(cursor.fetchall())
    return {id_: found.get(id_, 0) for id_ in ids}


def _parked_keys(connection: Connection, ids: Sequence[str], key: UUID | None) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT key) FROM parked"
            " WHERE projection = ANY(%s) AND (%s::uuid IS NULL OR key = %s::uuid)",
            (list(ids), key, key),
        )
        found: int = (cursor.fetchone() or (0,))[0]
        return found


class _Watch:
    """One poll for all who wait for a position, and none while nobody does."""

    def __init__(self, positions: Callable[[], Mapping[str, int]]) -> None:
        self._positions = positions
        self._waiting: dict[asyncio.Future[None], tuple[str, int]] = {}
        self._task: asyncio.Task[None] | None = None
        self._seen: Mapping[str, int] = {}

    async def reach(self, id_: str, wanted: int, deadline: float) -> None:
        """Raises NotYetRead at the deadline (of the monotonic clock)."""
        if self._seen.get(id_, 0) >= wanted:
            return
        reached = asyncio.get_running_loop().create_future()
        self._waiting[reached] = (id_, wanted)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            await asyncio.wait_for(reached, max(deadline - time.monotonic(), POLL_SECONDS))
        except TimeoutError:
            raise NotYetRead(wanted, self._seen.get(id_, 0)) from None
        finally:
            self._waiting.pop(reached, None)

    async def _poll(self) -> None:
        while self._waiting:
            try:
                self._seen = await asyncio.to_thread(self._positions)
            except psycopg2.Error:
                self._fail(Unavailable("The database cannot be reached."))
                return
            for reached, (id_, wanted) in list(self._waiting.items()):
                if not reached.done() and self._seen.get(id_, 0) >= wanted:
                    reached.set_result(None)
            await asyncio.sleep(POLL_SECONDS)

    def _fail(self, error: Exception) -> None:
        for reached in self._waiting:
            if not reached.done():
                reached.set_exception(error)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
