"""A group goes in together, and what is wrong with one of it stays its own affair."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import DataError, IntegrityError, Tracking
from msgspec import structs

from infra.eventstore import groups
from infra.eventstore.factory import Factory
from infra.eventstore.records import (
    AlreadyDone,
    Append,
    Appended,
    Envelope,
    LedgerEvent,
    LogUnavailable,
)
from tests.integration.eventstore.stepping import (
    PATIENCE,
    Log,
    as_one_group,
    command,
    envelope,
    event,
    eventually,
    receipt,
)

pytestmark = pytest.mark.database


def test_what_waits_is_committed_together(log: Log, log_factory: Factory) -> None:
    futures = as_one_group(log, log_factory.committer, [command() for _ in range(20)])
    assert [future.result() for future in futures] == [Appended(n, 1) for n in range(2, 22)]
    transactions = log.value("SELECT count(DISTINCT xmin::text) FROM events WHERE position > 1")
    assert transactions == 1
    assert log.check() == 21


def test_a_group_is_bounded(
    log: Log, log_factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "MAX_COMMANDS", 3)
    with log.held():
        futures = [log_factory.committer.submit(command())]
        eventually(log.waiting_for_a_lock)
        futures += [log_factory.committer.submit(command()) for _ in range(7)]
    assert [future.result(PATIENCE).last for future in futures] == list(range(1, 9))
    eventually(lambda: log_factory.committer.groups == 1 + 3)
    assert log_factory.committer.commands == 8

    monkeypatch.setattr(groups, "MAX_BYTES", 2000)
    big = [command(event(state=b'"' + b"x" * 1000 + b'"')) for _ in range(4)]
    with log.held():
        futures = [log_factory.committer.submit(command())]
        eventually(log.waiting_for_a_lock)
        futures += [log_factory.committer.submit(each) for each in big]
    for future in futures:
        future.result(PATIENCE)
    eventually(lambda: log_factory.committer.groups == 4 + 1 + 2)
    assert log.check() == 13


def test_enough_commands_wait_for_no_more(
    log: Log, log_factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = groups.ENOUGH
    for future in as_one_group(log, log_factory.committer, [command() for _ in range(enough + 4)]):
        future.result(PATIENCE)
    monkeypatch.setattr(groups, "LINGER", 1_000 * PATIENCE)
    futures = [log_factory.committer.submit(command()) for _ in range(enough)]
    for future in futures:
        future.result(PATIENCE)
    assert log.check() == 1 + 2 * enough + 4


STATES = [b'{"name": "\xc3\xa9 \\\\u0000 \\" "}', b"\xff\xfe", b"a\x00b", b""]
COLUMNS = """stream_id, version, topic, class_version, partition_key, actor, command_id,
    correlation_id, causation_id, reason, traceparent, occurred_at = recorded_at, state"""


@pytest.mark.parametrize(
    "beside",
    [command, lambda: Append([event()], tracking=Tracking("upstream", 1))],
    ids=["in one statement", "one by one"],
)
def test_what_is_stored_is_what_was_given(
    log: Log, log_factory: Factory, beside: Callable[[], Append]
) -> None:
    """With all there can be, or only what there must be."""
    stream, customer = uuid4(), uuid4()
    plain, whole = envelope(), Envelope("me", uuid4(), uuid4(), uuid4(), "why", "00-trace-01")
    events = [event(state=state) for state in STATES]
    last = event(stream, 7, topic="test.else", class_version=3, state=b"[]")
    given = [
        Append(events, plain, receipt=receipt("one", id=events[-1].originator_id, extra=None)),
        Append([event(), last], whole, {stream: customer}, receipt("two", status=200, version=9)),
        Append([], plain, receipt=receipt("three", version=4)),
    ]
    futures = as_one_group(log, log_factory.committer, [beside(), *given])
    assert [future.result(PATIENCE).last for future in futures[1:]] == [6, 8, 8]

    def row(one: LedgerEvent, of: Append) -> tuple[Any, ...]:
        at, envelope = one.originator_id, of.envelope
        return (
            at, one.originator_version, one.topic, one.class_version,
            of.partition_keys.get(at, at), envelope.actor, envelope.command_id,
            envelope.correlation_id, envelope.causation_id, envelope.reason, envelope.traceparent,
            True, one.state,
        )  # fmt: skip

    stored = log.rows(f"SELECT {COLUMNS} FROM events WHERE position > 2 ORDER BY position")
    assert [(*found[:-1], bytes(found[-1])) for found in stored] == [
        row(one, of) for of in given for one in of.events
    ]
    recorder = log_factory.application_recorder()
    found = recorder.receipts("tester", ["one", "two", "three"])
    for append, position in zip(given, (6, 8, 8), strict=True):
        assert append.receipt is not None
        assert found[append.receipt.key] == structs.replace(append.receipt, position=position)


def test_a_full_queue_refuses(
    log: Log, log_factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "MAX_WAITING", 2)
    with log.held():
        opener = log_factory.committer.submit(command())
        eventually(log.waiting_for_a_lock)
        queued = [log_factory.committer.submit(command()) for _ in range(2)]
        with pytest.raises(LogUnavailable):
            log_factory.committer.submit(command()).result(0)
    for future in [opener, *queued]:
        future.result(PATIENCE)
    assert log.check() == 3


def conflicting(log: Log, factory: Factory) -> Append:
    there = event()
    factory.committer.submit(command(there)).result(PATIENCE)
    return command(event(), there)


def repeated(log: Log, factory: Factory) -> Append:
    factory.committer.submit(command(event(), receipt=receipt("again"))).result(PATIENCE)
    return command(event(), receipt=receipt("again"))


def tracked_again(log: Log, factory: Factory) -> Append:
    there = Tracking("upstream", 5)
    factory.committer.submit(Append([event()], tracking=there)).result(PATIENCE)
    return Append([event()], tracking=there)


def too_large_a_key(log: Log, factory: Factory) -> Append:
    return command(event(), receipt=receipt(os.urandom(20_000).hex()))


def a_reason_with_nul(log: Log, factory: Factory) -> Append:
    return Append([event()], envelope=envelope(reason="\x00"))


Wrong = Callable[[Log, Factory], Append]
WRONG: list[tuple[Wrong, type[Exception]]] = [
    (conflicting, IntegrityError),
    (repeated, AlreadyDone),
    (tracked_again, IntegrityError),
    (too_large_a_key, DataError),
    (a_reason_with_nul, DataError),
    (lambda *_: command(event(topic="test.\x00")), DataError),
    (lambda *_: command(event(), actor="\x00"), DataError),
    (lambda *_: command(event(), actor="\ud800"), DataError),
    (lambda *_: command(event(version=2**31)), DataError),
    (lambda *_: command(event(class_version=2**15)), DataError),
    (lambda *_: command(event(version=-1)), DataError),
    (lambda *_: command(event(topic=None)), DataError),  # type: ignore[arg-type]
    (lambda *_: command(event(), event("no uuid")), DataError),
    (lambda *_: command(event(occurred_at="never")), DataError),
    (lambda *_: command(event(), receipt=receipt("k", extra={"x": object()})), DataError),
    (lambda *_: command(event(), receipt=receipt("k", extra={"x": "\x00"})), DataError),
    (lambda *_: command(event(), receipt=receipt("k", status=2**20)), DataError),
    (lambda *_: Append([event()], envelope=None), DataError),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("wrong", "error"), WRONG)
def test_only_the_one_that_is_wrong_fails(
    log: Log, log_factory: Factory, wrong: Wrong, error: type[Exception]
) -> None:
    refused = wrong(log, log_factory)
    before = log.check()
    good = [
        command(event(), event()),
        command(event(), receipt=receipt("one")),
        command(receipt=receipt("two")),
        Append([event()], tracking=Tracking("other", 7)),
    ]
    group = [*good[:2], refused, *good[2:]]
    futures = as_one_group(log, log_factory.committer, group)

    with pytest.raises(error):
        futures.pop(2).result()
    start = before + 1
    assert [future.result() for future in futures] == [
        Appended(start + 2, 2),
        Appended(start + 3, 1),
        Appended(start + 3, 0),
        Appended(start + 4, 1),
    ]
    assert log.check() == start + 4
    recorder = log_factory.process_recorder()
    kept = {key: recorder.receipt("tester", key) for key in ("one", "two", "k")}  # type: ignore[attr-defined]
    assert kept["one"].position == kept["two"].position == start + 3
    assert kept["k"] is None
    assert recorder.max_tracking_id("other") == 7

    assert log_factory.committer.submit(command()).result(PATIENCE).last == start + 5


def test_commands_of_one_group_conflict_with_each_other(log: Log, log_factory: Factory) -> None:
    same = event()
    futures = as_one_group(
        log, log_factory.committer, [command(same), command(same, event()), command()]
    )
    assert futures[0].result() == Appended(2, 1)
    with pytest.raises(IntegrityError):
        futures[1].result()
    assert futures[2].result() == Appended(3, 1)
    assert log.check() == 3


def test_the_same_key_twice_in_one_group_appends_once(log: Log, log_factory: Factory) -> None:
    first, second = receipt("key"), receipt("key")
    futures = as_one_group(
        log,
        log_factory.committer,
        [command(event(), receipt=first), command(event(), receipt=second)],
    )
    assert futures[0].result() == Appended(2, 1)
    with pytest.raises(AlreadyDone) as done:
        futures[1].result()
    assert done.value.receipt == receipt("key", id=first.id, position=2)
    assert log.check() == 2


def test_the_same_key_twice_at_the_same_moment_appends_once(
    log: Log, new_factory: Callable[..., Factory]
) -> None:
    """Two processes, both past every check and waiting for the head."""
    committers = [new_factory().committer for _ in range(2)]
    with log.held():
        futures = []
        for n, committer in enumerate(committers):
            futures.append(committer.submit(command(event(), event(), receipt=receipt("key"))))
            eventually(partial(log.waits_for_a_lock, n + 1))
    outcomes: list[Any] = [future.exception(PATIENCE) or future.result() for future in futures]
    done = [outcome for outcome in outcomes if isinstance(outcome, AlreadyDone)]
    assert [outcome for outcome in outcomes if outcome not in done] == [Appended(2, 2)]
    assert [outcome.receipt.position for outcome in done] == [2]
    assert log.check() == 2


def test_a_repeated_key_is_told_even_if_its_events_conflict_too(
    log: Log, log_factory: Factory
) -> None:
    again = command(event(), receipt=receipt("key"))
    log_factory.committer.submit(again).result(PATIENCE)
    with pytest.raises(AlreadyDone):
        log_factory.committer.submit(again).result(PATIENCE)
    assert log.check() == 1


def test_while_the_head_is_locked_for_long_nothing_is_recorded_and_the_caller_told(
    log: Log, new_factory: Callable[..., Factory]
) -> None:
    committer = new_factory(LOG_LOCK_TIMEOUT="20ms", LOG_PATIENCE="0").committer
    with log.held(), pytest.raises(LogUnavailable):
        committer.submit(command()).result(PATIENCE)
    assert committer.submit(command()).result(PATIENCE) == Appended(1, 1)


def test_a_lock_that_is_freed_in_time_costs_only_a_delay(
    log: Log, new_factory: Callable[..., Factory]
) -> None:
    def waiting_since(log: Log) -> Any:
        return log.value(
            "SELECT max(query_start) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database() AND application_name = 'crm-log'"
        )

    committer = new_factory(LOG_LOCK_TIMEOUT="20ms").committer
    with log.held():
        future = committer.submit(command())
        first = eventually(lambda: waiting_since(log))
        eventually(lambda: (again := waiting_since(log)) and again > first)
    assert future.result(PATIENCE) == Appended(1, 1)
