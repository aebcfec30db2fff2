"""The commands of an event loop, over their own connection: as sure as by the thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from eventsourcing.persistence import DataError, IntegrityError, Tracking

from infra.eventstore import committer as committer_module
from infra.eventstore import groups
from infra.eventstore.committer import Committer
from infra.eventstore.factory import Factory
from infra.eventstore.records import AlreadyDone, Append, Appended, LogUnavailable, OutcomeUnknown
from tests.integration.eventstore.stepping import (
    PATIENCE,
    Log,
    command,
    event,
    eventually,
    receipt,
    run,
)

pytestmark = pytest.mark.database

GROUPS = "EXECUTE append_group%"


async def opened(committer: Committer) -> None:
    """Until the commands of this loop go by a lane; takes the first position."""
    await committer.submit_from_loop(command())
    loop = asyncio.get_running_loop()
    while committer._lane is None or committer._lane.loop is not loop:
        await asyncio.sleep(0.002)


async def told(work: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(asyncio.gather(work, return_exceptions=True), PATIENCE)


async def until(condition: Callable[[], Any]) -> None:
    await asyncio.to_thread(eventually, condition)


def sessions(log: Log) -> int:
    """How many there are that append groups, of threads and of lanes."""
    return int(
        log.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'crm-log' AND query LIKE '%%append_group%%'"
        )
    )


def by_lane(committer: Committer) -> None:
    """From now on nothing is committed by the thread."""

    def never(*_: Any) -> Any:
        raise AssertionError("by the thread")

    committer._commit = never  # type: ignore[method-assign]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_commands_go_in_together(log: Log, log_factory: Factory, run: Callable[..., None]) -> None:
    committer = log_factory.committer

    async def steps() -> None:
        await opened(committer)
        by_lane(committer)
        assert (await committer.submit_from_loop(command())).last == 2
        before = committer.groups
        with log.held():
            many = [committer.submit_from_loop(command(event(), event()))]
            await until(log.waiting_for_a_lock)
            many += [committer.submit_from_loop(command(event(), event())) for _ in range(19)]
        assert [each.last for each in await asyncio.gather(*many)] == list(range(4, 43, 2))
        assert committer.groups == before + 2
        assert committer.commands == 22

    run(steps())
    assert log.check() == 42
    log_factory.close()


def test_a_group_larger_than_what_the_network_takes_at_once(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer
    big = b'"' + b"x" * 1_500_000 + b'"'

    async def steps() -> None:
        await opened(committer)
        by_lane(committer)
        many = [committer.submit_from_loop(command(event(state=big))) for _ in range(4)]
        assert sorted(each.last for each in await asyncio.gather(*many)) == [2, 3, 4, 5]
        assert (await committer.submit_from_loop(command())).last == 6

    run(steps())
    assert log.check() == 6
    assert log.value("SELECT count(*) FROM events WHERE octet_length(state) = 1500002") == 4


def test_only_the_one_that_is_wrong_fails(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer
    there = event()

    async def steps() -> None:
        await opened(committer)
        lane = committer._lane
        await committer.submit_from_loop(command(there, receipt=receipt("once")))
        wrong: list[tuple[type[Exception], Append]] = [
            (IntegrityError, command(event(), there)),
            (AlreadyDone, command(event(), receipt=receipt("once"))),
            (DataError, command(event(topic="test.\x00"))),
            (DataError, command(event(), receipt=receipt("k", extra={"x": {1}}))),
        ]
        for n, (error, append) in enumerate(wrong):
            good = [command(), append, command(receipt=receipt(f"beside {n}"))]
            first, second, third = await asyncio.gather(
                *[committer.submit_from_loop(each) for each in good], return_exceptions=True
            )
            assert type(second) is error
            assert {type(first), type(third)} == {Appended}
            assert (await committer.submit_from_loop(command())).last == log.check()
        tracked = Append([event()], tracking=Tracking("upstream", 1))
        assert (await committer.submit_from_loop(tracked)).last == log.check()
        assert committer._lane is lane

    run(steps())


def test_a_session_ended_under_way(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer
    kept = command(event(), receipt=receipt("key"))

    async def steps() -> None:
        await opened(committer)
        with log.held():
            lost = committer.submit_from_loop(kept)
            await until(log.waiting_for_a_lock)
            queued = [committer.submit_from_loop(command()) for _ in range(3)]
            assert committer.waiting() == 3
            assert log.end_sessions(waiting_in=GROUPS) >= 1
            assert [type(error) for error in await told(lost)] == [OutcomeUnknown]
        assert sorted(each.last for each in await asyncio.gather(*queued)) == [2, 3, 4]
        assert (await committer.submit_from_loop(kept)).last == 5

    run(steps())
    assert log.check() == 5


def test_a_session_ended_between_commands_is_not_noticed(log: Log, log_factory: Factory) -> None:
    committer = log_factory.committer

    async def steps() -> None:
        await opened(committer)
        assert log.end_sessions(waiting_in="%append_group%") == 2  # the thread's, too
        await until(lambda: not sessions(log))
        assert (await committer.submit_from_loop(command())).last == 2

    run(steps())
    assert log.check() == 2


def test_while_the_head_is_locked_it_is_tried_again(
    log: Log, new_factory: Callable[..., Factory]
) -> None:
    committer = new_factory(LOG_LOCK_TIMEOUT="20ms").committer

    async def steps() -> None:
        await opened(committer)
        handed: list[int] = []
        assert committer._lane is not None
        back = committer._lane._back
        committer._lane._back = lambda group: (handed.append(len(group)), back(group))[1]
        with log.held():
            future = committer.submit_from_loop(command())
            await until(lambda: handed)
            await until(log.waiting_for_a_lock)
        assert (await future).last == 2

    run(steps())
    assert log.check() == 2


@pytest.mark.parametrize("where", ["in the loop", "in a thread", "after the loop"])
def test_closing_commits_what_waits(log: Log, log_factory: Factory, where: str) -> None:
    committer = log_factory.committer
    asked: list[asyncio.Future[Appended]] = []

    async def steps() -> None:
        await opened(committer)
        assert sessions(log) == 2
        asked.extend(committer.submit_from_loop(command()) for _ in range(groups.ENOUGH + 3))
        if where == "in the loop":
            committer.close()
        elif where == "in a thread":
            await asyncio.to_thread(committer.close)
        if where != "after the loop":
            answers = await asyncio.wait_for(asyncio.gather(*asked), PATIENCE)
            assert sorted(each.last for each in answers) == list(range(2, len(asked) + 2))
            refused = await told(committer.submit_from_loop(command()))
            assert [type(error) for error in refused] == [LogUnavailable]

    run(steps())
    committer.close()
    assert log.check() == 1 + groups.ENOUGH + 3
    eventually(lambda: not sessions(log))


def test_loops_one_after_the_other(
    log: Log, log_factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = log_factory.committer
    monkeypatch.setattr(committer_module, "_LANE_REST", 0.0)

    async def steps() -> None:
        await opened(committer)
        await committer.submit_from_loop(command())

    for _ in range(3):
        run(steps())
    assert log.check() == 6


def test_too_many_are_refused(
    log: Log, log_factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = log_factory.committer
    monkeypatch.setattr(groups, "MAX_WAITING", 2)

    async def steps() -> None:
        await opened(committer)
        with log.held():
            first = committer.submit_from_loop(command())
            await until(log.waiting_for_a_lock)
            by_lane = [committer.submit_from_loop(command()) for _ in range(2)]
            assert committer.waiting() == 2
            by_thread = [committer.submit_from_loop(command())]
            await until(lambda: log.waits_for_a_lock(2))
            by_thread += [committer.submit_from_loop(command()) for _ in range(2)]
            refused = await told(committer.submit_from_loop(command()))
            assert [type(error) for error in refused] == [LogUnavailable]
        await asyncio.gather(first, *by_lane, *by_thread)

    run(steps())
    assert log.check() == 7


@pytest.mark.parametrize("step", ["_take", "_go_on", "_done", "_committed"])
def test_whatever_ends_it_everybody_gets_an_answer(
    log: Log, log_factory: Factory, step: str
) -> None:
    committer = log_factory.committer

    async def steps() -> None:
        await opened(committer)
        lane = committer._lane
        assert lane is not None

        def dies(*_: Any) -> Any:
            raise MemoryError

        setattr(lane, step, dies)
        answers = await told(
            asyncio.gather(
                *[committer.submit_from_loop(command()) for _ in range(3)], return_exceptions=True
            )
        )
        kinds = {type(answer) for answer in answers[0]}
        assert kinds <= {OutcomeUnknown, Appended}
        assert kinds != {Appended} or step == "_take"
        assert committer._lane is not lane
        assert (await committer.submit_from_loop(command())).last == log.check()

    run(steps())
