"""What workers tell Prometheus: by names that alerts and dashboards rely on."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from infra.metrics import WorkerMetrics

PARTITION = {"projection": "funnel", "partition": "3"}
PROJECTION = {"projection": "funnel"}
GROUP = {"consumergroup": "crm-funnel", "topic": "crm.events", "partition": "3"}

KNOWN = {
    "outbox_pending": ({}, 7),
    "outbox_oldest_seconds": ({}, 1.5),
    "relay_published_total": ({}, 5),
    "relay_failures_total": ({}, 1),
    "relay_lease_held": ({}, 1),
    "relay_lease_epoch": ({}, 4),
    "projection_position": (PARTITION, 41),
    "projection_lag_events": (PROJECTION, 9),
    "projection_lag_seconds": (PROJECTION, 2.5),
    "parked_total": (PROJECTION, 2),
    "projection_duplicates_total": (PROJECTION, 3),
    "projection_other_epoch_total": (PROJECTION, 6),
    "projection_hole": (PARTITION, 1),
    "projection_late_owner_total": (PROJECTION, 1),
    "projection_stalled": (PARTITION, 1),
    "projection_incomplete_ranges": (PROJECTION, 8),
    "kafka_consumergroup_lag": (GROUP, 11),
    "kafka_consumergroup_current_offset": (GROUP, 30),
}


@pytest.fixture
def metrics() -> Iterator[WorkerMetrics]:
    metrics = WorkerMetrics(CollectorRegistry())
    yield metrics
    metrics.close()


def _tell_everything(metrics: WorkerMetrics) -> None:
    metrics.beat("project-funnel")
    metrics.outbox(7, 1.5)
    metrics.published(5)
    metrics.relay_failed()
    metrics.lease(True, 4)
    metrics.position("funnel", 3, 41)
    metrics.lag("funnel", 9, 2.5)
    metrics.parked("funnel", 2)
    metrics.duplicates("funnel", 3)
    metrics.other_epoch("funnel", 6)
    metrics.hole("funnel", 3, open=True)
    metrics.late_owner("funnel")
    metrics.stalled("funnel", 3, True)
    metrics.incomplete("funnel", 8)
    metrics.group_lag("crm-funnel", "crm.events", 3, lag=11, offset=30)


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_told_is_exported_by_its_known_name(metrics: WorkerMetrics, name: str) -> None:
    _tell_everything(metrics)
    labels, value = KNOWN[name]
    assert metrics.registry.get_sample_value(name, labels) == value


def test_a_heartbeat_is_the_present_time(metrics: WorkerMetrics) -> None:
    metrics.beat("relay")
    sample = ("worker_heartbeat_timestamp_seconds", {"worker": "relay"})
    first = metrics.registry.get_sample_value(*sample)
    assert first is not None
    assert first > 1_700_000_000
    metrics.beat("relay")
    again = metrics.registry.get_sample_value(*sample)
    assert again is not None
    assert again >= first


def test_nothing_is_exported_that_this_process_does_not_know(metrics: WorkerMetrics) -> None:
    text = generate_latest(metrics.registry).decode()
    told = {line.split()[0] for line in text.splitlines() if not line.startswith("#")}
    assert told
    assert all(name.startswith("process_") for name in told)


def test_counters_of_a_projection_start_at_0(metrics: WorkerMetrics) -> None:
    metrics.lag("funnel", 0, 0)
    for name in ("duplicates", "other_epoch", "late_owner"):
        sample = metrics.registry.get_sample_value(f"projection_{name}_total", PROJECTION)
        assert sample == 0, name


def test_a_partition_given_up_is_no_longer_told_of(metrics: WorkerMetrics) -> None:
    _tell_everything(metrics)
    metrics.position("funnel", 4, 42)
    metrics.disown("funnel", 3)
    metrics.disown("funnel", 11)  # never told of
    for name in ("position", "hole", "stalled"):
        assert metrics.registry.get_sample_value(f"projection_{name}", PARTITION) is None, name
    assert metrics.registry.get_sample_value(
        "projection_position", {"projection": "funnel", "partition": "4"}
    )


def test_a_counter_has_no_second_series_for_when_it_began(metrics: WorkerMetrics) -> None:
    _tell_everything(metrics)
    assert b"_created" not in generate_latest(metrics.registry)


def test_clocks_that_differ_make_no_negative_ages(metrics: WorkerMetrics) -> None:
    metrics.outbox(1, -3.0)
    metrics.lag("funnel", -1, -3.0)
    for name, labels in (
        ("outbox_oldest_seconds", {}),
        ("projection_lag_seconds", PROJECTION),
        ("projection_lag_events", PROJECTION),
    ):
        assert metrics.registry.get_sample_value(name, labels) == 0


def test_they_are_served_over_http_until_closed(metrics: WorkerMetrics) -> None:
    metrics.beat("relay")
    port = metrics.serve(0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    assert 'worker_heartbeat_timestamp_seconds{worker="relay"}' in text
    assert "process_resident_memory_bytes" in text
    with pytest.raises(OSError, match="in use"):
        metrics.serve(port)
    metrics.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")
