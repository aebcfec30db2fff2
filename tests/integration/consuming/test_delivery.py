"""Whatever Kafka delivers, the tables are those of the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from uuid import UUID

import pytest

from infra.kafka import Arrived, Record
from projections.funnel import FunnelProjection
from tests.integration.consuming.conftest import (
    AT_ONCE,
    PARTITIONS,
    Group,
    repeated,
    sample,
    told,
)
from tests.integration.projections.story import Story

pytestmark = [
    pytest.mark.database,
    # A client that is closed while it connects leaves that socket to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket"),
]

GroupOf = Callable[[Story], Group]
PATIENT = replace(AT_ONCE, hole=10.0)


def test_a_story_comes_through(group_of: GroupOf) -> None:
    group = group_of(told(1, 120))
    worker = group.worker()
    group.relay.send_all()
    group.carry(worker)
    assert worker.positions == dict.fromkeys(range(PARTITIONS), len(group.story.events))
    group.check()


def test_every_record_three_times(group_of: GroupOf) -> None:
    group = group_of(told(2, 100))
    group.relay.send(repeated(group.relay.records(), 3))
    group.relay.send(group.relay.records())  # and all of it once more, from the beginning
    group.relay.send(repeated(group.relay.watermarks(len(group.story.events)), 2))
    worker = group.worker()
    group.carry(worker)
    group.check()
    assert (sample(worker._metrics, "projection_duplicates_total", projection="funnel") or 0) > 200


@pytest.mark.parametrize("seed", range(3))
def test_partitions_in_any_interleaving_with_watermarks_between(
    group_of: GroupOf, seed: int
) -> None:
    group, random = group_of(told(seed, 60)), Random(seed)
    worker = group.worker()
    left: list[list[Record]] = [[] for _ in range(PARTITIONS)]
    for partition, record in group.relay.records():
        left[partition].append(record)
    marks = {p: group.relay.watermarks(p) for p in range(len(group.story.events) + 1)}
    while any(left):
        partition = random.choice([p for p in range(PARTITIONS) if left[p]])
        cut = random.randint(1, 8)
        sent, left[partition] = left[partition][:cut], left[partition][cut:]
        group.relay.send((partition, record) for record in sent)
        worker.step()
        if random.random() < 0.5:  # as far as this partition is complete
            reached = dict(sent[-1].headers)["ce_position"]
            group.relay.send([marks[int(reached)][partition]])
    group.relay.send(group.relay.watermarks(len(group.story.events)))
    group.carry(worker)
    group.check()


def lost(group: Group) -> tuple[int, int, int]:
    """Sends the story, but in one partition loses a stretch while what follows arrives. The
    partition, its last position before the stretch, and the last in it."""
    records = group.relay.records()
    partition = records[-1][0]
    mine = [n for n, (owner, _) in enumerate(records, start=1) if owner == partition]
    middle = len(mine) // 2
    missing = set(mine[middle : middle + 3])
    group.relay.send(
        record for position, record in enumerate(records, start=1) if position not in missing
    )
    group.relay.send(group.relay.watermarks(len(group.story.events)))
    return partition, mine[middle - 1], max(missing)


def others_done(group: Group, partition: int) -> bool:
    end = len(group.story.events)
    return all(at == end for p, at in group.positions().items() if p != partition)


def test_a_hole_is_waited_at_until_the_relay_sends_again(group_of: GroupOf) -> None:
    group = group_of(told(3, 90))
    partition, before, _ = lost(group)
    worker = group.worker(patience=PATIENT)
    group.until(lambda: others_done(group, partition), worker)
    group.until(lambda: partition in worker._sieve.holes, worker)
    assert group.positions()[partition] == before
    group.relay.send(group.relay.records()[before:])  # the relay begins again at its cursor
    group.relay.send(group.relay.watermarks(len(group.story.events)))
    group.carry(worker)
    group.check()


def test_a_hole_that_stays_is_told_of_and_never_jumped(group_of: GroupOf) -> None:
    group = group_of(told(4, 90))
    partition, before, last = lost(group)
    now = [0.0]
    worker = group.worker(patience=PATIENT, clock=lambda: now[0])
    group.until(lambda: partition in worker._sieve.holes, worker)
    named = {"projection": "funnel", "partition": str(partition)}
    worker.step()
    assert sample(worker._metrics, "projection_hole", **named) is None
    now[0] = PATIENT.hole
    worker.step()
    assert sample(worker._metrics, "projection_hole", **named) == 1
    assert worker._rewound == {partition: before}
    duplicates = sample(worker._metrics, "projection_duplicates_total", projection="funnel")
    group.until(  # it reads all from the beginning, once
        lambda: (
            sample(worker._metrics, "projection_duplicates_total", projection="funnel")
            != duplicates
        ),
        worker,
    )
    now[0] = 3 * PATIENT.hole
    for _ in range(5):
        worker.step()
    assert group.positions()[partition] == before
    group.relay.send([r for n, r in enumerate(group.relay.records(), 1) if before < n <= last])
    group.until(lambda: group.positions()[partition] == last, worker)
    worker.step()
    assert sample(worker._metrics, "projection_hole", **named) == 0
    group.relay.send(group.relay.records()[last:])
    group.relay.send(group.relay.watermarks(len(group.story.events)))
    group.carry(worker)
    group.check()


def test_what_lies_before_the_offset_it_began_at_is_found_again(group_of: GroupOf) -> None:
    """Offsets are a hint only: one that is too far shows as a hole."""
    group = group_of(told(5, 60))
    group.relay.send_all()
    first = group.worker("first")
    group.carry(first)
    group.models.run("UPDATE position SET position = 0")
    for table in (*FunnelProjection().tables(), "applied"):
        group.models.run(f"DELETE FROM {table}")
    group.kill(first)
    ends = group.offsets()
    group.models.run("UPDATE kafka_offset SET next_offset = next_offset - 1")  # at the watermark
    group.carry(group.worker("first"))
    assert group.offsets() == ends
    group.check()


def test_an_event_that_no_fold_wants_is_not_even_decoded(
    group_of: GroupOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = group_of(told(6, 80))
    decoded = []

    def recorded(self: Arrived) -> object:
        decoded.append(self.topic)
        return original(self)

    original = Arrived.recorded
    monkeypatch.setattr(Arrived, "recorded", recorded)
    group.relay.send_all()
    group.carry(group.worker())
    wanted = FunnelProjection().topics
    assert sorted(decoded) == sorted(e.topic for e in group.story.events if e.topic in wanted)
    assert len(decoded) < len(group.story.events)


def test_records_of_a_former_log_are_passed_over(group_of: GroupOf) -> None:
    group = group_of(told(7, 60))
    group.relay.send(group.relay.records(epoch=UUID(int=13)))
    group.relay.send_all()
    worker = group.worker()
    group.carry(worker)
    group.check()
    foreign = sample(worker._metrics, "projection_other_epoch_total", projection="funnel")
    assert (foreign or 0) >= len(group.story.events)


def test_records_that_no_relay_wrote_are_passed_over(group_of: GroupOf) -> None:
    group = group_of(told(8, 60))
    strange = Record(b"k", b"not ours", [("ce_position", b"many")], 0)
    group.relay.send((partition, strange) for partition in range(PARTITIONS))
    group.relay.send_all()
    group.carry(group.worker())
    group.check()


def test_poison_holds_back_its_key_and_the_rest_flows(group_of: GroupOf) -> None:
    story = told(9, 80)
    group = group_of(story)
    records = group.relay.records()
    victim = next(
        n for n, event in enumerate(story.events) if event.topic == "crm.opportunity.stage-advanced"
    )
    partition, record = records[victim]
    records[victim] = (partition, record._replace(value=b'{"poison": true}'))
    group.relay.send(records)
    group.relay.send(group.relay.watermarks(len(story.events)))
    worker = group.worker()
    group.carry(worker)
    [parked] = worker._projector.parked_keys()
    assert (parked.key, parked.position) == (story.events[victim].stream_id, victim + 1)
    group.until(lambda: sample(worker._metrics, "parked_total", projection="funnel") == 1, worker)
