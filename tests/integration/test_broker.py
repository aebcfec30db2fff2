"""The launcher of a real Kafka, on which the tests of all that uses Kafka stand."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from deploy.kafka.broker import Broker, BrokerError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def make_topic(broker: Broker, name: str = "events") -> uuid.UUID:
    """Makes a topic of one partition and returns its id."""
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
        admin.create_topics([NewTopic(name, 1, 1)])
        admin.wait_for_topics([name])
    return topic_id(broker, name)


def topic_id(broker: Broker, name: str = "events") -> uuid.UUID:
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
        (topic,) = admin.describe_topics([name])
    return uuid.UUID(str(topic["topic_id"]))


def write(broker: Broker, *values: bytes, topic: str = "events") -> None:
    with KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all") as producer:
        for sent in [producer.send(topic, value) for value in values]:
            sent.get(timeout=30)


def read(broker: Broker, count: int, topic: str = "events") -> list[bytes]:
    partition = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, group_id=None)
    try:
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        found: list[bytes] = []
        while len(found) < count:
            for records in consumer.poll(timeout_ms=30_000).values():
                found += [record.value for record in records]
        assert consumer.position(partition) == count
        return found
    finally:
        consumer.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Broker]:
    """A broker that a test may stop."""
    with Broker(tmp_path / "kafka") as broker:
        yield broker


def test_what_is_written_to_the_suites_broker_is_read_from_it(broker: Broker, topic: str) -> None:
    make_topic(broker, topic)
    write(broker, b"one", b"two", topic=topic)
    assert read(broker, 2, topic) == [b"one", b"two"]


def test_a_stopped_broker_comes_back_at_its_address_with_its_data(own: Broker) -> None:
    address, made = own.bootstrap, make_topic(own)
    write(own, b"one")
    own.stop()
    assert own.pid is None

    own.start()

    assert own.bootstrap == address
    assert topic_id(own) == made
    write(own, b"two")
    assert read(own, 2) == [b"one", b"two"]


def test_a_killed_broker_keeps_what_it_acknowledged_and_a_wiped_one_loses_it(own: Broker) -> None:
    address, made = own.bootstrap, make_topic(own)
    write(own, b"one")
    own.kill()
    assert own.pid is None
    own.start()
    assert read(own, 1) == [b"one"]
    assert topic_id(own) == made

    with pytest.raises(BrokerError, match="stop or kill it first"):
        own.wipe()
    own.kill()
    own.wipe()
    own.start()

    assert own.bootstrap == address
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        assert admin.list_topics() == []
    assert make_topic(own) != made


def test_a_shared_broker_is_stopped_by_the_last_that_leaves_it(own: Broker, tmp_path: Path) -> None:
    first = own.pid
    other = Broker(tmp_path / "kafka")
    other.start()
    assert other.bootstrap == own.bootstrap
    own.stop()
    assert other.pid == first
    make_topic(other)
    other.stop()
    assert other.pid is None


def test_a_broker_does_not_outlive_users_that_are_killed(tmp_path: Path) -> None:
    script = (
        "import sys, signal; from pathlib import Path; from deploy.kafka.broker import Broker\n"
        "broker = Broker(Path(sys.argv[1])); broker.start(); print(broker.pid, flush=True)\n"
        "signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "kafka")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout is not None
        pid = int(user.stdout.readline())
        assert Broker(tmp_path / "kafka").pid == pid
        os.kill(pid, signal.SIGSTOP)  # not even one that is stopped
        process = os.pidfd_open(pid)
        user.kill()
    ended, _, _ = select.select([process], [], [], 60)
    os.close(process)
    assert ended


def test_a_start_ends_a_broker_that_nobody_knows_of_any_more(own: Broker, tmp_path: Path) -> None:
    make_topic(own)
    write(own, b"acknowledged")
    lost = own.pid
    assert lost is not None
    (tmp_path / "kafka" / "pid").unlink()
    assert own.pid is None
    own.start()
    assert own.pid not in (None, lost)
    assert not Path(f"/proc/{lost}").exists()
    assert read(own, 1) == [b"acknowledged"]


def test_a_broker_that_cannot_start_says_why_in_its_own_words(own: Broker, tmp_path: Path) -> None:
    port = int(own.bootstrap.rpartition(":")[2])
    with pytest.raises(BrokerError, match="Address already in use"):
        Broker(tmp_path / "another", port=port).start()
    assert own.pid is not None


def test_the_command_prints_the_setting_and_ends_when_it_is_interrupted() -> None:
    with subprocess.Popen(
        [sys.executable, "deploy/kafka/broker.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        name, _, address = command.stdout.readline().strip().partition("=")
        assert name == "CRM_KAFKA_BOOTSTRAP"
        with KafkaAdminClient(bootstrap_servers=address) as admin:
            assert admin.list_topics() == []
        command.send_signal(signal.SIGINT)
        assert command.wait() == 0
