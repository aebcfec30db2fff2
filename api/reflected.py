"""How much of the log the read models reflect, waiting for more, and whether it is this log."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import psycopg2

from api.errors import NotYetRead, Unavailable
from infra.eventstore.feed import Head, partition_of
from projections.origin import LogBehind, OtherLog, demand_same_log
from projections.reading import Connection

POLL_SECONDS = 0.01

LOOK_SECONDS = 1.0
"""Seconds between two looks at whether the read models are of the log there is."""

Partitions = Mapping[int, int]
"""Partition → the last position applied in it. Empty: the read model is not there."""


def partitions(connection: Connection, ids: Sequence[str]) -> dict[str, Partitions]:
    """The positions of each projection, by partition."""
    found: dict[str, dict[int, int]] = {id_: {} for id_ in ids}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT projection, partition, position FROM position WHERE projection = ANY(%s)",
            (list(ids),),
        )
        for id_, partition, position in cursor.fetchall():
            found[id_][partition] = position
    return {**found}


def reached(positions: Partitions, partition_key: UUID | None = None) -> int:
    """Up to here everything is applied; with a partition key, everything that belongs to it."""
    if partition_key is None:
        return min(positions.values(), default=0)
    return positions.get(partition_of(partition_key, len(positions)), 0) if positions else 0


@dataclass(frozen=True, slots=True)
class Followed:
    """How far a read model is with some events: `position` is the least that it has come to with
    any of their keys, `visible` whether all are in it, `parked` how many are held back."""

    position: int
    visible: bool
    parked: int


def followed(
    connection: Connection, models: Mapping[str, str], events: Sequence[tuple[UUID, int]]
) -> dict[str, Followed]:
    """By name (`models`: name → id), for events by partition key and position."""
    found = partitions(connection, list(models.values()))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT projection, count(*) FROM parked WHERE projection = ANY(%s)"
            " AND position = ANY(%s) GROUP BY projection",
            (list(models.values()), [position for _, position in events]),
        )
        parked = dict(cursor.fetchall())
    return {
        name: Followed(
            min(reached(found[id_], key) for key, _ in events),
            all(reached(found[id_], key) >= position for key, position in events)
            and id_ not in parked,
            parked.get(id_, 0),
        )
        for name, id_ in models.items()
    }


class Awaited(NamedTuple):
    """A position of a projection, in all partitions or in that of a partition key."""

    id: str
    position: int
    partition_key: UUID | None

    def reached_in(self, seen: Mapping[str, Partitions]) -> int:
        return reached(seen.get(self.id, {}), self.partition_key)


class Watch:
    """One poll for all who wait for a position, and none while nobody does."""

    def __init__(self, positions: Callable[[], Mapping[str, Partitions]]) -> None:
        self._positions = positions
        self._waiting: dict[asyncio.Future[None], Awaited] = {}
        self._task: asyncio.Task[None] | None = None
        self._seen: Mapping[str, Partitions] = {}

    async def reach(self, wanted: Awaited, deadline: float) -> None:
        """Raises NotYetRead at the deadline (of the monotonic clock)."""
        if wanted.reached_in(self._seen) >= wanted.position:
            return
        came = asyncio.get_running_loop().create_future()
        self._waiting[came] = wanted
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            await asyncio.wait_for(came, max(deadline - time.monotonic(), POLL_SECONDS))
        except TimeoutError:
            raise NotYetRead(wanted.position, wanted.reached_in(self._seen)) from None
        finally:
            self._waiting.pop(came, None)

    async def _poll(self) -> None:
        while self._waiting:
            try:
                self._seen = await asyncio.to_thread(self._positions)
            except psycopg2.Error:
                self._fail(Unavailable("The database cannot be reached."))
                return
            for came, wanted in list(self._waiting.items()):
                if not came.done() and wanted.reached_in(self._seen) >= wanted.position:
                    came.set_result(None)
            await asyncio.sleep(POLL_SECONDS)

    def _fail(self, error: Exception) -> None:
        for came in self._waiting:
            if not came.done():
                came.set_exception(error)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Lineage:
    """Which read models are not of the log there is. Looked at beside the reads, so that a log
    that cannot be asked holds up none of them; what it says may be a second or two old."""

    def __init__(self, look: Callable[[], Mapping[str, str]]) -> None:
        """`look`: id of a read model → what is wrong with it; blocks."""
        self._look = look
        self._found: Mapping[str, str] = {}
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None

    async def strangers(self) -> Mapping[str, str]:
        """Id of a read model → what is wrong with it. Waits for the first look alone."""
        first = self._task is None
        if time.monotonic() >= self._due and (self._task is None or self._task.done()):
            self._due = time.monotonic() + LOOK_SECONDS
            self._task = asyncio.create_task(self._refresh())
        if first and self._task is not None:
            await asyncio.wait([self._task], timeout=LOOK_SECONDS)
        return self._found

    async def _refresh(self) -> None:
        try:
            self._found = await asyncio.to_thread(self._look)
        except psycopg2.Error:
            return  # as far as is known, nothing has changed

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()


def strangers(
    connection: Connection, ids: Sequence[str], head: Callable[[], Head]
) -> dict[str, str]:
    """The read models that are not of the log that `head` is asked of, and why."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT projection, max(position), max(store_epoch::text) FROM position"
            " LEFT JOIN origin USING (projection)"
            " WHERE projection = ANY(%s) GROUP BY projection",
            (list(ids),),
        )
        rows: list[tuple[str, int, str | None]] = cursor.fetchall()
    end = head()  # after the positions: projectors move them on all the while
    found = {}
    for id_, position, epoch in rows:
        try:
            demand_same_log(id_, None if epoch is None else UUID(epoch), position, end)
        except (OtherLog, LogBehind) as problem:
            found[id_] = str(problem)
    return found
