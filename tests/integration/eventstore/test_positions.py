"""Positions: 1, 2, 3, … in commit order, whatever happens to those who take them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from infra.eventstore.factory import Factory
from infra.eventstore.feed import Batch, StoreFeed
from infra.eventstore.records import Appended
from infra.postgres import Connection
from tests.integration.eventstore.stepping import PATIENCE, Log, command, event, eventually

pytestmark = pytest.mark.database

INSERT = """
WITH head AS (UPDATE head SET position = position + 1,
                  recorded_at = greatest(clock_timestamp(), recorded_at)
              RETURNING position, recorded_at)
INSERT INTO events SELECT position, %s, 1, 'test.happened', 1, %s, recorded_at, recorded_at, '',
    %s, %s, NULL, NULL, '{}' FROM head
"""


def take_a_position(connection: Connection) -> None:
    """Appends an event and leaves the transaction open."""
    with connection.cursor() as cursor:
        cursor.execute(INSERT, [uuid4()] * 4)


def read(factory: Factory) -> Batch:
    return StoreFeed(factory.pool, factory.doorbell).read(0, 1000)


def test_an_open_transaction_keeps_later_ones_from_being_read_first(
    log: Log, log_factory: Factory
) -> None:
    first = log.connect()
    take_a_position(first)
    later = log_factory.committer.submit(command())
    eventually(log.waiting_for_a_lock)

    assert read(log_factory).events == []
    assert not later.done()

    first.commit()
    first.close()
    assert later.result(PATIENCE) == Appended(2, 1)
    assert [recorded.position for recorded in read(log_factory).events] == [1, 2]


def test_a_rollback_leaves_no_gap_and_no_stall(log: Log, log_factory: Factory) -> None:
    log_factory.committer.submit(command()).result(PATIENCE)
    given_up = log.connect()
    take_a_position(given_up)
    later = log_factory.committer.submit(command())
    eventually(log.waiting_for_a_lock)

    given_up.rollback()
    given_up.close()
    assert later.result(PATIENCE) == Appended(2, 1)
    assert read(log_factory).through == 2
    assert log.check() == 2


def test_a_dropped_connection_leaves_no_gap_and_no_stall(log: Log, log_factory: Factory) -> None:
    gone = log.connect()
    take_a_position(gone)
    later = log_factory.committer.submit(command())
    eventually(log.waiting_for_a_lock)
    gone.close()
    assert later.result(PATIENCE) == Appended(1, 1)


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_concurrent_writers_and_a_tailing_reader(
    log: Log, new_factory: Callable[..., Factory], limit: int
) -> None:
    """Three processes of four threads each; commands of one to three events."""
    factories = [new_factory() for _ in range(3)]
    expected = 12 * 20 * 2
    seen: list[Any] = []

    def write(factory: Factory) -> None:
        for n in range(20):
            stream = uuid4()
            events = [event(stream, version) for version in range(1, 2 + n % 3)]
            events += [event() for _ in range(2 - len(events))]
            factory.application_recorder().insert_events(events[:2])

    def tail() -> None:
        feed = StoreFeed(factories[0].pool, factories[0].doorbell)
        position = 0
        while position < expected:
            batch = feed.read(position, limit)
            assert [r.position for r in batch.events] == list(
                range(position + 1, batch.through + 1)
            )
            seen.extend(batch.events)
            position = batch.through
            feed.wait(position, 1.0)

    reader = threading.Thread(target=tail)
    writers = [threading.Thread(target=write, args=(f,)) for f in factories for _ in range(4)]
    for thread in [reader, *writers]:
        thread.start()
    for thread in [reader, *writers]:
        thread.join(PATIENCE)
        assert not thread.is_alive()

    assert [r.position for r in seen] == list(range(1, expected + 1))
    assert [r.recorded_at for r in seen] == sorted(r.recorded_at for r in seen)
    assert len({(r.stream_id, r.version) for r in seen}) == expected
    assert log.check() == expected


def test_recorded_at_never_falls_even_if_the_clock_does(log: Log, log_factory: Factory) -> None:
    log.rows("UPDATE head SET recorded_at = clock_timestamp() + interval '1 hour'")
    ahead = log.value("SELECT recorded_at FROM head")
    twice = event()
    for _ in range(2):
        log_factory.committer.submit(command()).result(PATIENCE)
    log_factory.committer.submit(command(twice)).result(PATIENCE)
    log_factory.committer.submit(command(twice)).exception(PATIENCE)  # under the lock, one by one
    log_factory.committer.submit(command()).result(PATIENCE)
    assert {row[0] for row in log.rows("SELECT recorded_at FROM events")} == {ahead}
    assert log.check() == 4


def test_one_command_keeps_its_order_and_one_time(log: Log, log_factory: Factory) -> None:
    stream = uuid4()
    events = [event(stream, version) for version in (1, 2, 3)]
    assert log_factory.application_recorder().insert_events(events) == [1, 2, 3]
    rows = log.rows("SELECT version, recorded_at, command_id FROM events ORDER BY position")
    assert [row[0] for row in rows] == [1, 2, 3]
    assert len({row[1:] for row in rows}) == 1


def test_position_at_is_exact_at_its_boundaries(log: Log, log_factory: Factory) -> None:
    def position_at(instant: Any) -> int:
        return int(log.value("SELECT position_at(%s)", [instant]))

    assert position_at("infinity") == 0
    for count in (1, 3, 2, 1):
        events = [event() for _ in range(count)]
        log_factory.committer.submit(command(*events)).result(PATIENCE)
    # Two groups that were recorded at the same microsecond count as one.
    times: dict[Any, int] = {}
    for position, recorded_at in log.rows("SELECT position, recorded_at FROM events"):
        times[recorded_at] = max(position, times.get(recorded_at, 0))
    tick = timedelta(microseconds=1)
    before = 0
    for recorded_at, last in sorted(times.items()):
        assert position_at(recorded_at - tick) == before
        assert position_at(recorded_at) == last
        before = last
    assert before == position_at("infinity") == 7
    assert position_at("-infinity") == 0
    assert log.value("SELECT position_at(NULL)") is None
