"""What a worker process tells Prometheus, by the names that alerts and dashboards know."""

from __future__ import annotations

from threading import Lock, Thread
from typing import TypeVar
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

_GROUP = ("consumergroup", "topic", "partition")
_OF_PARTITION = ("projection", "partition")
_OF_PROJECTION = ("projection",)

M = TypeVar("M", Gauge, Counter)

# a series more for each counter, of no use to alerts and dashboards
disable_created_metrics()  # type: ignore[no-untyped-call]


class WorkerMetrics:
    """The metrics of one process. Every method may be called from any thread.

    Times are in seconds. Only what this process knows is exported: a metric without labels appears
    with the first call that sets it, a series with the first that names its labels. Counters of a
    projection start at 0 with the first call that names the projection.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        ProcessCollector(registry=self.registry)
        self._served: list[tuple[WSGIServer, Thread]] = []
        self._lock = Lock()
        self._exported: set[int] = set()
        self._projections: set[str] = set()

        self._heartbeat = self._gauge(
            "worker_heartbeat_timestamp_seconds",
            "When the worker's loop last went round, in Unix time.",
            ("worker",),
        )
        self._pending = self._gauge(
            "outbox_pending", "Events in the log that Kafka has not acknowledged."
        )
        self._oldest = self._gauge(
            "outbox_oldest_seconds", "Age of the oldest of them; 0 where there are none."
        )
        self._published = self._counter("relay_published_total", "Events acknowledged by Kafka.")
        self._relay_failures = self._counter(
            "relay_failures_total", "Failures to send, each followed by a new start at the cursor."
        )
        self._lease_held = self._gauge(
            "relay_lease_held", "1 where this process is the one that publishes, 0 on standby."
        )
        self._lease_epoch = self._gauge(
            "relay_lease_epoch", "Number of the relay's lease as this process last saw it."
        )
        self._position = self._gauge(
            "projection_position",
            "Position of the log up to which a partition's events are applied.",
            _OF_PARTITION,
        )
        self._lag_events = self._gauge(
            "projection_lag_events", "Events that wait to be applied.", _OF_PROJECTION
        )
        self._lag_seconds = self._gauge(
            "projection_lag_seconds",
            "Age of the oldest of them; 0 where none wait.",
            _OF_PROJECTION,
        )
        self._parked = self._gauge(
            "parked_total",
            "Keys whose events wait because one of them could not be applied.",
            _OF_PROJECTION,
        )
        self._duplicates = self._counter(
            "projection_duplicates_total",
            "Records dropped because their event is applied already.",
            _OF_PROJECTION,
        )
        self._other_epoch = self._counter(
            "projection_other_epoch_total",
            "Records refused because they are of another log.",
            _OF_PROJECTION,
        )
        self._hole = self._gauge(
            "projection_hole",
            "1 while a partition waits for an event before those that arrived.",
            _OF_PARTITION,
        )
        self._late_owner = self._counter(
            "projection_late_owner_total",
            "Writes given up because another worker had moved the partition.",
            _OF_PROJECTION,
        )
        self._stalled = self._gauge(
            "projection_stalled",
            "1 while an assigned partition does not move although events wait.",
            _OF_PARTITION,
        )
        self._incomplete = self._gauge(
            "projection_incomplete_ranges",
            "Ranges of positions where what was applied is not what the log holds.",
            _OF_PROJECTION,
        )
        self._group_lag = self._gauge(
            "kafka_consumergroup_lag", "Records between the group's offset and the end.", _GROUP
        )
        self._group_offset = self._gauge(
            "kafka_consumergroup_current_offset", "Offset of the group's next record.", _GROUP
        )
        self._seal_position = self._gauge(
            "seal_position", "Position of the log up to which events are sealed."
        )
        self._seal_lag = self._gauge("seal_lag_events", "Events after the newest checkpoint.")
        self._seal_refused = self._gauge(
            "seal_refused",
            "1 while nothing is signed because it does not fit what was signed before.",
        )
        self._seal_unpublished = self._gauge(
            "seal_unpublished", "1 while the newest checkpoint could not be published everywhere."
        )

    def beat(self, worker: str) -> None:
        """The worker's loop went round."""
        self._heartbeat.labels(worker).set_to_current_time()

    def outbox(self, pending: int, oldest_seconds: float) -> None:
        """What the log holds beyond the relay's cursor."""
        self._known(self._pending).set(pending)
        self._known(self._oldest).set(max(0.0, oldest_seconds))

    def published(self, n: int) -> None:
        """So many more events were acknowledged."""
        self._known(self._published).inc(n)

    def relay_failed(self) -> None:
        """The producer was closed after a failure to send."""
        self._known(self._relay_failures).inc()

    def lease(self, held: bool, epoch: int) -> None:
        """Whether this process holds the relay's lease, and the lease's number."""
        self._known(self._lease_held).set(held)
        self._known(self._lease_epoch).set(epoch)

    def position(self, projection: str, partition: int, position: int) -> None:
        """The partition is applied up to this position."""
        self._begin(projection)
        self._position.labels(projection, partition).set(position)

    def disown(self, projection: str, partition: int) -> None:
        """This process has the partition no longer: what it said of it is withdrawn."""
        for gauge in (self._position, self._hole, self._stalled):
            gauge.remove(projection, str(partition))

    def lag(self, projection: str, events: int, seconds: float) -> None:
        """How many events wait, and how long the oldest has."""
        self._begin(projection)
        self._lag_events.labels(projection).set(max(0, events))
        self._lag_seconds.labels(projection).set(max(0.0, seconds))

    def parked(self, projection: str, keys: int) -> None:
        """How many keys are parked."""
        self._begin(projection)
        self._parked.labels(projection).set(keys)

    def duplicates(self, projection: str, n: int) -> None:
        """So many more records were dropped as applied already."""
        self._begin(projection)
        self._duplicates.labels(projection).inc(n)

    def other_epoch(self, projection: str, n: int) -> None:
        """So many more records of another log were refused."""
        self._begin(projection)
        self._other_epoch.labels(projection).inc(n)

    def hole(self, projection: str, partition: int, open: bool) -> None:
        """Whether the partition waits for an event that is missing."""
        self._begin(projection)
        self._hole.labels(projection, partition).set(open)

    def late_owner(self, projection: str) -> None:
        """A write was given up because another worker owns the partition now."""
        self._begin(projection)
        self._late_owner.labels(projection).inc()

    def stalled(self, projection: str, partition: int, stalled: bool) -> None:
        """Whether the watchdog sees the partition stand still with events waiting."""
        self._begin(projection)
        self._stalled.labels(projection, partition).set(stalled)

    def incomplete(self, projection: str, ranges: int) -> None:
        """How many ranges of positions the completeness check found to differ."""
        self._begin(projection)
        self._incomplete.labels(projection).set(ranges)

    def group_lag(self, group: str, topic: str, partition: int, lag: int, offset: int) -> None:
        """Where a consumer group is in a partition, as Kafka's offsets tell it."""
        self._group_lag.labels(group, topic, partition).set(max(0, lag))
        self._group_offset.labels(group, topic, partition).set(offset)

    def group_left(self, group: str, topic: str, partition: int) -> None:
        """This process has the partition no longer: what it said of its lag is withdrawn."""
        for gauge in (self._group_lag, self._group_offset):
            gauge.remove(group, topic, str(partition))

    def sealed(self, position: int, lag: int) -> None:
        """Up to where events are sealed, and how many come after."""
        self._known(self._seal_position).set(position)
        self._known(self._seal_lag).set(lag)

    def seal_refused(self, refused: bool) -> None:
        """Whether the sealer refuses to sign."""
        self._known(self._seal_refused).set(refused)

    def seal_unpublished(self, waiting: bool) -> None:
        """Whether a checkpoint is signed that is not published everywhere."""
        self._known(self._seal_unpublished).set(waiting)

    def serve(self, port: int, host: str = "127.0.0.1") -> int:
        """Serves /metrics in a thread until `close`; gives the port, a free one for 0.

        Raises OSError where the port is taken.
        """
        server, thread = start_http_server(port, host, self.registry)
        self._served.append((server, thread))
        return server.server_port

    def close(self) -> None:
        """Stops what `serve` started."""
        while self._served:
            server, thread = self._served.pop()
            server.shutdown()
            server.server_close()
            thread.join()

    def _begin(self, projection: str) -> None:
        if projection in self._projections:
            return
        self._projections.add(projection)
        for counter in (self._duplicates, self._other_epoch, self._late_owner):
            counter.labels(projection)

    def _known(self, metric: M) -> M:
        """A metric without labels, exported from now on."""
        with self._lock:
            if id(metric) not in self._exported:
                self._exported.add(id(metric))
                self.registry.register(metric)
        return metric

    def _gauge(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, documentation, labels, registry=self.registry if labels else None)

    def _counter(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry if labels else None)
