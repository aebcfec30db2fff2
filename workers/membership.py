"""A worker's place in a consumer group: which partitions it is given, and their records.

How the client behaves, as far as it matters here: callbacks of a rebalance run on its own thread
while `poll` waits in ours, so they only take notes; between a `poll` and the next nothing of what
is assigned changes. A static member that was replaced goes on without an error until it commits an
offset. Offsets in the group are for those who watch lags: what is read next is told by the read
model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError
from kafka.structs import MemberState, OffsetAndMetadata

from infra.kafka import KafkaUnavailable, ensure_topic, make_consumer, speaking, unassigned
from infra.settings import Settings

_ANSWER_MS = 1_000
_CLOSE_MS = 2_000


class Fenced(RuntimeError):
    """Another process has taken this worker's place under the same name."""


class WrongPartitions(RuntimeError):
    """The topic has another number of partitions than the settings say."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds. `poll_deadline`: after so long without a poll a member is put out;
    `session`: after so long without a sign of life, so that its partitions go to others;
    `heartbeat`: between two of these signs, and so until it hears of a rebalance."""

    poll_deadline: float = 60.0
    session: float = 15.0
    heartbeat: float = 3.0
    partition_bytes: int = 1_048_576
    fetch_bytes: int = 4_194_304


class _Notes(ConsumerRebalanceListener):  # type: ignore[misc]
    """Told of rebalances on the client's thread."""

    def __init__(self) -> None:
        self.consumer: Any = None
        self.changed = True

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        # Nothing is fetched before it is known where to begin.
        self.consumer.pause(*assigned)
        self.changed = True

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.changed = True


def _mend_joining(coordinator: Any) -> None:
    """Keep the client from losing a join that ends while nobody polls (kafka-python 3.0.12).

    A poll that takes less time than a rebalance leaves the join under way. If it has ended before
    the next poll, the client joins anew, which begins another rebalance for everybody; members
    with work between their polls never come to an end. And if a change of the topic began it, the
    client forgets it altogether, and sends no heartbeat any more. So what has ended is taken up
    here, as the client does when it waits for it, and `Membership` asks for it in each poll.
    """
    join = coordinator.join_group_async

    async def join_group_async(timeout_ms: float | None = None) -> Any:
        task = coordinator._join_task
        ended = task is not None and task.is_done and task.succeeded()
        if not ended or coordinator.state is not MemberState.REBALANCING:
            return await join(timeout_ms=timeout_ms)
        coordinator._join_task = None
        with coordinator._lock:
            coordinator.rejoining = False
            coordinator.rejoin_needed = False
            coordinator.state = MemberState.STABLE
            coordinator._enable_heartbeat()
        generation = coordinator._generation
        await coordinator._on_join_complete_async(
            generation.generation_id, generation.member_id, generation.protocol, task.value
        )
        return True

    coordinator.join_group_async = join_group_async


