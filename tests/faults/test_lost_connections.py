"""A connection that is lost while a command is committed: nobody guesses, the retry tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from eventsourcing.persistence import IntegrityError

from domain.values import CustomerKind
from infra.commands import StoreUnavailable
from infra.eventstore.factory import Factory
from infra.eventstore.records import AlreadyDone, Appended, LogUnavailable, OutcomeUnknown
from tests.faults.proxy import Lost, Proxy
from tests.integration.eventstore.products import Product
from tests.integration.eventstore.stepping import (
    PATIENCE,
    Log,
    as_one_group,
    command,
    event,
    eventually,
    receipt,
    run,
)

pytestmark = pytest.mark.database

GROUP = b"EXECUTE append_group"
COMMIT = b"COMMIT"


@pytest.fixture
def factory(new_factory: Callable[..., Factory], proxy: Proxy) -> Factory:
    return new_factory(LOG_DATABASE_URL=proxy.url)


@pytest.fixture
def product(new_product: Callable[..., Product], proxy: Proxy) -> Product:
    return new_product(LOG_DATABASE_URL=proxy.url)


@pytest.mark.parametrize("lost", Lost)
def test_a_group_whose_commit_is_cut_off(
    log: Log, factory: Factory, proxy: Proxy, lost: Lost
) -> None:
    committer = factory.committer
    commands = [command(event(), receipt=receipt(str(n))) for n in range(3)]
    with log.held():
        opener = committer.submit(command())
        eventually(log.waiting_for_a_lock)
        futures = [committer.submit(each) for each in commands]
        proxy.lose(lost, GROUP)
    opener.result(PATIENCE)
    for future in futures:
        with pytest.raises(OutcomeUnknown):
            future.result(PATIENCE)

    for n, each in enumerate(commands):
        again = committer.submit(each)
        if lost is Lost.REPLY:
            with pytest.raises(AlreadyDone) as done:
                again.result(PATIENCE)
            assert done.value.receipt.position == n + 2
        else:
            assert again.result(PATIENCE) == Appended(n + 2, 1)
    assert log.check() == 4


@pytest.mark.parametrize("lost", Lost)
def test_a_commit_one_by_one_that_is_cut_off(
    log: Log, factory: Factory, proxy: Proxy, lost: Lost
) -> None:
    same = event()
    factory.committer.submit(command(same)).result(PATIENCE)
    good = command(event(), receipt=receipt("good"))
    proxy.lose(lost, COMMIT)
    futures = as_one_group(log, factory.committer, [command(same), good])
    for future in futures:  # of the conflict, too, nothing certain can be said: it may be mended
        with pytest.raises(OutcomeUnknown):
            future.result(PATIENCE)

    if lost is Lost.REPLY:
        with pytest.raises(AlreadyDone):
            factory.committer.submit(good).result(PATIENCE)
    else:
        assert factory.committer.submit(good).result(PATIENCE) == Appended(3, 1)
    with pytest.raises(IntegrityError):
        factory.committer.submit(command(same)).result(PATIENCE)
    assert log.check() == 3


@pytest.mark.parametrize("lost", Lost)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_retry_of_a_command_tells_the_truth(
    log: Log,
    product: Product,
    new_product: Callable[..., Product],
    proxy: Proxy,
    lost: Lost,
    elsewhere: bool,
) -> None:
    second = new_product() if elsewhere else product
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_)
        proxy.lose(lost, GROUP)
        with pytest.raises(OutcomeUnknown):
            await product.order(id_, "1", "key")

        answer = await second.order(id_, "1", "key")
        assert (answer.id, answer.version, answer.position) == (id_, 2, 2)
        assert answer.repeated is (lost is Lost.REPLY)
        assert (await product.order(id_, "2")).version == 3  # nothing stale stayed in memory

    run(steps())
    assert log.check() == 3


@pytest.mark.parametrize("lost", Lost)
def test_without_a_key_the_next_command_sees_the_truth(
    log: Log, product: Product, proxy: Proxy, lost: Lost
) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_)
        proxy.lose(lost, GROUP)
        with pytest.raises(OutcomeUnknown):
            await product.order(id_, "1")
        assert (await product.order(id_, "1")).version == 2

    run(steps())
    assert log.check() == 2


def test_a_session_ended_while_it_waits_for_the_head(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer
    again = command(event(), receipt=receipt("key"))
    with log.held():
        future = committer.submit(again)
        eventually(log.waiting_for_a_lock)
        assert log.end_sessions(waiting_in="EXECUTE append_group%") == 1
        with pytest.raises(OutcomeUnknown):
            future.result(PATIENCE)
    assert committer.submit(again).result(PATIENCE) == Appended(1, 1)
    assert log.check() == 1


def test_a_session_ended_between_commands_is_not_noticed(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer
    committer.submit(command()).result(PATIENCE)
    assert log.end_sessions(waiting_in="EXECUTE append_group%") == 1
    eventually(
        lambda: (
            not log.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND query LIKE 'EXECUTE append_group%%'"
            )
        )
    )
    assert committer.submit(command()).result(PATIENCE) == Appended(2, 1)


def test_without_a_server_nothing_is_recorded_and_the_caller_told(
    log: Log, factory: Factory, proxy: Proxy
) -> None:
    proxy.refuses = True
    with pytest.raises(LogUnavailable):
        factory.committer.submit(command()).result(PATIENCE)
    proxy.refuses = False
    assert factory.committer.submit(command()).result(PATIENCE) == Appended(1, 1)


def test_commands_without_a_server(log: Log, product: Product, proxy: Proxy) -> None:
    known, unknown = uuid4(), uuid4()

    async def steps() -> None:
        await product.register(known)
        proxy.refuses = True
        log.end_sessions()
        for attempt in (
            product.order(known, "1", "key"),
            product.order(unknown, "1", "key"),
            product.rename(known, "Acme", "key"),
        ):
            with pytest.raises((StoreUnavailable, OutcomeUnknown)):
                await attempt
        proxy.refuses = False
        assert (await product.order(known, "1", "key")).version == 2

    run(steps())
    assert log.check() == 2


@pytest.mark.parametrize("what", ["prepare", "fetch"])
def test_without_the_vault_nothing_is_recorded_and_the_caller_told(
    log: Log, new_product: Callable[..., Product], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    product, fresh = new_product(), new_product()
    person = uuid4()

    def no_vault() -> Any:
        raise psycopg2.OperationalError("no vault")

    async def steps() -> None:
        if what == "fetch":
            await product.register(person, kind=CustomerKind.PERSON)
        before = log.check()
        monkeypatch.setattr(fresh.factory.vault._pool, "connection", no_vault)
        with pytest.raises(StoreUnavailable):
            if what == "prepare":
                await fresh.register(person, "key", kind=CustomerKind.PERSON)
            else:
                await fresh.order(person, "1", "key")
        assert log.check() == before
        monkeypatch.undo()
        if what == "prepare":
            await fresh.register(person, "key", kind=CustomerKind.PERSON)
        else:
            await fresh.order(person, "1", "key")
        assert log.check() == before + 1

    run(steps())


def test_commands_after_the_log_was_closed(log: Log, new_product: Callable[..., Product]) -> None:
    product = new_product()

    async def steps() -> None:
        await product.register(uuid4())
        await asyncio.to_thread(product.committer.close)
        assert not product.commands.ready
        with pytest.raises(StoreUnavailable):
            await product.register(uuid4())

    run(steps())
    assert log.check() == 1
