"""A real PostgreSQL and a real Kafka for the suite: one server of each for all test workers, a
database for each of them, and schemas and a topic of one's own for each test that asks for them."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import settings

from infra.embedded import EmbeddedPostgres
from infra.migrations import migrate
from infra.postgres import connect, quote

if TYPE_CHECKING:  # kafka-python is imported only by tests that ask for a broker
    from deploy.kafka.broker import Broker

_OURS = "crm-ledger-tests-"

# anyio loads its parts when they are first used. pytest rewrites what is loaded, and Python 3.11
# cannot parse in two threads at once (SystemError): so all are loaded before any test.
_LOADED = [getattr(anyio, name) for name in dir(anyio)]


# The suite says the same of the same code, however slow the machine is; `make search` looks for
# examples that were never tried.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, print_blob=True
)
settings.register_profile("searching", deadline=None, print_blob=True)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    # The tests' own: what the product is told in a test, the test says.
    outside = os.environ.pop("CRM_KAFKA_BOOTSTRAP", None)
    if hasattr(config, "workerinput"):
        config.stash[_directory] = Path(config.workerinput["directory"])
        config.stash[_outside_kafka] = config.workerinput["outside_kafka"]
        return
    for left_over in Path("/tmp").glob(f"{_OURS}{os.geteuid()}-*"):
        _remove_unless_used(left_over)
    config.stash[_directory] = Path(f"/tmp/{_OURS}{os.geteuid()}-{uuid.uuid4().hex[:8]}")
    config.stash[_outside_kafka] = outside


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker of pytest-xdist where the servers are that it shares with the others."""
    node.workerinput["directory"] = str(node.config.stash[_directory])
    node.workerinput["outside_kafka"] = node.config.stash[_outside_kafka]


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        _remove_unless_used(config.stash[_directory], patience=10)


_directory: pytest.StashKey[Path] = pytest.StashKey()
_outside_kafka: pytest.StashKey[str | None] = pytest.StashKey()


def _remove_unless_used(directory: Path, patience: float = 0) -> None:
    """Removes what a run left behind, its servers included, unless that run still goes on.

    A broker whose users were killed is ended by its keeper: ``patience`` is how many seconds that
    may take.
    """
    if not (_unused(directory / "kafka", patience) and _unused(directory / "postgres")):
        return
    if (directory / "postgres" / "cluster" / "postmaster.pid").exists():
        with EmbeddedPostgres(directory):  # joins the server that a killed run left, and ends it
            pass
    shutil.rmtree(directory, ignore_errors=True)


def _unused(home: Path, patience: float = 0) -> bool:
    if not (home / "users.lock").exists():
        return True
    deadline = time.monotonic() + patience
    with (home / "users.lock").open() as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.05)
            else:
                return True


_SETTINGS = """
fsync = off
full_page_writes = off
max_connections = 300  # each test worker keeps up to four products, of 15 connections each
"""


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """The suite's PostgreSQL server. It does not wait for the disk: what a killed server wrote is
    with the kernel, and power is not cut here. Tests of crashes have servers of their own, as the
    product starts them."""
    directory = request.config.stash[_directory]
    directory.mkdir(mode=0o711, exist_ok=True)
    settings = directory / "postgres" / "cluster" / "custom.conf"
    with (directory / "first.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        if not settings.exists():
            with EmbeddedPostgres(directory):  # makes the cluster
                pass
            settings.write_text(_SETTINGS)
    with EmbeddedPostgres(directory) as server:
        yield server


@pytest.fixture(scope="session")
def new_database(server: EmbeddedPostgres) -> Callable[[], str]:
    """Makes an empty database and returns its address, for the superuser."""

    def make() -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        connection = connect(server.admin_url, autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        connection.close()
        return server.admin_url.replace("/crm?", f"/{name}?")

    return make


@pytest.fixture(scope="session")
def database_url(new_database: Callable[[], str]) -> str:
    """A database of this test worker, with the schemas ``log``, ``vault``, ``read`` and ``bi``.

    Its login may act as every role. What a test writes there stays for the next test.
    """
    url = new_database()
    migrate(url, member="crm")
    return url


@pytest.fixture
def fresh_schemas(database_url: str) -> Iterator[dict[str, str]]:
    """Empty schemas for one test, by part: ``log``, ``vault``, ``read`` and ``bi``."""
    mark = uuid.uuid4().hex[:12]
    schemas = {part: f"{part}_{mark}" for part in ("log", "vault", "read", "bi")}
    migrate(database_url, schemas)
    yield schemas
    _drop(database_url, schemas)


@pytest.fixture
def fresh_log_schema(database_url: str) -> Iterator[str]:
    """The name of an empty log for one test."""
    schemas = {"log": f"log_{uuid.uuid4().hex[:12]}"}
    migrate(database_url, schemas)
    yield schemas["log"]
    _drop(database_url, schemas)


@dataclass(frozen=True)
class OutsideBroker:
    """A Kafka that is not ours to stop, named by ``CRM_KAFKA_BOOTSTRAP``."""

    bootstrap: str


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[Broker | OutsideBroker]:
    """The suite's Kafka; its address is ``bootstrap``.

    All test workers share it. A test that stops or kills one starts a ``Broker`` of its own.
    """
    outside = request.config.stash[_outside_kafka]
    if outside is not None:
        yield OutsideBroker(outside)
        return
    from deploy.kafka.broker import Broker

    with Broker(request.config.stash[_directory] / "kafka") as broker:
        yield broker


@pytest.fixture(scope="session")
def _topics(broker: Broker | OutsideBroker) -> Iterator[list[str]]:
    """The topics that tests were given. Nothing is left of them at an outside broker."""
    names: list[str] = []
    yield names
    if names and isinstance(broker, OutsideBroker):
        from kafka.admin import KafkaAdminClient

        with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
            admin.delete_topics([name for name in names if name in set(admin.list_topics())])


@pytest.fixture
def topic(_topics: list[str]) -> str:
    """The name of a topic that is not there yet."""
    name = f"test.{uuid.uuid4().hex[:12]}"
    _topics.append(name)
    return name


def _drop(url: str, schemas: dict[str, str]) -> None:
    connection = connect(url, autocommit=True, settings={"lock_timeout": "10s"})
    with connection.cursor() as cursor:
        names = ", ".join(quote(schema) for schema in schemas.values())
        cursor.execute("SET client_min_messages = warning")
        cursor.execute(f"DROP SCHEMA {names} CASCADE")
    connection.close()