class Membership:
    """A static member of a group that shares the topic's partitions cooperatively.

    Newly assigned partitions deliver nothing until `read_from` says where to begin. All methods
    raise `KafkaUnavailable`, after which this is to be closed, and `Fenced`.
    """

    def __init__(self, settings: Settings, group: str, instance: str, limits: Limits) -> None:
        """Raises `KafkaUnavailable` and `WrongPartitions`."""
        self.group = group
        self._settings = settings
        self._topic = settings.kafka_topic
        self._partitions = settings.partitions
        self._instance = instance
        state = ensure_topic(settings)
        self._demand(state.partitions)
        self.topic_id = state.topic_id
        """The topic whose offsets are meant. `look` notices that it was made anew."""
        self._notes = _Notes()
        self._consumer = make_consumer(
            settings,
            group=group,
            instance=instance,
            listener=self._notes,
            max_poll_interval_ms=int(limits.poll_deadline * 1000),
            session_timeout_ms=int(limits.session * 1000),
            heartbeat_interval_ms=int(limits.heartbeat * 1000),
            max_partition_fetch_bytes=limits.partition_bytes,
            fetch_max_bytes=limits.fetch_bytes,
            fetch_max_wait_ms=100,
        )
        self._notes.consumer = self._consumer
        _mend_joining(self._consumer._coordinator)
        self._still = False
        try:
            with self._speaking():
                # Whoever leads a group before it has heard of the topic assigns nothing at first.
                self._consumer.partitions_for_topic(self._topic)
        except BaseException:
            self.close()
            raise

    def _demand(self, partitions: int) -> None:
        if partitions != self._partitions:
            raise WrongPartitions(
                f"topic {self._topic} has {partitions} partitions and CRM_PARTITIONS is"
                f" {self._partitions}: they must be the same"
            )

    def rebalanced(self) -> bool:
        """Whether partitions came or went since `assigned` was asked."""
        return self._notes.changed

    def assigned(self) -> set[int]:
        """The partitions that are this member's now."""
        self._notes.changed = False
        return {one.partition for one in self._consumer.assignment()}

    def unassigned(self) -> set[int]:
        """The partitions that the group has given to nobody, once it is settled. Asks Kafka."""
        return unassigned(self._settings, self.group)

    def share_anew(self) -> None:
        """Have the group share out its partitions again, in the polls to come."""
        coordinator = self._consumer._coordinator
        for assignor in coordinator._assignors.values():
            assignor.salt = uuid4().bytes
        coordinator.request_rejoin()

    def poll(self, seconds: float, most: int) -> dict[int, list[Any]]:
        """Records by partition, each in order of offsets; at most `most` in all. Waits only while
        there are none."""
        with self._speaking():
            if self._still:
                self._still = False
                self._consumer.resume(*self._consumer.assignment())
            polled = self._polled(seconds, most)
        return {one.partition: records for one, records in polled.items()}

    def stay(self, seconds: float = 0.0) -> None:
        """Stay a member, and take part in rebalances, without being given records."""
        with self._speaking():
            self._still = True
            self._consumer.pause(*self._consumer.assignment())
            if self._polled(seconds, 1):
                self._notes.changed = True  # never seen: what was given would be lost

    def _polled(self, seconds: float, most: int) -> Any:
        coordinator = self._consumer._coordinator
        if coordinator.rejoining:
            coordinator.request_rejoin()  # see _mend_joining
        return self._consumer.poll(timeout_ms=int(seconds * 1000), max_records=most)

    def read_from(self, places: Mapping[int, int | None]) -> None:
        """Go on at these offsets, by partition; None: at the first that is kept. One that the
        topic does not have counts as None."""
        with self._speaking():
            for partition, offset in places.items():
                place = self._place(partition)
                if offset is None:
                    self._consumer.seek_to_beginning(place)
                else:
                    self._consumer.seek(place, offset)
                self._consumer.resume(place)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell the group, without waiting, how far the partitions are applied."""
        with self._speaking():
            self._consumer.commit_async(
                {self._place(p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
            )

    def look(self) -> bool:
        """Whether the topic is another than before, by what the client heard of it last.

        Raises `WrongPartitions`.
        """
        cluster = self._consumer._cluster  # the only place where the client keeps the topic's id
        found: UUID | None = cluster.topic_id(self._topic)
        partitions = cluster.partitions_for_topic(self._topic)
        cluster.request_update()
        if found is None or found.int == 0 or not partitions:
            return False  # deleted, or made just now
        self._demand(len(partitions))
        anew = found != self.topic_id
        self.topic_id = found
        return anew

    def ends(self) -> dict[int, int]:
        """By partition, the offset after the last record, as it came with what was fetched."""
        found = ((one.partition, self._consumer.highwater(one)) for one in self._places())
        return {partition: end for partition, end in found if end is not None}

    def offsets(self) -> dict[int, tuple[int | None, int]]:
        """By partition: the next offset to be read, None if that is not settled, and the end.

        Asks Kafka, which answers only after the fetch that is under way.
        """
        with self._speaking():
            places = self._places()
            if not places:
                return {}
            ends = self._consumer.end_offsets(places, timeout_ms=_ANSWER_MS)
            return {
                one.partition: (self._consumer.position(one, timeout_ms=_ANSWER_MS), ends[one])
                for one in places
            }

    def _places(self) -> list[TopicPartition]:
        return list(self._consumer.assignment())

    def close(self) -> None:
        """Stop reading. Others get the partitions only when the session has expired, so that a
        worker that starts again at once goes on with its own."""
        with suppress(KafkaError, OSError, RuntimeError):
            self._consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)

    def _place(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            with speaking():
                yield
        except KafkaUnavailable as error:
            if isinstance(error.__cause__, FencedInstanceIdError):
                raise Fenced(
                    f"another process runs as {self._instance} in the group {self.group}: give"
                    " each its own CRM_INSTANCE, or let one start them all (--workers)"
                ) from error
            raise
