"""Bringing events to a projector as a broker does."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from infra.eventstore.feed import Recorded, partition_of
from projections.projector import Projector
from tests.integration.projections.story import Story


def deliver(
    projector: Projector, story: Story, partitions: int, owned: Sequence[int], random: Random
) -> None:
    """The whole story for the owned partitions: each at its own pace, cut anywhere, mixed with
    the others in any way, and now and then from its beginning once more."""
    queues = {partition: of_partition(story, partition, partitions) for partition in owned}
    positions = projector.own(owned)
    end = len(story.events)
    while owned and min(positions.values()) < end:
        arrived: dict[int, list[Recorded]] = {}
        reached: dict[int, int] = {}
        for partition in random.sample(list(owned), random.randint(1, len(owned))):
            again = random.random() < 0.2
            behind = 0 if again else positions[partition]
            left = [event for event in queues[partition] if event.position > behind]
            taken = left[: random.randint(0, 40)]
            arrived[partition] = taken
            if len(taken) == len(left):
                reached[partition] = end  # by a watermark
            else:
                reached[partition] = taken[-1].position if taken else behind
        projector.apply(interleaved(arrived, random), reached)
        for partition, position in reached.items():
            positions[partition] = max(positions[partition], position)


def of_partition(story: Story, partition: int, partitions: int) -> list[Recorded]:
    """The events of one partition."""
    return [e for e in story.events if partition_of(e.partition_key, partitions) == partition]


def interleaved(queues: dict[int, list[Recorded]], random: Random) -> list[Recorded]:
    """All events, those of each queue in its order."""
    turns = [number for number, queue in queues.items() for _ in queue]
    random.shuffle(turns)
    iterators = {number: iter(queue) for number, queue in queues.items()}
    return [next(iterators[number]) for number in turns]
