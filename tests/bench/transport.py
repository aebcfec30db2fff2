"""Events through Kafka: from the log by the relay to a read model, against the client itself.

`kafka-python` alone produces and consumes the same records, ready made, in two processes at the
same time, as fast as it can: idempotent, acknowledged by all. Programs of their own:
`python -m tests.bench.transport produce|consume BOOTSTRAP TOPIC COUNT [URL]`; the consumer prints
{"rate"} of records from the first to the last.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from deploy.kafka.broker import Broker
from infra.eventstore.feed import partition_of
from infra.kafka import OUTGOING_COLUMNS, Outgoing, ensure_topic, event_record
from infra.postgres import connect
from infra.settings import Settings
from tests.bench.databases import end_of
from tests.bench.http import customer
from tests.bench.rounds import ROOT, Rates, interleaved, peak, run_json, tell

PARTITIONS = 12
IN_FLIGHT = 5_000
CLIENT = "`kafka-python` producing and consuming"
OURS = "relay and one projector"
READ_MODEL = "lifecycle"
WATCHED = "funnel"
RATE = 200
"""Commands a second while it is measured how soon they are seen."""


@dataclass(slots=True)
class Measured:
    """Events a second; milliseconds until a command is seen, by round; memory in megabytes."""

    rates: dict[str, Rates]
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    megabytes: dict[str, float] = field(default_factory=dict)

    @property
    def median_p50(self) -> float:
        return statistics.median(self.p50)

    @property
    def median_p99(self) -> float:
        return statistics.median(self.p99)


def _produce(bootstrap: str, topic: str, count: int, url: str) -> None:
    connection = connect(url, search_path=["log"])
    with connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {OUTGOING_COLUMNS} FROM events ORDER BY position LIMIT %s", [count])
        rows = [Outgoing(*row) for row in cursor]
    connection.close()
    records = []
    last = [0] * PARTITIONS
    epoch = str(uuid4()).encode()
    for row in rows:
        partition = partition_of(UUID(row.partition_key), PARTITIONS)
        records.append((partition, event_record(row, last[partition], epoch)))
        last[partition] = row.position
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=2,
        batch_size=131_072,
        metrics_enabled=False,
    )
    under_way: deque[Any] = deque()
    for partition, record in records:
        if len(under_way) >= IN_FLIGHT:
            under_way.popleft().get(30)
        under_way.append(
            producer.send(
                topic,
                record.value,
                key=record.key,
                headers=record.headers,
                partition=partition,
                timestamp_ms=record.timestamp_ms,
            )
        )
    for one in under_way:
        one.get(30)
    producer.close()


def _consume(bootstrap: str, topic: str, count: int) -> None:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=2_000,
        metrics_enabled=False,
    )
    consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    seen = first = 0
    began = 0.0
    while seen < count:
        batch = sum(len(records) for records in consumer.poll(timeout_ms=1000).values())
        if batch and not first:
            first, began = batch, time.perf_counter()
        seen += batch
    rate = (count - first) / (time.perf_counter() - began)
    sys.stdout.write(json.dumps({"rate": rate}) + "\n")
    consumer.close()


def _client_alone(bootstrap: str, url: str, count: int) -> float:
    topic = f"bench-{uuid4().hex}"
    ensure_topic(_settings(bootstrap, topic))
    program = [sys.executable, "-m", "tests.bench.transport"]
    with subprocess.Popen(
        [*program, "consume", bootstrap, topic, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as consumer:
        assert consumer.stdout is not None
        consumer.stdout.readline()
        subprocess.run(
            [*program, "produce", bootstrap, topic, str(count), url], check=True, cwd=ROOT
        )
        return float(json.loads(consumer.stdout.readline())["rate"])


def _settings(bootstrap: str, topic: str) -> Settings:
    return Settings(kafka_bootstrap=bootstrap, kafka_topic=topic, partitions=PARTITIONS)


@contextmanager
def crm(environment: dict[str, str], folder: Path, *command: str) -> Iterator[Any]:
    log = folder / f"{'-'.join(command)}-{uuid4().hex[:6]}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.cli", *command],
            env={**os.environ, **environment, "CRM_LOG_FORMAT": "json"},
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
        try:
            yield process, log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def port_of(log: Path) -> str:
    """Where the API of this log listens, once it does."""
    listens = re.compile(r"listens on http://127\.0\.0\.1:(\d+)")
    wait(lambda: listens.search(log.read_text()) is not None, "the API")
    return str(listens.findall(log.read_text())[0])


def wait(there: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    deadline = time.perf_counter() + seconds
    while not there():
        if time.perf_counter() > deadline:
            raise RuntimeError(f"waited in vain: {what}")
        time.sleep(0.01)


class _Positions:
    """Where the read model's partitions stand."""

    def __init__(self, url: str) -> None:
        self._connection = connect(url, autocommit=True)

    def lowest_and_count(self) -> tuple[int, int]:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT coalesce(min(position), 0), count(*) FROM read.position")
            ((lowest, count),) = cursor.fetchall()
            return lowest, count

    def close(self) -> None:
        self._connection.close()


