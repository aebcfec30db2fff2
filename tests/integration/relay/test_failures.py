"""What fails on the way is sent again, from the cursor on."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError
from kafka.future import Future
from structlog.testing import capture_logs

import infra.kafka
import workers.resuming
from infra.eventstore.outbox import GapInLog
from infra.kafka import WATERMARK, make_producer
from infra.metrics import WorkerMetrics
from tests.integration.relay.ground import Ground
from workers.publishing import CHECK
from workers.resuming import TopicAhead


class _Failed(Future):  # type: ignore[misc]
    def get(self, timeout: float | None = None) -> None:
        raise self.exception


def losing(ground: Ground, *lost: int) -> Callable[[], KafkaProducer]:
    """A producer that loses the records of these positions, once, while later ones arrive."""
    left = set(lost)

    def make() -> KafkaProducer:
        producer = make_producer(ground.settings)
        send = producer.send

        def sometimes(topic: str, *, headers: list[tuple[str, bytes]], **record: Any) -> Any:
            position = int(dict(headers)["ce_position"])
            if position in left:
                left.discard(position)
                return _Failed().failure(KafkaTimeoutError("lost"))
            return send(topic, headers=headers, **record)

        producer.send = sometimes
        return producer

    return make


def test_after_a_failure_all_since_the_cursor_is_sent_again(ground: Ground):
    ground.append(0, 0, 1, 0, 2)
    metrics = WorkerMetrics()
    ground.carry(ground.relay(producer=losing(ground, 2), metrics=metrics))

    assert ground.events()[0] in ([1, 4, 2, 4], [1, 2, 4], [1, 4, 1, 2, 4])
    assert ground.applied() == ground.in_log()
    assert metrics.registry.get_sample_value("relay_failures_total") == 1
    assert metrics.registry.get_sample_value("relay_published_total") >= 5


def test_a_backlog_gets_shorter_though_each_producer_loses_its_second_event(ground: Ground):
    def make() -> KafkaProducer:
        producer = make_producer(ground.settings)
        send, sent = producer.send, 0

        def once(topic: str, *, headers: list[tuple[str, bytes]], **record: Any) -> Any:
            nonlocal sent
            sent += dict(headers)["ce_type"] != WATERMARK.encode()
            if sent == 2:
                return _Failed().failure(KafkaTimeoutError("lost"))
            return send(topic, headers=headers, **record)

        producer.send = once
        return producer

    ground.append(0, 0, 1, 0, 2, 1)
    ground.carry(ground.relay(producer=make))
    assert ground.applied() == ground.in_log()


def test_a_producer_that_is_always_refused_is_tried_less_and_less_often_until_it_is_not(
    ground: Ground,
):
    refusing = True
    unanswered: list[Future] = []

    def make() -> KafkaProducer:
        producer = make_producer(ground.settings)
        send = producer.send

        def answer(topic: str, **record: Any) -> Any:
            if not refusing:
                return send(topic, **record)
            unanswered.append(Future())
            return unanswered[-1]

        producer.send = answer
        return producer

    ground.append(0, 1)
    metrics = WorkerMetrics()
    relay = ground.relay(producer=make, metrics=metrics)
    with capture_logs() as lines:
        for _ in range(100):  # 20 s
            relay.step()  # what it sends fails after it, as it does over a network
            while unanswered:
                unanswered.pop().failure(TopicAuthorizationFailedError())
            ground.clock.now += 0.2
    tries = metrics.registry.get_sample_value("relay_failures_total")
    assert tries is not None
    assert 10 <= tries <= 20
    assert [line["event"] for line in lines].count("publishing failed; commands go on") == 1

    refusing = False
    with capture_logs() as lines:
        ground.carry(relay)
    assert [line["event"] for line in lines] == ["publishing again"]
    assert ground.applied() == ground.in_log()


def test_the_cursor_never_passes_what_was_not_acknowledged(ground: Ground):
    ground.append(*[0, 1, 2] * 5)
    relay = ground.relay(producer=losing(ground, 4, 9, 15))
    reached = 0
    while reached < ground.end():
        ground.clock.now += 1
        relay.step()
        relay.idle()
        cursor = ground.cursor()
        assert cursor is not None
        assert cursor.position >= reached
        reached = cursor.position
        applied = {position for found in ground.applied().values() for position in found}
        assert set(range(1, reached + 1)) <= applied


def test_a_relay_that_dies_before_it_saved_leaves_only_duplicates(ground: Ground):
    ground.append(0, 1, 0)
    dying = ground.relay()
    dying.step()  # sends; nothing is saved but the beginning
    dying.idle()
    assert ground.cursor().position == 0
    ground.holder_died()
    ground.append(0)
    ground.carry(ground.relay())

    assert ground.applied() == ground.in_log()
    assert ground.events()[0] == [1, 3, 1, 3, 4]


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_while_kafka_is_away_the_backlog_is_told_and_then_carried(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(infra.kafka, "BOOTSTRAP_SECONDS", 0.1)
    metrics = WorkerMetrics()
    nowhere = ground.settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    outbox = ground.outbox()
    relay = ground.relay(settings=nowhere, outbox=outbox, metrics=metrics)
    ground.append(0, 1)
    for pending in (2, 4):
        ground.clock.now += 10
        assert not relay.step()
        relay.keep()
        assert metrics.registry.get_sample_value("outbox_pending") == pending
        ground.append(2, 2)
    assert metrics.registry.get_sample_value("outbox_oldest_seconds") > 0
    assert metrics.registry.get_sample_value("relay_lease_held") == 1
    relay.close()
    gc.collect()  # the client leaves sockets that could not connect to the collector

    ground.carry(ground.relay(outbox=outbox, metrics=metrics))
    assert ground.applied() == ground.in_log()
    ground.relay(outbox=outbox, metrics=metrics).keep()
    assert metrics.registry.get_sample_value("outbox_pending") == 0
    assert metrics.registry.get_sample_value("outbox_oldest_seconds") == 0


def test_a_topic_made_anew_is_noticed_and_filled_from_the_beginning(ground: Ground):
    ground.append(0, 1, 2)
    relay = ground.relay()
    ground.carry(relay)
    ground.delete_topic()
    ground.append(0)
    ground.clock.now += CHECK
    relay.step()
    ground.carry(relay)

    assert ground.applied() == ground.in_log()


def test_a_topic_that_was_lost_while_no_relay_ran_is_filled_from_the_beginning(ground: Ground):
    ground.append(0, 1, 2)
    first = ground.relay()
    ground.carry(first)
    first.close()
    ground.delete_topic()
    ground.carry(ground.relay())

    assert ground.events() == {0: [1], 1: [2], 2: [3]}


def test_a_partition_that_lost_its_end_is_filled_from_what_its_last_record_proves(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workers.resuming, "IN_FLIGHT", 2)
    ground.append(0, 1, 0, 1, 0, 2)
    relay = ground.relay()
    ground.carry(relay)
    relay.close()
    # as if two more events of partition 0 had been acknowledged, and were lost with the leader
    ground.append(0, 0)
    ground.sql("UPDATE relay SET position = 8, previous = '{8,4,6}', offsets[1] = offsets[1] + 2")
    ground.carry(ground.relay())

    assert ground.applied() == ground.in_log()
    # partition 0 ended with the watermark of position 6: all up to 4 is proved to be there
    assert ground.events() == {0: [1, 3, 5, 5, 7, 8], 1: [2, 4], 2: [6, 6]}


def test_a_running_relay_notices_that_a_partition_ends_earlier(ground: Ground):
    ground.append(0, 1)
    relay = ground.relay()
    ground.carry(relay)
    relay.close()
    ground.append(0)
    ground.carry(relay)
    ground.sql("UPDATE relay SET offsets[1] = offsets[1] + 1000")
    relay.close()
    ground.append(1)
    ground.carry(relay)

    assert ground.applied() == ground.in_log()
    assert ground.events()[0] == [1, 3, 1, 3]


def test_partitions_that_lost_their_end_under_the_producer_are_filled_though_they_grew_again(
    ground: Ground,
):
    ground.append(0, 1, 0, 1)
    relay = ground.relay()
    ground.carry(relay)
    # as if two more events had been acknowledged, and were lost with the leader, who goes on with
    # what the producer sends next
    ground.append(0, 1)
    publishing = relay._publishing
    assert publishing is not None
    publishing._sent = publishing._acknowledged = 6
    publishing._previous[:2] = publishing._sent_previous[:2] = [5, 6]
    publishing._offsets[0] += 1
    publishing._offsets[1] += 2
    publishing._save(0)
    ground.append(*[0, 1] * 5)
    relay.step()
    relay.idle()
    ground.clock.now += 1
    relay.step()
    cursor = ground.cursor()
    assert cursor is not None
    assert [offset < 0 for offset in cursor.offsets] == [True, True, False]

    relay.close()  # whoever comes next knows of it
    ground.holder_died()
    ground.carry(ground.relay())
    assert ground.applied() == ground.in_log()


@pytest.mark.parametrize("end", [3, 2])
def test_a_log_restored_under_a_running_relay_is_noticed(ground: Ground, end: int):
    ground.append(0, 1, 2, 0)
    relay = ground.relay()
    ground.carry(relay)
    ground.sql("DELETE FROM events WHERE position > %s", [end])
    ground.sql("UPDATE head SET position = %s", [end])
    # The lease and, in a backup made a moment ago, the cursor are of before.
    ground.sql("UPDATE relay SET position = 2, previous = '{1,2,0}', offsets = '{1,1,0}'")
    relay.step()
    ground.clock.now += 1
    with pytest.raises(TopicAhead):
        relay.step()


def test_events_that_are_missing_in_the_log_are_never_jumped_however_many(ground: Ground):
    ground.append(0)
    relay = ground.relay()
    ground.carry(relay)
    ground.append(*[0] * 5)
    ground.sql("DELETE FROM events WHERE position > 1")
    with pytest.raises(GapInLog, match="after position 1"):
        relay.step()
