"""Workers of a projection on a real Kafka, stepped by hand, and a relay as faulty as is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from domain.opportunity import Opportunity
from domain.values import Personal
from infra.eventstore.feed import Recorded, Undecodable, partition_of
from infra.eventstore.transcoder import event_codec
from infra.kafka import Outgoing, Record, ensure_topic, event_record, make_producer
from infra.kafka import watermark_record as watermark
from infra.metrics import WorkerMetrics
from infra.settings import Settings
from projections.funnel import FunnelProjection
from projections.projection import Projection
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import Story
from tests.integration.projections.strategies import random_story
from workers.consuming import Consumer, Patience
from workers.membership import Limits

pytestmark = pytest.mark.database

PARTITIONS = 3
AT_ONCE = Patience(
    poll=0.02, hole=0.0, look=0.0, commit=0.0, unchanged=0.0, stall=1_000.0, rest=0.05
)
"""Nothing is waited for, so that each step does all there is to do."""
LIVELY = Limits(heartbeat=0.1)
"""Rebalances are heard of at once."""


def row(event: Recorded) -> Outgoing:
    """The event as a row of the log, as the relay reads it."""
    body = event.event
    if isinstance(body, Undecodable):
        state, class_version = body.state, body.class_version
    else:
        codec = event_codec(type(body))
        state, class_version = codec.encode(vars(body)), codec.version
    return Outgoing(
        event.position,
        str(event.stream_id),
        event.version,
        event.topic,
        str(event.partition_key),
        event.occurred_at.isoformat(" ").removesuffix(":00"),
        event.recorded_at.isoformat(" ").removesuffix(":00"),
        int(event.recorded_at.timestamp() * 1000),
        event.actor,
        str(event.command_id),
        str(event.correlation_id),
        None if event.causation_id is None else str(event.causation_id),
        event.reason,
        event.traceparent,
        class_version,
        state,
    )


class Relay:
    """Writes a story into a topic: what it is told to, in whatever order."""

    def __init__(self, settings: Settings, story: Story) -> None:
        self.settings = settings
        self.story = story
        ensure_topic(settings)
        self._producer: KafkaProducer = make_producer(settings)

    def records(self, epoch: UUID | None = None) -> list[tuple[int, Record]]:
        """The partition and record of each event of the story, in order of position."""
        previous = [0] * self.settings.partitions
        of_epoch = str(epoch or self.story.epoch).encode()
        made = []
        for event in self.story.events:
            partition = partition_of(event.partition_key, self.settings.partitions)
            made.append((partition, event_record(row(event), previous[partition], of_epoch)))
            previous[partition] = event.position
        return made

    def watermarks(self, position: int) -> list[tuple[int, Record]]:
        """A watermark for each partition: all events up to `position` were sent."""
        previous = [0] * self.settings.partitions
        for event in self.story.events[:position]:
            previous[partition_of(event.partition_key, self.settings.partitions)] = event.position
        epoch, at = str(self.story.epoch).encode(), datetime(2026, 1, 1, tzinfo=UTC)
        return [(p, watermark(position, previous[p], p, epoch, at)) for p in range(len(previous))]

    def send(self, records: Iterable[tuple[int, Record]]) -> None:
        """They are in the topic when this returns."""
        sent = [
            self._producer.send(
                self.settings.kafka_topic,
                key=record.key,
                value=record.value,
                headers=record.headers,
                partition=partition,
                timestamp_ms=record.timestamp_ms,
            )
            for partition, record in records
        ]
        self._producer.flush(20)
        for one in sent:
            one.get(20)

    def send_all(self) -> None:
        """Every event once, in order, and that these are all."""
        self.send(self.records())
        self.send(self.watermarks(len(self.story.events)))

    def make_anew(self) -> None:
        """Deletes the topic and makes an empty one of the same name."""
        self._producer.close()
        with KafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap) as admin:
            admin.delete_topics([self.settings.kafka_topic])
        ensure_topic(self.settings)
        self._producer = make_producer(self.settings)

    def close(self) -> None:
        self._producer.close()


class Group:
    """Workers of one projection over a story, and what they and others make of it."""

    def __init__(self, models: Models, settings: Settings, story: Story) -> None:
        self.models = models
        self.settings = settings
        self.story = story
        self.relay = Relay(settings, story)
        self.rebuilds = 0
        self._workers: list[Consumer] = []

    def worker(
        self,
        instance: str = "one",
        projection: Projection | None = None,
        *,
        patience: Patience = AT_ONCE,
        limits: Limits | None = None,
        clock: Callable[[], float] | None = None,
        story: Story | None = None,
    ) -> Consumer:
        projection = projection or FunnelProjection()
        told = story or self.story

        def rebuild() -> None:
            self.rebuilds += 1
            self.models.rebuild(projection, told, partitions=self.settings.partitions).run()

        worker = Consumer(
            self.models.projector(projection, told, partitions=self.settings.partitions),
            self.settings,
            WorkerMetrics(),
            head=told.head,
            rebuild=rebuild,
            instance=instance,
            limits=limits or LIVELY,
            patience=patience,
            **({} if clock is None else {"clock": clock}),
        )
        self._workers.append(worker)
        return worker

    def until(self, met: Callable[[], bool], *workers: Consumer, rounds: int = 400) -> None:
        """Steps the workers in turn until the condition is met."""
        for _ in range(rounds):
            for worker in workers:
                worker.step()
            if met():
                return
        seen = [(w.positions, w._sieve.holes, w._sieve.offsets) for w in workers]
        raise AssertionError(f"not met: {self.positions()}, {len(self.story.events)}, {seen}")

    def carry(self, *workers: Consumer) -> None:
        """Steps the workers in turn until all of the story is applied."""
        self.until(lambda: self.complete(), *workers)

    def complete(self) -> bool:
        return set(self.positions().values()) == {len(self.story.events)}

    def positions(self) -> dict[int, int]:
        """As the database has them."""
        rows = self.models.run("SELECT partition, position FROM position")
        return dict(rows)

    def offsets(self) -> dict[int, int]:
        """Where reading goes on, as the database has it."""
        return dict(self.models.run("SELECT partition, next_offset FROM kafka_offset"))

    def tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of the projection."""
        return {table: self.models.rows(table) for table in FunnelProjection().tables()}

    def check(self) -> None:
        """The tables are those that the store feed fills from the same story, and every event was
        counted once."""
        found, account = self.tables(), self.models.account()
        result = self.models.rebuild(
            FunnelProjection(), self.story, partitions=self.settings.partitions
        ).run()
        assert [table.differing for table in result.compared if not table.same] == []
        assert result.compared
        assert self.tables() == found
        assert self.models.account() == account

    def kill(self, worker: Consumer) -> None:
        """Ends a worker as a crash does: nothing is told to anyone."""
        self._workers.remove(worker)
        member, worker._member = worker._member, None
        if member is not None:
            member._consumer._client.close()
        worker.close()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self.relay.close()


