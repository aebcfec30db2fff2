"""Holes that the topic itself fills, though not where reading goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from infra.eventstore.feed import partition_of
from infra.kafka import Record
from projections.funnel import FunnelProjection
from projections.projector import Projector
from tests.integration.consuming.conftest import AT_ONCE, PARTITIONS, Group, sample, told
from tests.integration.projections.story import Story
from workers.membership import Membership

pytestmark = [
    pytest.mark.database,
    # A client that is closed while it connects leaves that socket to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket"),
]

GroupOf = Callable[[Story], Group]
PATIENT = replace(AT_ONCE, hole=10.0)


def test_a_partition_that_is_read_again_is_so_to_the_end_whatever_comes_between(
    group_of: GroupOf,
) -> None:
    group = group_of(told(21, 90))
    records = group.relay.records()
    partition = records[-1][0]
    mine = [n for n, (owner, _) in enumerate(records) if owner == partition]
    one, after = list(pairwise(mine))[len(mine) // 2]
    # What a late relay sent lies before the event that it rests on, and is not sent again.
    records[one], records[after] = records[after], records[one]
    group.relay.send(records)
    group.relay.send(group.relay.watermarks(len(group.story.events)))
    now = [0.0]
    worker = group.worker(patience=PATIENT, clock=lambda: now[0])
    group.until(lambda: group.positions()[partition] == one + 1, worker)
    group.until(lambda: partition in worker._sieve.holes, worker)
    worker.step()
    now[0] = PATIENT.hole
    group.until(lambda: partition in worker._rewound, worker)
    worker._settled = False  # as after an error, or when partitions come and go
    group.carry(worker)
    group.check()


def test_what_another_owner_writes_while_partitions_are_taken_over_opens_no_hole(
    group_of: GroupOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = group_of(told(22, 90))
    group.relay.send_all()
    worker = group.worker(patience=PATIENT)
    former = group.models.projector(FunnelProjection(), group.story, partitions=PARTITIONS)
    former.own(range(PARTITIONS))
    first = group.story.events[:45]
    mine = [partition_of(event.partition_key, PARTITIONS) for event in first]
    own = Projector.own

    def then_the_former_owner_writes(self: Projector, partitions: Collection[int]) -> object:
        found = own(self, partitions)
        if partitions:
            monkeypatch.setattr(Projector, "own", own)
            assert worker._member is not None
            read = {p: (worker._member.topic_id, mine.count(p)) for p in range(PARTITIONS)}
            reached = {p: event.position for p, event in zip(mine, first, strict=True)}
            former.apply(first, reached, read)
        return found

    monkeypatch.setattr(Projector, "own", then_the_former_owner_writes)

    def complete() -> bool:
        assert not worker._sieve.holes
        return group.complete()

    group.until(complete, worker)
    assert Projector.own is own
    group.check()


def test_a_hole_that_goes_to_another_worker_is_not_told_to_be_filled(
    group_of: GroupOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = group_of(told(23, 60))
    records = group.relay.records()
    partition = records[-1][0]
    group.relay.send(record for n, record in enumerate(records) if n not in of(records, partition))
    now = [0.0]
    worker = group.worker(patience=PATIENT, clock=lambda: now[0])
    group.until(lambda: partition in worker._sieve.holes, worker)
    worker.step()
    now[0] = PATIENT.hole
    group.until(lambda: partition in worker._rewound, worker)
    assigned = Membership.assigned
    monkeypatch.setattr(Membership, "assigned", lambda self: assigned(self) - {partition})
    worker._settled = False
    group.until(lambda: partition not in worker.positions, worker)
    with capture_logs() as told_of:
        for _ in range(3):
            worker.step()
    assert [line for line in told_of if line["event"] == "hole filled"] == []
    named = {"projection": "funnel", "partition": str(partition)}
    assert sample(worker._metrics, "projection_hole", **named) is None


def of(records: list[tuple[int, Record]], partition: int) -> list[int]:
    """Some of the partition's records, not the last ones."""
    mine = [n for n, (owner, _) in enumerate(records) if owner == partition]
    return mine[len(mine) // 2 : len(mine) // 2 + 2]


def test_a_record_that_no_relay_wrote_stands_for_no_event(group_of: GroupOf) -> None:
    """It has an event's position, but what else it says makes no sense."""
    group = group_of(told(24, 60))
    records = group.relay.records()
    wanted = FunnelProjection().topics
    n = next(n for n, event in enumerate(group.story.events) if n > 20 and event.topic in wanted)
    partition, record = records[n]
    headers = [(name, b"now" if name == "ce_time" else value) for name, value in record.headers]
    group.relay.send([*records[:n], (partition, record._replace(headers=headers))])
    group.relay.send(records[n + 1 :])
    group.relay.send(group.relay.watermarks(len(records)))
    worker = group.worker(patience=PATIENT)
    others = set(range(PARTITIONS)) - {partition}
    group.until(lambda: all(group.positions()[p] == len(records) for p in others), worker)
    group.until(lambda: partition in worker._sieve.holes, worker)
    assert group.positions()[partition] <= n
    group.relay.send(records[n:])
    group.relay.send(group.relay.watermarks(len(records)))
    group.carry(worker)
    group.check()
