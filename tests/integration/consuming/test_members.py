"""Workers that come, go, fail, are replaced and are slow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
from kafka.admin import KafkaAdminClient, MemberToRemove
from kafka.structs import MemberState

from projections.funnel import FunnelProjection
from projections.projector import NewerProgram
from tests.integration.consuming.conftest import AT_ONCE, PARTITIONS, Group, sample, told
from tests.integration.projections.story import Story
from workers.consuming import Consumer
from workers.membership import Fenced, Limits, Membership
from workers.pacing import Pace

pytestmark = [
    pytest.mark.database,
    # A client that is closed while it connects leaves that socket to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket"),
]

GroupOf = Callable[[Story], Group]


def owned(worker: Consumer) -> set[int]:
    return set(worker.positions)


def shared(*workers: Consumer) -> bool:
    """Whether every partition is somebody's, nobody is without, and none is anybody else's."""
    owners = [partition for worker in workers for partition in owned(worker)]
    return sorted(owners) == list(range(PARTITIONS)) and all(map(owned, workers))


def put_out(group: Group, worker: Consumer, instance: str) -> None:
    """What happens when the session of a worker that is gone has expired."""
    group.kill(worker)
    with KafkaAdminClient(bootstrap_servers=group.settings.kafka_bootstrap) as admin:
        admin.remove_group_members(worker.group, [MemberToRemove(group_instance_id=instance)])


def test_partitions_are_shared_and_handed_on(group_of: GroupOf) -> None:
    group = group_of(told(11, 150))
    records = group.relay.records()
    one = group.worker("one")
    group.relay.send(records[:50])
    group.until(lambda: len(owned(one)) == PARTITIONS, one)
    two = group.worker("two")
    group.until(lambda: shared(one, two), one, two)
    group.relay.send(records[50:100])
    for _ in range(5):
        one.step()
        two.step()
    put_out(group, one, "one")
    group.relay.send(records[100:])
    group.relay.send(group.relay.watermarks(len(records)))
    group.carry(two)
    assert len(owned(two)) == PARTITIONS
    group.check()


def test_a_worker_that_starts_again_has_its_partitions_at_once(group_of: GroupOf) -> None:
    group = group_of(told(12, 60))
    one, two = group.worker("one"), group.worker("two")
    group.until(lambda: shared(one, two), one, two)
    kept, others = owned(one), owned(two)
    one.close()
    again = group.worker("one")
    group.until(lambda: owned(again) == kept, again)  # the other one is not even asked
    assert owned(two) == others
    group.relay.send_all()
    group.carry(again, two)
    group.check()


def test_partitions_that_were_given_up_but_not_handed_on_are_shared_out_anew(
    group_of: GroupOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gave them up was killed before it joined again, and comes back under its name. It is
    enough that one notices who does not lead the group."""
    group = group_of(told(17, 60))
    now = 0.0
    one = group.worker("one")
    group.until(lambda: len(owned(one)) == PARTITIONS, one)
    coordinator = one._member._consumer._coordinator  # type: ignore[union-attr]
    joins = 0

    def request_rejoin() -> None:
        nonlocal joins
        joins += 1
        if joins == 1:  # to take part; the second time it would hand on what it gave up
            type(coordinator).request_rejoin(coordinator)

    monkeypatch.setattr(coordinator, "request_rejoin", request_rejoin)
    two = group.worker("two", patience=replace(AT_ONCE, stall=30.0), clock=lambda: now)
    group.until(lambda: 0 < len(owned(one)) < PARTITIONS, one, two)
    kept = owned(one)
    group.kill(one)
    again = group.worker("one")
    group.until(lambda: owned(again) == kept, again, two)
    group.relay.send_all()

    def settled() -> set[int]:
        for each in (again, two):
            each.step()
        return two._member.unassigned()  # type: ignore[union-attr]

    assert settled() == set(range(PARTITIONS)) - kept
    for _ in range(30):
        assert settled() == set(range(PARTITIONS)) - kept
        assert not owned(two)
    for _ in range(5):
        now += 10.0
        again.step()
        two.step()
    group.until(lambda: shared(again, two), again, two)
    group.carry(again, two)
    assert not settled()
    group.check()