@pytest.fixture
def models(database_url: str, fresh_schemas: dict[str, str]) -> Iterator[Models]:
    models = Models(database_url, fresh_schemas)
    yield models
    models.close()


@pytest.fixture
def settings(broker: Any, topic: str) -> Settings:
    return Settings(kafka_bootstrap=broker.bootstrap, kafka_topic=topic, partitions=PARTITIONS)


@pytest.fixture
def group_of(models: Models, settings: Settings) -> Iterator[Callable[[Story], Group]]:
    """Makes the workers of a story."""
    groups: list[Group] = []

    def make(story: Story) -> Group:
        groups.append(Group(models, settings, story))
        return groups[-1]

    yield make
    for group in groups:
        group.close()


def told(seed: int, length: int) -> Story:
    """A random story as the log would hold it: texts about people are sealed."""
    story = random_story(seed, length)
    for one in story.events:
        if one.topic == Opportunity.Reviewed.TOPIC:
            token = f"1.{one.stream_id}.{one.stream_id}:{one.version}.summary.x"
            one.event.__dict__["summary"] = Personal(one.stream_id, None, token)
    return story


def repeated(records: Sequence[tuple[int, Record]], times: int) -> list[tuple[int, Record]]:
    return [record for record in records for _ in range(times)]


def sample(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    """What a metric says."""
    return metrics.registry.get_sample_value(name, labels)
