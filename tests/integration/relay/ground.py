"""A log, a topic and relays between them, stepped by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID, uuid4, uuid5

from kafka.admin import KafkaAdminClient

from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import partition_of
from infra.eventstore.outbox import Cursor, Outbox
from infra.kafka import Arrived, Topic, TopicState, arrived, read_range
from infra.metrics import WorkerMetrics
from infra.postgres import Pool, connect
from infra.settings import Settings
from workers.relay import Relay

PARTITIONS = 3
SPACE = UUID("00000000-0000-4000-8000-000000000000")


def key(partition: int, number: int = 0) -> UUID:
    """A key of that partition."""
    every = (uuid5(SPACE, str(n)) for n in range(10_000))
    return [one for one in every if partition_of(one, PARTITIONS) == partition][number]


class Clock:
    """Passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Ground:
    """What a test of the relay stands on."""

    def __init__(self, url: str, schema: str, bootstrap: str, topic: str, stack: ExitStack) -> None:
        self.url = url
        self.schema = schema
        self.settings = Settings(  # type: ignore[call-arg]
            kafka_bootstrap=bootstrap, kafka_topic=topic, partitions=PARTITIONS, lease_seconds=60
        )
        self.clock = Clock()
        self._stack = stack
        self._owner = connect(url, search_path=[schema], autocommit=True)
        stack.callback(self._owner.close)

    def sql(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._owner.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def append(self, *partitions: int, body: bytes = b"{}", at: str = "2026-01-31T09:00Z") -> None:
        """Record an event of a new stream for each of these partitions, as one command would."""
        command = uuid4()
        for partition in partitions:
            self.sql(
                "WITH head AS (UPDATE head SET position = position + 1 RETURNING position)"
                " INSERT INTO events SELECT position, %s, 1, 'test.happened', 1, %s, %s,"
                " clock_timestamp(), 'tester', %s, %s, NULL, 'why', %s FROM head",
                [uuid4(), key(partition), at, command, command, body],
            )

    def end(self) -> int:
        position: int = self.sql("SELECT position FROM head")[0][0]
        return position

    def pool(self, role: str = "crm_relay") -> Pool:
        pool = Pool(
            self.url, size=2, role=role, search_path=[self.schema], autocommit=True, timeout=5
        )
        self._stack.callback(pool.close)
        return pool

    def outbox(self, holder: str | None = None) -> Outbox:
        return Outbox(self.pool(), holder or uuid4().hex, self.settings.lease_seconds)

    def relay(
        self,
        *,
        outbox: Outbox | None = None,
        producer: Callable[[], Any] | None = None,
        settings: Settings | None = None,
        metrics: WorkerMetrics | None = None,
    ) -> Relay:
        """A process of its own, as far as the others can tell; ended with the test."""
        silent = Doorbell()
        silent.stop()  # nobody waits for it
        relay = Relay(
            settings or self.settings,
            outbox or self.outbox(),
            silent,
            metrics or WorkerMetrics(),
            stopped=threading.Event(),
            producer=producer,
            clock=self.clock,
        )
        self._stack.callback(relay.close)
        return relay

    def carry(self, relay: Relay) -> None:
        """Step until all is acknowledged and saved, watermarks included."""
        for _ in range(200):
            self.clock.now += 1
            relay.step()
            cursor, state = self.cursor(), self.state()
            if (
                cursor is not None
                and state is not None
                and (cursor.position, cursor.offsets) == (self.end(), state.ends)
                and cursor.topic_id == state.topic_id
            ):
                return
            relay.idle()
        raise AssertionError(f"not all was carried: {self.cursor()} of {self.end()}")

    def cursor(self) -> Cursor | None:
        return Outbox(self._reading(), "", 1).cursor()

    def _reading(self) -> Pool:
        if not hasattr(self, "_reader"):
            self._reader = self.pool()
        return self._reader

    def holder_died(self) -> None:
        """Time passes without a sign of the holder of the lease."""
        self.sql("UPDATE relay SET expires_at = clock_timestamp()")

    def state(self) -> TopicState | None:
        return self._topic().state()

    def _topic(self) -> Topic:
        if not hasattr(self, "_looking"):
            self._looking = self._stack.enter_context(Topic(self.settings))
        return self._looking

    def records(self, settings: Settings | None = None) -> dict[int, list[Arrived]]:
        """All that is in the topic, by partition."""
        state = self.state()
        assert state is not None
        ranges = {n: (begin, state.ends[n]) for n, begin in enumerate(state.begins)}
        found = read_range(settings or self.settings, ranges)
        return {partition: [arrived(one) for one in found[partition]] for partition in found}

    def events(self) -> dict[int, list[int]]:
        """Positions of the event records, by partition, in the order of the topic."""
        return {
            partition: [one.position for one in records if not one.watermark]
            for partition, records in self.records().items()
        }

    def applied(self) -> dict[int, list[int]]:
        """What a reader that keeps to the rule takes in, by partition."""
        taken: dict[int, list[int]] = {}
        for partition, records in self.records().items():
            position = 0
            taken[partition] = []
            for one in records:
                if one.previous <= position < one.position:
                    position = one.position
                    if not one.watermark:
                        taken[partition].append(position)
        return taken

    def in_log(self) -> dict[int, list[int]]:
        """What it should have taken in."""
        found: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS)}
        for position, one in self.sql("SELECT position, partition_key FROM events ORDER BY 1"):
            found[partition_of(one, PARTITIONS)].append(position)
        return found

    def delete_topic(self) -> None:
        with KafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap) as admin:
            admin.delete_topics([self.settings.kafka_topic])


@contextmanager
def ground(url: str, schema: str, bootstrap: str, topic: str) -> Iterator[Ground]:
    with ExitStack() as stack:
        yield Ground(url, schema, bootstrap, topic, stack)
