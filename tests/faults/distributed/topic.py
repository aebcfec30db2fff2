"""What is in the topic, as a reader of all of it finds it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from kafka import TopicPartition

from infra.eventstore.feed import partition_of
from infra.kafka import Arrived, arrived, make_consumer
from tests.faults.distributed.deployment import Deployment

PATIENCE = 60.0


def read_topic(deployment: Deployment) -> dict[int, list[Arrived]]:
    """All records, by partition, in order of offsets."""
    settings = deployment.settings
    consumer = make_consumer(settings)
    try:
        places = [TopicPartition(settings.kafka_topic, p) for p in range(settings.partitions)]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        found: dict[int, list[Arrived]] = {place.partition: [] for place in places}
        deadline = time.monotonic() + PATIENCE
        while any(consumer.position(place) < ends[place] for place in places):
            assert time.monotonic() < deadline, "the topic could not be read in time"
            for place, records in consumer.poll(timeout_ms=500).items():
                found[place.partition] += map(arrived, records)
        return found
    finally:
        consumer.close()


def check_topic(deployment: Deployment, *, in_order: bool = True) -> int:
    """By the rule of the reader, the topic holds each event of the log once, in order, with
    nothing left out. `in_order`: besides, no event appears before one that precedes it in its
    partition. How many records are repetitions.
    """
    end = deployment.end()
    expected: dict[int, list[int]] = defaultdict(list)
    partitions = deployment.settings.partitions
    for position, key in deployment.database.query(
        "SELECT position, partition_key FROM log.events ORDER BY position"
    ):
        expected[partition_of(UUID(str(key)), partitions)].append(position)
    epoch = deployment.database.value("SELECT store_epoch FROM log.head")
    repetitions = 0
    for partition, records in read_topic(deployment).items():
        own = [record for record in records if record.epoch == epoch]
        events = [record for record in own if not record.watermark]
        applied = _applied(own)
        wanted = [position for position in expected[partition] if position <= end]
        assert applied[: len(wanted)] == wanted, f"partition {partition}: holes or another order"
        repetitions += len(events) - len({record.position for record in events})
        if in_order:
            firsts = list(dict.fromkeys(record.position for record in events))
            assert firsts == sorted(firsts), f"partition {partition}: another order"
    return repetitions


def _applied(records: Iterable[Arrived]) -> list[int]:
    """The positions that a reader comes by: a record that it has seen is dropped, and one whose
    preceding event it has not seen is not taken."""
    reached, found = 0, []
    for record in records:
        if record.previous <= reached < record.position:
            reached = record.position
            if not record.watermark:
                found.append(reached)
    return found
