"""What a sieve lets through of what a faulty transport delivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from workers.sieve import Hole, Sieve, Verdict

OURS, ANOTHER = UUID(int=1), UUID(int=2)
PARTITIONS = 3


@dataclass(frozen=True)
class Record:
    partition: int
    position: int
    previous: int
    epoch: UUID = OURS
    watermark: bool = False
    offset: int = 0


def event(position: int, previous: int = 0, epoch: UUID = OURS) -> Record:
    return Record(0, position, previous, epoch)


def sieve(position: int = 0) -> Sieve:
    return Sieve(OURS, {0: position})


# ---- one record ----


def test_the_next_record_is_applied_and_moves_the_position() -> None:
    judge = sieve(3)
    assert judge.take(event(7, previous=3)) is Verdict.APPLIED
    assert judge.positions == {0: 7}


def test_a_position_that_was_reached_is_a_duplicate() -> None:
    judge = sieve(7)
    assert judge.take(event(7, previous=3)) is Verdict.DUPLICATE
    assert judge.take(event(3)) is Verdict.DUPLICATE
    assert judge.positions == {0: 7}


def test_a_partition_beyond_the_previous_event_takes_the_next() -> None:
    """A watermark, or the store feed, has moved it on over positions of other partitions."""
    assert sieve(5).take(event(7, previous=3)) is Verdict.APPLIED


def test_a_missing_event_is_a_hole_that_stays_open_until_it_comes() -> None:
    judge = sieve(3)
    assert judge.take(event(9, previous=7)) is Verdict.HOLE
    assert judge.positions == {0: 3}
    assert judge.holes == {0: Hole(3, 7)}
    assert judge.take(event(7, previous=3)) is Verdict.APPLIED
    assert judge.holes == {}
    assert judge.take(event(9, previous=7)) is Verdict.APPLIED


def test_a_hole_that_is_filled_in_part_says_how_far() -> None:
    judge = sieve(3)
    judge.take(event(9, previous=7))
    assert judge.take(event(5, previous=3)) is Verdict.APPLIED
    assert judge.holes == {0: Hole(5, 7)}


def test_a_watermark_over_a_missing_event_is_a_hole() -> None:
    judge = sieve(3)
    assert judge.take(replace(event(20, previous=7), watermark=True)) is Verdict.HOLE
    assert judge.take(replace(event(20, previous=3), watermark=True)) is Verdict.APPLIED


def test_a_record_of_another_log_is_told_apart_whatever_its_position() -> None:
    judge = sieve(3)
    for position, previous in ((1, 0), (4, 3), (9, 8)):
        assert judge.take(event(position, previous, epoch=ANOTHER)) is Verdict.OTHER_EPOCH
    assert (judge.positions, judge.holes) == ({0: 3}, {})


def test_reading_goes_on_behind_what_was_dropped_but_not_behind_a_hole() -> None:
    judge = sieve(3)
    for offset, record in enumerate(
        (event(3), event(4, epoch=ANOTHER), event(9, previous=7), event(2), event(7, previous=3))
    ):
        judge.take(replace(record, offset=offset))
        assert judge.offsets == {0: (1, 2, 2, 2, 5)[offset]}


# ---- any delivery ----


def published(partitions: Sequence[int]) -> list[list[Record]]:
    """The records of a log whose events belong to `partitions`, by position: each event, and
    behind it a watermark on each partition."""
    last = [0] * PARTITIONS
    at: list[list[Record]] = []
    for position, partition in enumerate(partitions, start=1):
        records = [Record(partition, position, last[partition])]
        last[partition] = position
        records += [Record(p, position, last[p], watermark=True) for p in range(PARTITIONS)]
        at.append(records)
    return at


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[int], list[Record]]:
    """A log, and the topic that faulty relays made of it, all partitions in one list.

    Each relay goes through the log in order from a cursor that is at or before what the one before
    it was sure of; while it does, records are lost, repeated, or come late from a relay that was
    stopped. The last one gets everything through.
    """
    log = draw(st.lists(st.integers(0, PARTITIONS - 1), min_size=1, max_size=12))
    at = published(log)
    topic: list[Record] = []
    cursor = 0  # everything up to here is in the topic
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, cursor))
        lost_any = False
        for position in range(start, draw(st.integers(start, len(log)))):
            for record in at[position]:
                if record.watermark and draw(st.booleans()):
                    continue
                times = draw(st.integers(0, 3))
                topic += [record] * times
                lost_any = lost_any or (times == 0 and not record.watermark)
            if not lost_any:
                cursor = max(cursor, position + 1)
            if draw(st.booleans()) and topic:
                topic.append(draw(st.sampled_from(topic)))  # a stopped relay wakes up
            if draw(st.booleans()):
                topic.append(replace(at[position][0], epoch=ANOTHER))
    for position in range(draw(st.integers(0, cursor)), len(log)):
        for record in at[position]:
            if not record.watermark or draw(st.booleans()):
                topic += [record] * draw(st.integers(1, 3))
    return log, topic


def partitioned(topic: Sequence[Record]) -> list[list[Record]]:
    split: list[list[Record]] = [[] for _ in range(PARTITIONS)]
    for record in topic:
        mine = split[record.partition]
        mine.append(replace(record, offset=len(mine)))
    return split


@given(deliveries(), st.data())
def test_each_event_comes_through_once_and_in_order(
    delivery: tuple[list[int], list[Record]], data: st.DataObject
) -> None:
    """Whatever the interleaving of the partitions, and though the reader is killed between
    records, to go on from the positions and offsets it had kept by then."""
    log, topic = delivery
    split = partitioned(topic)
    judge = Sieve(OURS, dict.fromkeys(range(PARTITIONS), 0))
    next_offset = [0] * PARTITIONS
    through: list[list[int]] = [[] for _ in range(PARTITIONS)]
    restarts = 4
    while unread := [p for p in range(PARTITIONS) if next_offset[p] < len(split[p])]:
        partition = data.draw(st.sampled_from(unread))
        record = split[partition][next_offset[partition]]
        next_offset[partition] += 1
        before = judge.positions[partition]
        if judge.take(record) is Verdict.APPLIED:
            assert record.previous <= before < record.position
            if not record.watermark:
                through[partition].append(record.position)
        if restarts and data.draw(st.booleans()):
            restarts -= 1
            next_offset = [judge.offsets.get(p, 0) for p in range(PARTITIONS)]
            judge = Sieve(OURS, judge.positions)
            judge.offsets = dict(enumerate(next_offset))
    wanted: list[list[int]] = [[] for _ in range(PARTITIONS)]
    for position, partition in enumerate(log, start=1):
        wanted[partition].append(position)
    assert through == wanted
    assert judge.holes == {}


@given(deliveries(), st.integers(0, PARTITIONS - 1), st.integers(1, 12))
def test_nothing_comes_through_behind_an_event_that_never_arrives(
    delivery: tuple[list[int], list[Record]], partition: int, missing: int
) -> None:
    log, topic = delivery
    if missing > len(log) or log[missing - 1] != partition:
        return
    judge = Sieve(OURS, dict.fromkeys(range(PARTITIONS), 0))
    for record in topic:
        if record.watermark or record.position != missing:
            judge.take(record)
    assert judge.positions[partition] < missing
    later = [p for p, owner in enumerate(log, start=1) if owner == partition and p > missing]
    assert (partition in judge.holes) or not later
