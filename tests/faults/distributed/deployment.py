"""The product as it is where one machine no longer serves: every part a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

from psycopg2.extensions import parse_dsn

from deploy.kafka.broker import Broker
from infra.settings import Settings, load
from projections.catalogue import PROJECTIONS
from projections.projection import Projection
from tests.faults.distributed.database import Database, Shutdown
from tests.faults.distributed.load import Journal
from tests.faults.distributed.network import Way, free_port
from tests.faults.distributed.processes import PATIENCE, Process
from tests.faults.proxy import Proxy

MODELS = ("customers", "funnel", "lifecycle", "attribution")
LEASE = 2
SEAL = 2
"""Seconds between two checkpoints."""


class Deployment:
    """PostgreSQL, Kafka, API processes, relays, a sealer, and projector workers for some read
    models.

    Started and, whatever happened to it, ended as a context manager. Nothing else uses its
    servers, so that each can be made to fail.
    """

    def __init__(
        self,
        *,
        apis: int = 2,
        relays: int = 2,
        models: Sequence[str] = ("customers", "funnel"),
        projectors: int = 1,
        disk: int | None = None,
    ) -> None:
        """`projectors`: worker processes for each read model. `disk`: MB of the database's own."""
        self.directory = Path(tempfile.mkdtemp(prefix="crm-faults-", dir="/tmp"))
        self.directory.chmod(0o711)
        self.models = list(models)
        self.journal = Journal()
        self.topic = f"crm.faults.{uuid4().hex[:8]}"
        self.database = Database(self.directory)
        self.way = Way()
        self.way.upstream = free_port()
        self.broker = Broker(self.directory / "kafka", self.way.upstream, advertised=self.way.port)
        self.logs = self.directory / "logs"
        self.logs.mkdir()
        self.apis: list[Process] = []
        self.relays: list[Process] = []
        self.sealers: list[Process] = []
        self.projectors: dict[str, list[Process]] = {}
        self._ports = [free_port() for _ in range(apis)]
        self._metrics_ports = [free_port() for _ in range(relays)]
        self._projectors = projectors
        self._disk = disk
        self.later: str | None = None
        """The read model of which a later version of the program has made another version."""
        self._joined = 0
        self._others: list[Process] = []

    def __enter__(self) -> Self:
        try:
            if self._disk is not None:
                self.database.put_on_a_small_disk(self._disk)
            self.database.start()
            self.broker.start()
            self._make_processes()
            self.apis[0].start()  # makes the keys that the others share
            self.ready()
            for process in self.processes[1:]:
                process.start()
            self.ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is not None:
            sys.stdout.write(self.last_words())
        self.close()

    def close(self) -> None:
        for process in [*self.processes, *self._others]:
            process.close()
        with suppress(Exception):
            self.broker.stop()
        self.way.close()
        with suppress(Exception):
            self.database.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def processes(self) -> list[Process]:
        return [*self.apis, *self.relays, *self.sealers, *self.workers]

    @property
    def workers(self) -> list[Process]:
        """Those that fill the read models."""
        return [process for each in self.projectors.values() for process in each]

    def projection(self, model: str) -> Projection:
        """As the program knows it that fills the read model."""
        found = PROJECTIONS[model]
        return later_version(found) if model == self.later else found

    def unaltered(self) -> None:
        """Every process is the one that it should be again."""
        for process in self.processes:
            if process.is_altered:
                process.altered()
                process.restart()
        self.ready()

    def environment(self, **settings: object) -> dict[str, str]:
        """Of every process of the product."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("CRM_")}
        own = {
            "CRM_DATA_DIR": self.directory,
            "CRM_DATABASE_URL": self.database.url,
            "CRM_KAFKA_BOOTSTRAP": f"127.0.0.1:{self.way.port}",
            "CRM_KAFKA_TOPIC": self.topic,
            "CRM_LEASE_SECONDS": LEASE,
            "CRM_SEAL_SECONDS": SEAL,
            "CRM_LOG_FORMAT": "json",
        } | {f"CRM_{name}": value for name, value in settings.items()}
        return others | {name: str(value) for name, value in own.items()}

    @property
    def settings(self) -> Settings:
        return load(self.environment())

    @property
    def token(self) -> str:
        return (self.directory / "token").read_text().strip()

    def urls(self) -> list[str]:
        """Where the API processes listen, or will again."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    def process(self, name: str, *arguments: str, **settings: object) -> Process:
        """Another process of the product, not started yet; it is ended with the others."""
        process = Process(name, list(arguments), self.environment(**settings), self.logs)
        self._others.append(process)
        return process

    def crm(self, *arguments: str, **settings: object) -> tuple[int, str]:
        """Runs a command to its end: exit code, and what it said."""
        name = f"{arguments[0]}-{len(self._others)}"
        process = self.process(name, *arguments, **settings)
        if self.later is not None:
            process.altered(f"newer={self.later}")
        process.start()
        return process.ended(180), process.text

    def joins(self, model: str) -> Process:
        """One more worker of a read model."""
        workers = self.projectors.setdefault(model, [])
        self._joined += 1
        name = f"{model}-{self._joined}"
        worker = Process(name, ["project", model], self.environment(INSTANCE=name), self.logs)
        workers.append(worker)
        return worker

    def leaves(self, model: str) -> None:
        """The worker that joined last goes for good."""
        worker = self.projectors[model].pop()
        self._others.append(worker)
        if worker.alive:
            worker.stop()

    def heal(self) -> None:
        """Everything runs again, as it is meant to, and what stood still goes on."""
        if not self.database.reachable():
            self.database.start()
        self.way.unblock()
        self.broker.start()
        for process in self.processes:
            if process.alive and process.standing_still:
                process.resume()
            if not process.alive:
                process.altered()
                process.start()
        self.ready()

    def ready(self, patience: float = PATIENCE) -> None:
        """Waits until the API processes that run can take commands."""
        deadline = time.monotonic() + patience
        for api, url in zip(self.apis, self.urls(), strict=True):
            while not (api.away or _takes_commands(url)):
                assert time.monotonic() < deadline, f"{api.name}: {api.last_words()}"
                time.sleep(0.05)

    def behind(self, proxy: Proxy | None, api: Process) -> None:
        """From its next start on, this API process reaches the database by way of the proxy."""
        url = self.database.url
        if proxy is not None:
            port = parse_dsn(proxy.url)["port"]
            url = f"postgresql://crm@127.0.0.1:{port}/crm?sslmode=disable&gssencmode=disable"
        api.environment["CRM_DATABASE_URL"] = url

    def positions(self) -> dict[tuple[str, int], int]:
        """How far each read model is in each partition."""
        rows = self.database.query("SELECT projection, partition, position FROM read.position")
        return {(projection, partition): position for projection, partition, position in rows}

    def end(self) -> int:
        """The position of the log's last event."""
        return int(self.database.value("SELECT position FROM log.head"))

    def sealed(self) -> int:
        """The size of the newest checkpoint of the log under its present name."""
        return int(
            self.database.value(
                "SELECT coalesce(max(size), 0) FROM log.checkpoint"
                " WHERE log_id = (SELECT log_id FROM log.seal)"
            )
        )

    def published(self) -> int:
        """The relay's cursor: every event up to here was acknowledged by Kafka."""
        return int(self.database.value("SELECT coalesce(position, 0) FROM log.relay"))

    def roles(self) -> tuple[Process, Process]:
        """The relay that publishes, and the one that stands by."""
        for _ in range(100):
            for number, port in enumerate(self._metrics_ports):
                with suppress(OSError):
                    if metric(port, "relay_lease_held"):
                        return self.relays[number], self.relays[1 - number]
            time.sleep(0.1)
        raise AssertionError("no relay publishes")

    def backlog_shown(self) -> float:
        """How many events are not in Kafka yet, as the relays' metrics tell."""
        return max(metric(port, "outbox_pending") for port in self._metrics_ports)

    def drained(self) -> None:
        """Waits until what is in the log now is in Kafka."""
        end = self.end()
        wait_until(lambda: self.published() >= end, 90, f"publishing up to {end}")

    def last_words(self) -> str:
        """The ends of the logs that were written last, for whoever looks into a failure."""
        return "\n".join(
            f"=== {path.name}\n" + "\n".join(_telling(path)[-15:])
            for path in sorted(self.logs.glob("*.log"), key=_written)[-24:]
        )

    def _make_processes(self) -> None:
        for number, port in enumerate(self._ports):
            name = f"api-{number + 1}"
            self.apis.append(Process(name, ["api"], self.environment(PORT=port), self.logs))
        for number, port in enumerate(self._metrics_ports):
            name = f"relay-{number + 1}"
            settings = self.environment(INSTANCE=name, METRICS_PORT=port)
            self.relays.append(Process(name, ["relay"], settings, self.logs))
        self.sealers.append(Process("sealer", ["seal"], self.environment(), self.logs))
        for model in self.models:
            for _ in range(self._projectors):
                self.joins(model)


