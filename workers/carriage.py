"""What ``crm doctor`` says about the way of events to Kafka: relay, backlog, broker and topic."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from infra.eventstore.outbox import Backlog, Outbox
from infra.kafka import BOOTSTRAP_SECONDS, KafkaUnavailable, Topic, TopicState, quiet_client
from infra.postgres import Pool
from infra.settings import Settings
from workers.finding import LONG_SECONDS, Finding, lasting

PATIENCE = BOOTSTRAP_SECONDS + 3.0
"""Seconds that Kafka is waited for: the client's own, and some to find out why."""


def carriage(settings: Settings, log_pool: Pool) -> Iterator[Finding]:
    """What there is to say where Kafka is used. `log_pool`: of role crm_reader, autocommit.
    Changes nothing."""
    published, lease = _lease(log_pool)
    yield lease
    backlog = Outbox(log_pool, "crm doctor", settings.lease_seconds).backlog()
    yield _backlog(backlog, lease)
    quiet_client()
    try:
        state = _asked(settings)
    except KafkaUnavailable as error:
        reason = " ".join(str(error).split())
        yield Finding(False, "kafka", f"{settings.kafka_bootstrap} cannot be used: {reason}")
        return
    yield Finding(True, "kafka", str(settings.kafka_bootstrap))
    yield _topic(settings, state, published)


def _lease(log_pool: Pool) -> tuple[str | None, Finding]:
    """The topic that was published to last, and who holds the lease, by the database's clock."""
    with log_pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT topic, coalesce(holder, 'a relay'), holder IS NOT NULL"
            " AND expires_at > clock_timestamp(), CASE WHEN isfinite(expires_at) THEN"
            " extract(epoch FROM clock_timestamp() - expires_at)::float8 END FROM relay"
        )
        topic, holder, held, ended = cursor.fetchall()[0]
    if held:
        return topic, Finding(True, "relay", f"{holder} publishes")
    since = "" if ended is None else f"; the last one's lease ended {lasting(ended)} ago"
    return topic, Finding(False, "relay", f"no relay publishes: start crm relay{since}")


def _backlog(backlog: Backlog, lease: Finding) -> Finding:
    if not backlog.events:
        return Finding(True, "outbox", "every event is published")
    oldest = backlog.oldest_seconds
    text = f"{backlog.events:,} events wait to be published, the oldest for {lasting(oldest)}"
    if oldest <= LONG_SECONDS:
        return Finding(True, "outbox", text)
    advice = "see the log of crm relay" if lease.good else "start crm relay"
    return Finding(False, "outbox", f"{text}: {advice}")


def _topic(settings: Settings, state: TopicState | None, published: str | None) -> Finding:
    name = settings.kafka_topic
    if state is None:
        if published == name:
            text = f"topic {name} is gone: crm relay makes it anew and publishes the whole log"
            return Finding(False, "topic", text)
        return Finding(True, "topic", f"{name} is not there yet; crm relay makes it")
    if state.partitions != settings.partitions:
        return Finding(
            False,
            "topic",
            f"{name} has {state.partitions} partitions, CRM_PARTITIONS is {settings.partitions}:"
            f" set CRM_PARTITIONS to {state.partitions} for all processes, or name another topic"
            " by CRM_KAFKA_TOPIC",
        )
    return Finding(True, "topic", f"{name}, {state.partitions} partitions")


def _asked(settings: Settings) -> TopicState | None:
    """The topic's state. Raises `KafkaUnavailable`, after `PATIENCE` seconds at the latest."""
    found: list[TopicState | None] = []
    failed: list[Exception] = []

    def ask() -> None:
        try:
            with Topic(settings) as topic:
                found.append(topic.state())
        except Exception as error:  # noqa: BLE001  (told by whoever waits)
            failed.append(error)

    # The client's own times add up to more, and a broker that is stuck answers nothing at all.
    thread = threading.Thread(target=ask, name="doctor-kafka", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if failed:
        if isinstance(failed[0], KafkaUnavailable):
            raise failed[0]
        raise KafkaUnavailable(f"{type(failed[0]).__name__}: {failed[0]}") from failed[0]
    if not found:
        raise KafkaUnavailable(f"no answer within {PATIENCE:g} s")
    return found[0]
