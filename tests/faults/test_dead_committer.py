"""Whatever ends the committer, it is seen at once: everybody gets an answer, and it goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from uuid import uuid4

import pytest

from infra.commands import StoreUnavailable
from infra.eventstore.committer import Committer
from infra.eventstore.factory import Factory
from infra.eventstore.records import Appended, LogUnavailable, OutcomeUnknown
from tests.integration.eventstore.products import Product
from tests.integration.eventstore.stepping import PATIENCE, Log, command, eventually, run

pytestmark = pytest.mark.database

DEATHS = [RuntimeError("injected"), MemoryError(), SystemExit()]


class Deadly:
    """Takes the committer's place in the step that it is given, and dies of it when told to."""

    def __init__(self, step: Callable[..., Any], death: BaseException) -> None:
        self._step = step
        self._death = death
        self.begun = threading.Event()
        self.die = threading.Event()

    def __call__(self, *args: Any) -> Any:
        if self.die.is_set():
            return self._step(*args)
        self.begun.set()
        assert self.die.wait(PATIENCE)
        raise self._death


def error_of(future: Future[Appended]) -> type[object]:
    return type(future.exception(PATIENCE))


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: type(death).__name__)
@pytest.mark.parametrize(
    "step", ["_connect", "_try_commit", "_append_group", "_on_commit", "_answer"]
)
def test_everybody_gets_an_answer(
    log: Log,
    log_factory: Factory,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    death: BaseException,
) -> None:
    committer = log_factory.committer
    deadly = Deadly(getattr(committer, step), death)
    monkeypatch.setattr(committer, step, deadly)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    under_way = committer.submit(command())
    assert deadly.begun.wait(PATIENCE)
    queued = [committer.submit(command()) for _ in range(3)]
    deadly.die.set()

    assert error_of(under_way) is OutcomeUnknown
    assert [error_of(future) for future in queued] == [LogUnavailable] * 3

    assert committer.alive
    after = committer.submit(command()).result(PATIENCE)
    assert after.last == log.check()
    assert log.check() == (2 if step in ("_on_commit", "_answer") else 1)


def test_the_commands_of_an_event_loop_get_an_answer(
    log: Log, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = product.committer
    deadly = Deadly(committer._append_group, RuntimeError("injected"))

    async def steps() -> None:
        ids = [uuid4() for _ in range(4)]
        monkeypatch.setattr(committer, "_append_group", deadly)
        under_way = asyncio.create_task(product.register(ids[0], "0"))
        await asyncio.to_thread(deadly.begun.wait, PATIENCE)
        queued = [
            asyncio.create_task(product.register(id_, str(n)))
            for n, id_ in enumerate(ids[1:], start=1)
        ]
        await asyncio.to_thread(eventually, lambda: committer.waiting() == 3)
        deadly.die.set()
        with pytest.raises(OutcomeUnknown):
            await under_way
        for task in queued:
            with pytest.raises(StoreUnavailable):
                await task
        assert product.commands.ready
        for n, id_ in enumerate(ids):
            assert not (await product.register(id_, str(n))).repeated

    run(steps())
    assert log.check() == 4


def test_it_can_be_closed_after_its_death(
    log_factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = log_factory.committer
    deadly = Deadly(committer._append_group, RuntimeError("injected"))
    monkeypatch.setattr(committer, "_append_group", deadly)
    deadly.die.clear()
    future = committer.submit(command())
    assert deadly.begun.wait(PATIENCE)
    closing = threading.Thread(target=committer.close)
    closing.start()
    eventually(lambda: not committer.alive)
    deadly.die.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert error_of(future) is OutcomeUnknown
    assert error_of(committer.submit(command())) is LogUnavailable
    committer.close()


def test_threads_and_sessions_are_gone_after_closing(
    log: Log, new_factory: Callable[..., Factory]
) -> None:
    before = set(threading.enumerate())
    factory = new_factory()
    factory.application_recorder().insert_events(command().events)
    factory.vault.prepare([uuid4()])
    assert log.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'crm-log'")
    factory.close()
    assert set(threading.enumerate()) <= before
    eventually(
        lambda: (
            not log.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name IN ('crm-log', 'crm-vault')"
            )
        )
    )


def test_an_unused_committer_can_be_closed() -> None:
    def never() -> None:
        raise AssertionError("it has nothing to write")

    committer = Committer(never)
    assert committer.alive
    committer.close()
    assert not committer.alive
