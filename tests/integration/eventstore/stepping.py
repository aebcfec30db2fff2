"""Stepping several connections by hand: wait for what can be observed, never for time to pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID, uuid4

from eventsourcing.persistence import StoredEvent

from infra.eventstore.committer import Committer
from infra.eventstore.records import Append, Appended, Envelope, LedgerEvent, Receipt
from infra.postgres import Connection, connect

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which a test that waits for something gives up."""


def eventually(condition: Callable[[], T]) -> T:
    """What `condition` returns once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)
    return found


def run(steps: Coroutine[Any, Any, T]) -> T:
    """Runs the steps of a test on an event loop of their own."""

    async def bounded() -> T:
        return await asyncio.wait_for(steps, 2 * PATIENCE)

    return asyncio.run(bounded())


class Log:
    """One log seen from outside."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.url = environment["LOG_DATABASE_URL"]
        self.schema = environment["LOG_SCHEMA"]
        self._observer = self.connect(autocommit=True)

    def connect(self, role: str | None = None, *, autocommit: bool = False) -> Connection:
        return connect(
            self.url,
            role=role,
            search_path=[self.schema],
            application_name="by-hand",
            autocommit=autocommit,
        )

    def close(self) -> None:
        self._observer.close()

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._observer.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        return self.rows(statement, parameters)[0][0]

    def waiting_for_a_lock(self, application_name: str = "crm-log") -> int:
        """How many sessions wait for a lock that another one holds."""
        return int(
            self.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = %s AND wait_event_type = 'Lock'",
                [application_name],
            )
        )

    def waits_for_a_lock(self, count: int) -> bool:
        return self.waiting_for_a_lock() == count

    def end_sessions(self, application_name: str = "crm-log", waiting_in: str = "%") -> int:
        """Ends sessions as an administrator would; gives how many."""
        return len(
            self.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = %s AND query LIKE %s",
                [application_name, waiting_in],
            )
        )

    @contextmanager
    def held(self) -> Iterator[Connection]:
        """Somebody else holds the head's lock meanwhile; it gives it back without a change."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT position FROM head FOR UPDATE")
            yield connection
        finally:
            connection.rollback()
            connection.close()

    def check(self) -> int:
        """Positions run 1, 2, …, versions within each stream too, and time never goes back.

        Gives the number of events.
        """
        rows = self.rows(
            "SELECT position, stream_id, version, recorded_at FROM events ORDER BY position"
        )
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        assert self.value("SELECT position FROM head") == len(rows)
        versions: dict[UUID, int] = {}
        for _, stream, version, _ in rows:
            assert version == versions.get(stream, 0) + 1
            versions[stream] = version
        times = [row[3] for row in rows]
        assert times == sorted(times)
        return len(rows)


def event(
    stream: UUID | str | None = None, version: int = 1, *, topic: str = "test.happened", **more: Any
) -> LedgerEvent:
    return LedgerEvent(stream or uuid4(), version, topic, more.pop("state", b"{}"), **more)


def envelope(actor: str = "tester", **more: Any) -> Envelope:
    command = uuid4()
    return Envelope(actor=actor, command_id=command, correlation_id=command, **more)


def receipt(key: str, **more: Any) -> Receipt:
    fields = {"request_hash": b"#", "status": 201, "id": uuid4(), "version": 1, "extra": {"n": 1}}
    return Receipt(scope="tester", key=key, **{**fields, **more})


def command(*events: StoredEvent, receipt: Receipt | None = None, actor: str = "tester") -> Append:
    """An append of these events, by default of one new stream."""
    return Append(
        events=list(events) or ([] if receipt else [event()]),
        envelope=envelope(actor),
        receipt=receipt,
    )


def as_one_group(
    log: Log, committer: Committer, commands: Sequence[Append]
) -> list[Future[Appended]]:
    """Has the commands committed in one group: they queue up while the one before it waits."""
    with log.held():
        opener = committer.submit(command())
        eventually(log.waiting_for_a_lock)
        groups = committer.groups
        futures = [committer.submit(each) for each in commands]
        assert committer.waiting() == len(commands)
    opener.result(PATIENCE)
    for future in futures:
        future.exception(PATIENCE)
    eventually(lambda: committer.groups >= groups + 2)
    assert committer.groups == groups + 2
    return futures
