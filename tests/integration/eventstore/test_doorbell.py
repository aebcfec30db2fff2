"""NOTIFY only saves waiting: whatever becomes of it, readers see every event."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from infra.eventstore.doorbell import Doorbell
from infra.eventstore.factory import Factory
from infra.eventstore.feed import StoreFeed
from infra.eventstore.recorders import PostgresApplicationRecorder
from tests.integration.eventstore.stepping import PATIENCE, Log, command, event, eventually

pytestmark = pytest.mark.database

LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s"


def listens(log: Log) -> int:
    return int(log.value(LISTENING, [f'LISTEN "crm_{log.schema}"%']))


def listening(factory: Factory) -> Doorbell:
    """The doorbell, once it listens; it rings when it begins."""
    doorbell = factory.doorbell
    eventually(lambda: doorbell.rings)
    return doorbell


class Silent(Doorbell):
    """A doorbell whose rings are lost. Tells when somebody waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = threading.Semaphore(0)
        self.timeouts: set[float] = set()

    def ring(self) -> None:
        pass

    def wait(self, heard: int, timeout: float) -> bool:
        self.waited.release()
        self.timeouts.add(timeout)
        return super().wait(heard, min(timeout, 0.05))


def test_an_append_of_another_process_rings(log: Log, new_factory: Callable[..., Factory]) -> None:
    here, there = new_factory(), new_factory()
    doorbell = listening(here)
    heard = doorbell.rings
    there.committer.submit(command()).result(PATIENCE)
    assert doorbell.wait(heard, PATIENCE)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_both_ways_of_appending_notify(
    new_factory: Callable[..., Factory], one_by_one: bool
) -> None:
    here, there = new_factory(), new_factory()
    same = event()
    there.committer.submit(command(same)).result(PATIENCE)
    doorbell = listening(here)
    heard = doorbell.rings
    futures = [there.committer.submit(command())]
    if one_by_one:
        futures.append(there.committer.submit(command(same)))
    for future in futures:
        future.exception(PATIENCE)
    assert doorbell.wait(heard, PATIENCE)


def test_a_rolled_back_append_does_not_ring(log: Log, new_factory: Callable[..., Factory]) -> None:
    doorbell = listening(new_factory())
    heard = doorbell.rings
    connection = log.connect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify('crm_' || current_schema(), '')")
    connection.rollback()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify('crm_' || current_schema(), '')")
    connection.commit()
    connection.close()
    assert doorbell.wait(heard, PATIENCE)
    assert doorbell.rings == heard + 1


def test_a_feed_without_rings_polls(log_factory: Factory) -> None:
    silent = Silent()
    feed = StoreFeed(log_factory.pool, silent)
    assert not feed.wait(0, 0.05)
    with ThreadPoolExecutor() as threads:
        while silent.waited.acquire(blocking=False):
            pass
        waiting = threads.submit(feed.wait, 0, PATIENCE)
        assert silent.waited.acquire(timeout=PATIENCE)  # it found nothing and waits for a ring
        log_factory.committer.submit(command()).result(PATIENCE)
        first = waiting.result(PATIENCE)
        assert first or feed.wait(0, PATIENCE)
    assert feed.wait(0, PATIENCE)


def test_a_feed_does_not_miss_what_comes_before_it_waits(log_factory: Factory) -> None:
    """The ring between looking at the log and waiting for one is heard."""
    waited = []

    class Attentive(Doorbell):
        def wait(self, heard: int, timeout: float) -> bool:
            waited.append(self.rings - heard)
            return super().wait(heard, 0.0)

    doorbell = Attentive()
    feed = StoreFeed(log_factory.pool, doorbell)
    end = feed.end

    def end_and_then_an_append() -> int:
        feed.end = end  # type: ignore[method-assign]
        position = end()
        log_factory.committer.submit(command()).result(PATIENCE)
        doorbell.ring()
        return position

    feed.end = end_and_then_an_append  # type: ignore[method-assign]
    assert feed.wait(0, PATIENCE)
    assert waited == [1]


def test_a_feed_that_has_just_read_does_not_ask_again(
    log_factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    doorbell = Doorbell()
    feed = StoreFeed(log_factory.pool, doorbell)
    for _ in range(3):
        log_factory.committer.submit(command()).result(PATIENCE)
    with monkeypatch.context() as unasked:
        unasked.setattr(feed, "end", None)
        assert feed.read(0, 2).through == 2
        assert feed.wait(2, 0.0)  # it has seen a third one
        assert feed.read(2, 2).through == 3
        assert not feed.wait(3, 0.0)
        assert feed.read(3, 2).through == 3
        doorbell.ring()
        assert feed.wait(3, 0.0)
    log_factory.committer.submit(command()).result(PATIENCE)
    assert feed.wait(3, 0.0)  # what was seen before is not believed twice


def test_a_subscription_without_rings_polls(log_factory: Factory) -> None:
    silent = Silent()
    recorder = PostgresApplicationRecorder(log_factory.pool, log_factory.committer, silent)
    with recorder.subscribe(gt=0) as subscription:
        for position in (1, 2, 3):
            assert silent.waited.acquire(timeout=PATIENCE)
            log_factory.committer.submit(command()).result(PATIENCE)
            assert next(subscription).id == position
    assert silent.timeouts == {1.0}  # seconds between polls


def test_a_subscription_is_woken_by_another_process(new_factory: Callable[..., Factory]) -> None:
    here = new_factory()
    recorder = here.application_recorder()
    listening(here)
    with recorder.subscribe(gt=0) as subscription:
        there = new_factory()
        for position in (1, 2):
            there.committer.submit(command()).result(PATIENCE)
            assert next(subscription).id == position


def test_a_subscription_ends_when_stopped_or_broken(log_factory: Factory) -> None:
    recorder = log_factory.application_recorder()
    with recorder.subscribe(gt=0) as subscription:
        subscription.stop()
        with pytest.raises(StopIteration):
            next(subscription)

    def broken(*_: object, **__: object) -> None:
        raise OSError("broken")

    recorder.select_notifications = broken  # type: ignore[method-assign, assignment]
    with recorder.subscribe(gt=0) as subscription, pytest.raises(OSError, match="broken"):
        next(subscription)


def test_the_doorbell_comes_back_after_its_session_was_ended(
    log: Log, new_factory: Callable[..., Factory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.eventstore.doorbell._RECONNECT_DELAY", 0.01)
    here, there = new_factory(), new_factory()
    doorbell = listening(here)
    heard = doorbell.rings
    assert log.end_sessions(waiting_in="LISTEN%") == 1
    assert doorbell.wait(heard, PATIENCE)  # something may have been appended meanwhile
    eventually(lambda: listens(log) == 1)
    heard = doorbell.rings
    there.committer.submit(command(event(uuid4()))).result(PATIENCE)
    assert doorbell.wait(heard, PATIENCE)


def test_a_doorbell_without_a_server_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def no_server() -> None:
        tried.set()
        raise OSError("no server")

    doorbell = Doorbell(no_server)
    doorbell.start()
    assert tried.wait(PATIENCE)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(doorbell.wait, doorbell.rings, PATIENCE)
        doorbell.stop()
        assert waiting.result(PATIENCE)
    assert not [t for t in threading.enumerate() if t.name == "doorbell"]
    doorbell.stop()
