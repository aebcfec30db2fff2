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

from api.errors import InvalidRequest, NotOfThisLog, NotYetRead, Parked, Unavailable
from api.reflected import (
    Awaited,
    Followed,
    Lineage,
    Partitions,
    Watch,
    followed,
    partitions,
    reached,
    strangers,
)
from infra.eventstore.feed import Head, PartitionKeys
from infra.postgres import Pool
from infra.proof.stored import Stored
from projections.reading import Connection, Moment

T = TypeVar("T")

NOT_BUILT = "The read model has not been built yet, or by another version of the program."


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
    """How far the projections are, by name: for /health/ready and /metrics."""

    head: int
    sealed: int
    """Up to where events are sealed."""
    partitions: Mapping[str, Partitions]
    parked: Mapping[str, int]
    strangers: Mapping[str, str]
    """Those that are not of this log, and why: they are not carried on, and not read."""

    @property
    def reflected(self) -> dict[str, int]:
        """Up to where each has applied the log, in all its partitions."""
        return {name: reached(positions) for name, positions in self.partitions.items()}


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
        self._watch = Watch(self._positions_now)
        self._lineage = Lineage(self._strangers)
        self._partition_keys = PartitionKeys(log_pool)

    async def ask(
        self,
        models: Sequence[str],
        question: Question,
        query: Callable[[Connection, Moment], T],
        *,
        key: UUID | None = None,
        partition_key: UUID | None = None,
    ) -> Answered[T]:
        """The answer of `query`, from a snapshot that reflects what the question asks for.

        With `key`, the answer is about that key alone; with its `partition_key`, it needs, and
        tells the position of, only the partition that all events of the key lie in. Raises
        NotYetRead after a bounded wait, Parked, NotOfThisLog, Unavailable, InvalidRequest for
        values the database does not take.
        """
        known_at = await self._resolve(question.known_at)
        moment = Moment(
            as_of=question.as_of or self._clock(),
            known_at=known_at,
            latest=question.as_of is None,
        )
        wanted = max(question.min_position, known_at or 0)
        ids = [self._models[model] for model in models]
        if await self._strange(ids):
            raise NotOfThisLog
        if wanted:
            deadline = time.monotonic() + self._wait_seconds
            for id_ in ids:
                await self._watch.reach(Awaited(id_, wanted, partition_key), deadline)
        return await self.in_thread(self._answer, ids, moment, wanted, query, key, partition_key)

    async def partition_key(self, stream_id: UUID) -> UUID | None:
        """The partition key of a stream; None if the log has no such stream. Raises
        Unavailable."""
        known = self._partition_keys.known(stream_id)
        return known or await self.in_thread(self._partition_keys.find, stream_id)

    async def _strange(self, ids: Sequence[str]) -> bool:
        strangers = await self._lineage.strangers()
        return any(id_ in strangers for id_ in ids)

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
            raise Unavailable(NOT_BUILT) from None

    def close(self) -> None:
        self._watch.close()
        self._lineage.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _resolve(self, known_at: int | datetime | None) -> int | None:
        if known_at is None:
            return None
        return await self.in_thread(self.position_at, known_at)

    def position_at(self, known_at: int | datetime) -> int:
        """The last position of the log that counts; 0 before the first. Blocks."""
        with self._log_pool.connection() as connection, connection.cursor() as cursor:
            if isinstance(known_at, datetime):
                cursor.execute("SELECT position_at(%s)", (known_at,))
            else:
                cursor.execute("SELECT least(position, %s) FROM head", (known_at,))
            found: int = (cursor.fetchone() or (0,))[0]
            return found

    def followed(self, events: Sequence[tuple[UUID, int]]) -> dict[str, Followed]:
        """How far each read model is with events, by partition key and position. Blocks."""
        with self._pool.connection() as connection:
            return followed(connection, self._models, events)

    def _answer(
        self,
        ids: Sequence[str],
        moment: Moment,
        wanted: int,
        query: Callable[[Connection, Moment], T],
        key: UUID | None,
        partition_key: UUID | None,
    ) -> Answered[T]:
        with self._pool.connection() as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            found = partitions(connection, ids)
            if not all(found.values()):
                raise Unavailable(NOT_BUILT)
            position = min(reached(positions, partition_key) for positions in found.values())
            if position < wanted:  # a rebuild may have put the model back
                raise NotYetRead(wanted, position)
            parked = _parked_keys(connection, ids, key)
            if parked and key is not None:
                raise Parked
            return Answered(query(connection, moment), position, moment, parked)

    def _positions_now(self) -> Mapping[str, Partitions]:
        with self._pool.connection() as connection:
            return partitions(connection, list(self._models.values()))

    def _strangers(self) -> dict[str, str]:
        with self._pool.connection() as connection:
            return strangers(connection, list(self._models.values()), self._head)

    def _head(self) -> Head:
        with self._log_pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT position, store_epoch FROM head")
            return Head(*(cursor.fetchone() or ()))

    def _sealed(self) -> int:
        with self._log_pool.connection() as connection:
            newest = Stored(connection).newest()
            return 0 if newest is None else newest.size

    def _state(self) -> State:
        ids = list(self._models.values())
        with self._pool.connection() as connection:
            found = partitions(connection, ids)
            strange = strangers(connection, ids, self._head)
            parked = {
                name: _parked_keys(connection, [id_], None) for name, id_ in self._models.items()
            }
        return State(
            self._head().position,
            self._sealed(),
            {name: found[id_] for name, id_ in self._models.items()},
            parked,
            {name: strange[id_] for name, id_ in self._models.items() if id_ in strange},
        )


def _parked_keys(connection: Connection, ids: Sequence[str], key: UUID | None) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT key) FROM parked"
            " WHERE projection = ANY(%s) AND (%s::uuid IS NULL OR key = %s::uuid)",
            (list(ids), key, key),
        )
        found: int = (cursor.fetchone() or (0,))[0]
        return found