def environment_of(bootstrap: str, topic: str, url: str, folder: Path) -> dict[str, str]:
    return {
        "CRM_DATA_DIR": str(folder / "crm"),
        "CRM_DATABASE_URL": url,
        "CRM_KAFKA_BOOTSTRAP": bootstrap,
        "CRM_KAFKA_TOPIC": topic,
        "CRM_PARTITIONS": str(PARTITIONS),
        "CRM_PORT": "0",
    }


def _through_the_product(
    bootstrap: str, url: str, folder: Path, megabytes: dict[str, float]
) -> float:
    """Events of the log a second, from when the first are applied until the last is."""
    environment = environment_of(bootstrap, f"bench-{uuid4().hex}", url, folder)
    positions = _Positions(url)
    end = end_of(url)
    with crm(environment, folder, "project", READ_MODEL) as (projector, _):
        wait(lambda: positions.lowest_and_count()[1] == PARTITIONS, "the read model's tables")
        time.sleep(3)  # the group is joined, the fetches wait
        with crm(environment, folder, "relay") as (relay, _):
            wait(lambda: positions.lowest_and_count()[0] > 0, "the first events")
            first, began = positions.lowest_and_count()[0], time.perf_counter()
            wait(lambda: positions.lowest_and_count()[0] >= end, "the last event")
            rate = (end - first) / (time.perf_counter() - began)
            for name, process in (("relay", relay), ("projector", projector)):
                megabytes[name] = max(megabytes.get(name, 0.0), peak(process.pid))
    positions.close()
    return rate


def _until_seen(bootstrap: str, url: str, folder: Path, seconds: float) -> dict[str, float]:
    """Milliseconds from a command's recording until the read model shows it, at `RATE` a second."""
    environment = environment_of(bootstrap, f"bench-{uuid4().hex}", url, folder)
    positions = _Positions(url)
    with (
        crm(environment, folder, "api") as (_, log),
        crm(environment, folder, "relay"),
        crm(environment, folder, "project", WATCHED),
    ):
        port = port_of(log)
        wait(lambda: positions.lowest_and_count()[0] >= end_of(url), "what was there before")
        token = (folder / "crm" / "token").read_text().strip()
        return run_json(
            [
                *(sys.executable, "-m", "tests.bench.visible"),
                *(port, url, WATCHED, str(RATE), str(seconds)),
            ],
            {"TOKEN": token, "CUSTOMER": customer(int(port), token)},
        )


def measure(
    folder: Path, url: str, copy: Callable[[], str], empty: Callable[[], str], rounds: int
) -> Measured:
    """`url` is a database with a filled log, `copy` makes another like it, `empty` one without
    events."""
    with Broker(folder / "kafka") as broker:
        bootstrap, count = broker.bootstrap, end_of(url)
        megabytes: dict[str, float] = {}
        measured = Measured(
            interleaved(
                {
                    CLIENT: lambda: _client_alone(bootstrap, url, count),
                    OURS: lambda: _through_the_product(bootstrap, copy(), folder, megabytes),
                },
                rounds,
            ),
            megabytes=megabytes,
        )
        for number in range(1, rounds + 1):
            seen = _until_seen(bootstrap, empty(), folder, 15)
            if seen["unseen"]:
                raise RuntimeError(f"{seen['unseen']} commands were never seen")
            measured.p50.append(seen["p50"])
            measured.p99.append(seen["p99"])
            tell(
                f"  round {number}: seen after {seen['p50']:.0f} ms (p50),"
                f" {seen['p99']:.0f} ms (p99) at {seen['rate']:.0f} commands/s"
            )
    return measured


def main() -> None:
    """One side of the client's own measurement."""
    mode, bootstrap, topic, count = sys.argv[1:5]
    if mode == "produce":
        _produce(bootstrap, topic, int(count), sys.argv[5])
    else:
        _consume(bootstrap, topic, int(count))


if __name__ == "__main__":
    main()