def _written(log: Path) -> float:
    return log.stat().st_mtime


def _telling(log: Path) -> list[str]:
    """Its lines, but for those of the Kafka client."""
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if '"logger": "kafka.' not in line]


def later_version(projection: Projection) -> Projection:
    """The same read model, as a later program has it."""
    kind = type(projection)
    later: Projection = type(kind.__name__, (kind,), {"version": kind.version + 1})()
    return later


def _takes_commands(url: str) -> bool:
    """Whether an API process does; the read models may not be what it can read."""
    try:
        with urlopen(f"{url}/health/ready", timeout=5):
            return True
    except HTTPError as problem:
        with problem:
            checks = json.load(problem)["checks"]
        return bool(checks["log"] and checks["database"])
    except OSError:
        return False


def metric(port: int, name: str) -> float:
    """A metric of a process; 0 if it has none of that name."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith((f"{name} ", f"{name}{{")):
                return float(line.rpartition(" ")[2])
    return 0.0


def wait_until(condition: Any, patience: float = PATIENCE, what: str = "") -> None:
    """Waits until the condition holds; a database that is away counts as no."""
    deadline = time.monotonic() + patience
    while True:
        answer: Any = None
        with suppress(OSError, Exception):
            answer = condition()
        if answer:
            return
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        time.sleep(0.1)


__all__ = ["LEASE", "MODELS", "Deployment", "Shutdown", "wait_until"]