def test_killed_between_batches_nothing_is_counted_twice(
    group_of: GroupOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Membership, "commit", lambda *_: None)
    group = group_of(told(13, 80))
    group.relay.send_all()
    batches = 0
    while not group.complete():
        worker = group.worker()
        worker._pace = Pace(1.0, most=7)
        done = worker._projector.counters
        group.until(lambda done=done: done.batches >= 2 or group.complete(), worker)  # type: ignore[misc]
        batches += done.batches
        group.kill(worker)
    assert batches > 2
    group.check()


def test_killed_in_a_batch_nothing_is_lost(
    group_of: GroupOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    point = ""

    def reach(name: str) -> None:
        if name == point and worker._projector.counters.batches > 0:
            raise Killed

    monkeypatch.setattr("projections.projector.reach", reach)
    group = group_of(told(14, 60))
    group.relay.send_all()
    for name in ("project.in_batch", "project.before_commit", "project.after_commit"):
        point = name
        worker = group.worker()
        worker._pace = Pace(1.0, most=5)
        before = sum(group.positions().values())
        with pytest.raises(Killed):
            group.carry(worker)
        assert sum(group.positions().values()) >= before
        group.kill(worker)
    point = ""
    group.carry(group.worker())
    group.check()


def test_a_second_process_of_the_same_name_ends_the_first(group_of: GroupOf) -> None:
    group = group_of(told(15, 40))
    first, second = group.worker("same"), group.worker("same")
    group.until(lambda: len(owned(first)) == PARTITIONS, first)
    group.until(lambda: len(owned(second)) == PARTITIONS, second)
    with pytest.raises(Fenced, match=r"CRM_INSTANCE"):
        group.until(lambda: False, first)
    group.relay.send_all()
    group.carry(second)
    group.check()


def test_a_late_owner_loses_its_batch_and_goes_on(group_of: GroupOf) -> None:
    group = group_of(told(16, 60))
    records = group.relay.records()
    worker = group.worker()
    group.relay.send(records[:20])
    group.until(lambda: max(group.positions().values(), default=0) == 20, worker)
    other = group.models.projector(FunnelProjection(), group.story, partitions=PARTITIONS)
    assert other.step(10) > 0  # another process applies the same events from the log
    group.relay.send(records[20:])
    group.relay.send(group.relay.watermarks(len(records)))
    group.carry(worker)
    group.check()
    late = sample(worker._metrics, "projection_late_owner_total", projection="funnel")
    assert late == 1


def test_postgresql_away_costs_no_membership(
    group_of: GroupOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = group_of(told(17, 40))
    worker = group.worker()
    group.until(lambda: len(owned(worker)) == PARTITIONS, worker)
    assert worker._member is not None
    consumer = worker._member._consumer
    before = consumer.group_metadata()
    answers = ["refused"] * 4
    apply, own = worker._projector.apply, worker._projector.own

    def away(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            if answers:
                answers.pop()
                raise psycopg2.OperationalError("the database system is shutting down")
            return real(*given)

        return call

    monkeypatch.setattr(worker._projector, "apply", away(apply))
    monkeypatch.setattr(worker._projector, "own", away(own))
    group.relay.send_all()
    group.carry(worker)
    assert answers == []
    after = worker._member._consumer.group_metadata()
    assert (after.member_id, after.generation_id) == (before.member_id, before.generation_id)
    group.check()


def test_a_batch_slower_than_the_poll_deadline_keeps_the_membership_and_moves(
    group_of: GroupOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = group_of(told(18, 40))
    now = [0.0]
    worker = group.worker(limits=Limits(poll_deadline=0.5, heartbeat=0.1), clock=lambda: now[0])
    group.until(lambda: len(owned(worker)) == PARTITIONS, worker)
    assert worker._member is not None
    member = worker._member
    before = member._consumer.group_metadata()
    stays, paces, enough = [0], [], threading.Event()
    apply, stay = worker._projector.apply, Membership.stay

    def slow(*given: Any) -> None:
        paces.append(worker._pace.records)
        enough.wait()
        now[0] += 10 * len(given[0])
        apply(*given)

    def counted(self: Membership, seconds: float = 0.0) -> None:
        stay(self, seconds)
        stays[0] += 1
        if stays[0] >= 15:  # each after a tenth of the deadline at least
            enough.set()

    monkeypatch.setattr(worker._projector, "apply", slow)
    monkeypatch.setattr(Membership, "stay", counted)
    group.relay.send_all()
    group.carry(worker)
    assert stays[0] >= 15
    assert 1 in paces
    assert worker._member is member
    after = member._consumer.group_metadata()
    assert (after.member_id, after.generation_id) == (before.member_id, before.generation_id)
    group.check()


def test_a_rebalance_that_no_poll_waits_for_is_taken_up_later(group_of: GroupOf) -> None:
    group = group_of(told(19, 40))
    worker = group.worker()
    group.until(lambda: len(owned(worker)) == PARTITIONS, worker)
    assert worker._member is not None
    consumer = worker._member._consumer
    generation = consumer.group_metadata().generation_id
    coordinator = consumer._coordinator
    coordinator._assignment_snapshot = {}  # as if the topic's partitions were news
    for _ in range(2_000):
        worker._member.poll(0.001, 1)
        metadata = consumer.group_metadata()
        if metadata.generation_id > generation and metadata.state is MemberState.STABLE:
            break
    else:
        pytest.fail("the worker is not a member any more")
    worker._settled = False  # what these polls delivered was not looked at
    group.relay.send_all()
    group.carry(worker)
    group.check()


def test_a_stalled_partition_gets_a_new_consumer(
    group_of: GroupOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = group_of(told(20, 40))
    now = [0.0]
    patience = replace(AT_ONCE, stall=30.0)
    worker = group.worker(patience=patience, clock=lambda: now[0])
    group.until(lambda: len(owned(worker)) == PARTITIONS, worker)
    stalled = worker._member
    assert stalled is not None
    consumer = stalled._consumer
    for place in consumer.assignment():
        consumer.pause(place)  # a client that does not fetch any more
    group.relay.send_all()
    for _ in range(4):
        now[0] += patience.stall / 3
        worker.step()
        assert group.positions() == dict.fromkeys(range(PARTITIONS), 0)
    group.until(lambda: worker._member is not stalled, worker)
    group.carry(worker)
    group.until(
        lambda: all(
            sample(worker._metrics, "projection_stalled", projection="funnel", partition=str(p))
            in (None, 0)
            for p in range(PARTITIONS)
        ),
        worker,
    )
    group.check()


class _Next(FunnelProjection):
    version = FunnelProjection.version + 1


def test_tables_of_an_earlier_version_are_rebuilt_by_one_worker_and_the_old_ones_end(
    group_of: GroupOf,
) -> None:
    group = group_of(told(21, 60))
    group.relay.send_all()
    former = group.worker("former")
    group.carry(former)
    one, two = group.worker("one", _Next()), group.worker("two", _Next())
    with pytest.raises(NewerProgram):
        group.until(lambda: False, one, two, former)
    assert group.rebuilds >= 1
    assert group.models.run("SELECT DISTINCT projection FROM position") == [(_Next().id,)]
    put_out(group, former, "former")
    for name in ("a", "b", "c"):
        group.story.customer(f"new {name}")
    group.relay.send(group.relay.records()[-3:])
    group.relay.send(group.relay.watermarks(len(group.story.events)))
    group.carry(one, two)


def test_the_group_is_told_how_far_the_partitions_are_applied(group_of: GroupOf) -> None:
    group = group_of(told(22, 60))
    group.relay.send_all()
    worker = group.worker()
    group.carry(worker)
    topic = group.settings.kafka_topic

    def lags() -> list[float | None]:
        named = {"consumergroup": worker.group, "topic": topic}
        return [
            sample(worker._metrics, "kafka_consumergroup_lag", **named, partition=str(p))
            for p in range(PARTITIONS)
        ]

    group.until(lambda: lags() == [0, 0, 0], worker)
    group.until(lambda: worker._committed == worker._sieve.offsets, worker)
    worker.close()
    with KafkaAdminClient(bootstrap_servers=group.settings.kafka_bootstrap) as admin:
        told_of = admin.list_group_offsets(worker.group)
    offsets = {place.partition: found.offset for place, found in told_of[worker.group].items()}
    assert offsets == group.offsets()
