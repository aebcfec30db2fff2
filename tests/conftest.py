"""A real PostgreSQL for the suite: one server for all test workers, a database for each of them,
and schemas of one's own for each test that asks for them."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.embedded import EmbeddedPostgres
from infra.migrations import migrate
from infra.postgres import connect, quote

_OURS = "crm-ledger-tests-"


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[_directory] = Path(config.workerinput["database_directory"])
        return
    for left_over in Path("/tmp").glob(f"{_OURS}{os.geteuid()}-*"):
        _remove_unless_used(left_over)
    config.stash[_directory] = Path(f"/tmp/{_OURS}{os.geteuid()}-{uuid.uuid4().hex[:8]}")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker of pytest-xdist where the server is that it shares with the others."""
    node.workerinput["database_directory"] = str(node.config.stash[_directory])


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        _remove_unless_used(config.stash[_directory])


_directory: pytest.StashKey[Path] = pytest.StashKey()


def _remove_unless_used(directory: Path) -> None:
    """Removes what a run left behind, its server included, unless that run still goes on."""
    users = directory / "postgres" / "users.lock"
    if users.exists():
        with users.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
        if (directory / "postgres" / "cluster" / "postmaster.pid").exists():
            with EmbeddedPostgres(
                directory
            ):  # joins the server that a killed run left, and ends it
                pass
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """The suite's PostgreSQL server."""
    with EmbeddedPostgres(request.config.stash[_directory]) as server:
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


def _drop(url: str, schemas: dict[str, str]) -> None:
    connection = connect(url, autocommit=True, settings={"lock_timeout": "10s"})
    with connection.cursor() as cursor:
        names = ", ".join(quote(schema) for schema in schemas.values())
        cursor.execute("SET client_min_messages = warning")
        cursor.execute(f"DROP SCHEMA {names} CASCADE")
    connection.close()
