"""A client that goes away while its command waits holds up nobody else; its command is done whole
or not at all, and what it had locked is free afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from uuid import uuid4

import pytest

from infra.eventstore.committer import Committer
from infra.eventstore.factory import Factory
from infra.eventstore.records import Appended
from tests.integration.eventstore.products import Product
from tests.integration.eventstore.stepping import PATIENCE, Log, command, event, eventually, run

pytestmark = pytest.mark.database


def test_cancelled_waiters_of_an_event_loop(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer

    async def steps() -> None:
        with log.held():
            opener = committer.submit_from_loop(command())
            await asyncio.to_thread(eventually, log.waiting_for_a_lock)
            group = [committer.submit_from_loop(command(event(), event())) for _ in range(9)]
            for gone in group[::2]:
                gone.cancel()
            opener.cancel()  # its statement is under way
        answers = await asyncio.gather(*group[1::2])
        assert answers == [Appended(1 + 2 * n, 2) for n in (2, 4, 6, 8)]
        assert (await committer.submit_from_loop(command())).last == 20

    run(steps())
    assert log.check() == 20


def test_cancelled_waiters_of_threads(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer
    with log.held():
        opener = committer.submit(command())
        eventually(log.waiting_for_a_lock)
        group = [committer.submit(command()) for _ in range(5)]
        assert all(gone.cancel() for gone in [opener, *group[::2]])
    assert [future.result(PATIENCE).last for future in group[1::2]] == [3, 5]
    assert committer.submit(command()).result(PATIENCE).last == 7
    assert log.check() == 7


def wait_in_a_loop_that_is_closed(committer: Committer, log: Log) -> None:
    """Leaves a command in the queue whose event loop is no more."""

    async def steps() -> None:
        queued = committer.waiting()
        committer.submit_from_loop(command())
        assert committer.waiting() == queued + 1

    loop = asyncio.new_event_loop()
    loop.run_until_complete(steps())
    loop.close()


def test_a_closed_event_loop(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer
    with log.held():
        opener = committer.submit(command())
        eventually(log.waiting_for_a_lock)
        first = committer.submit(command())
        wait_in_a_loop_that_is_closed(committer, log)
        last = committer.submit(command())
    assert [future.result(PATIENCE).last for future in (opener, first, last)] == [1, 2, 4]
    assert committer.submit(command()).result(PATIENCE).last == 5


def test_waiters_of_several_loops_and_threads_in_one_group(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer
    answers: list[Appended] = []

    async def steps() -> None:
        answers.append(await committer.submit_from_loop(command()))

    with log.held():
        opener = committer.submit(command())
        eventually(log.waiting_for_a_lock)
        threads = [threading.Thread(target=run, args=(steps(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: committer.waiting() == 3)
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(answer.last for answer in answers) == [2, 3, 4]
    assert opener.result(PATIENCE).last == 1


@pytest.mark.parametrize("departing", ["the first", "a waiting one", "all"])
def test_cancelled_commands_on_one_aggregate(log: Log, product: Product, departing: str) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_)
        with log.held():
            tasks = [asyncio.create_task(product.order(id_, str(n), f"key {n}")) for n in range(4)]
            await asyncio.to_thread(eventually, log.waiting_for_a_lock)
            gone = {"the first": tasks[:1], "a waiting one": tasks[2:3], "all": tasks}[departing]
            for task in gone:
                task.cancel()
            await asyncio.wait(gone)
            assert all(task.cancelled() for task in gone)
        for task in tasks:
            if task not in gone:
                assert not (await task).repeated
        # Done all the same, and whole: events and receipt.
        answers = [await product.order(id_, str(n), f"key {n}") for n in range(4)]
        assert all(answer.repeated for answer in answers)
        assert sorted(answer.version for answer in answers) == [2, 3, 4, 5]
        assert (await product.order(id_, "next")).version == 6

    run(steps())
    assert log.check() == 6


def test_a_command_cancelled_while_its_aggregate_is_loaded(
    log: Log, new_product: Callable[..., Product], monkeypatch: pytest.MonkeyPatch
) -> None:
    product, other = new_product(), new_product()
    id_ = uuid4()
    begun, go_on = threading.Event(), threading.Event()

    async def steps() -> None:
        await other.register(id_)
        load = product.commands._repository.load

        def stepped(wanted: object) -> object:
            begun.set()
            assert go_on.wait(PATIENCE)
            return load(id_)

        monkeypatch.setattr(product.commands._repository, "load", stepped)
        task = asyncio.create_task(product.order(id_, "1", "key"))
        await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        await asyncio.wait([task])
        go_on.set()
        assert (await product.order(id_, "1", "key")).repeated
        assert (await product.order(id_, "2")).version == 3

    run(steps())
    assert log.check() == 3


def test_an_event_loop_that_ends_with_commands_under_way(
    log: Log, new_product: Callable[..., Product]
) -> None:
    """As a server does that is told to stop and stop again."""
    dying, other = new_product(), new_product()
    id_ = uuid4()

    async def retry() -> None:
        answers = [await other.order(id_, str(n), f"key {n}") for n in range(3)]
        assert [answer.repeated for answer in answers] == [True, False, False]

    loop = asyncio.new_event_loop()
    loop.run_until_complete(dying.register(id_))
    with log.held():
        loop.run_until_complete(_left_behind(dying, log, id_))
        loop.close()
    eventually(lambda: log.value("SELECT position FROM head") == 2)
    run(retry())
    assert log.check() == 4


async def _left_behind(product: Product, log: Log, id_: object) -> None:
    """Commands whose tasks are cancelled by the loop's end, one of them being committed."""
    begun = [
        asyncio.create_task(product.order(id_, str(n), f"key {n}"))  # type: ignore[arg-type]
        for n in range(3)
    ]
    await asyncio.to_thread(eventually, log.waiting_for_a_lock)
    every = asyncio.all_tasks() - {asyncio.current_task()}
    for task in every:
        task.cancel()
    await asyncio.gather(*every, return_exceptions=True)
    assert all(task.cancelled() for task in begun)


def test_closing_waits_for_the_commands_under_way(
    log: Log, new_product: Callable[..., Product]
) -> None:
    product = new_product()
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_)
        with log.held():
            task = asyncio.create_task(product.order(id_, "1", "key"))
            await asyncio.to_thread(eventually, log.waiting_for_a_lock)
            task.cancel()
            closing = asyncio.create_task(product.commands.close())
            await asyncio.wait([task])
            assert not closing.done()
        await closing

    run(steps())
    assert log.check() == 2


def test_closing_the_log_commits_what_waits(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer
    with log.held():
        futures = [committer.submit(command())]
        eventually(log.waiting_for_a_lock)
        futures += [committer.submit(command()) for _ in range(5)]
        closing = threading.Thread(target=committer.close)
        closing.start()
        eventually(lambda: not committer.alive)
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert [future.result(0).last for future in futures] == [1, 2, 3, 4, 5, 6]
    assert log.check() == 6
