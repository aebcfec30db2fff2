"""A log of one's own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from eventsourcing.utils import Environment

from infra.eventstore.factory import Factory
from infra.migrations import migrate

URL = "postgresql://postgres@127.0.0.1:55432/dev_lead"


@pytest.fixture
def log_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    schema = "log_" + uuid.uuid4().hex[:12]
    migrate(URL, {"log": schema, "vault": "vault"})
    yield {
        "PERSISTENCE_MODULE": "infra.eventstore.factory",
        "LOG_DATABASE_URL": URL,
        "LOG_SCHEMA": schema,
        "MASTER_KEY_FILE": str(tmp_path / "master.key"),
    }
    c = psycopg2.connect(URL)
    c.autocommit = True
    c.cursor().execute(f"DROP SCHEMA {schema} CASCADE")
    c.close()


@pytest.fixture
def log_factory(log_environment: dict[str, str]) -> Iterator[Factory]:
    factory = Factory(Environment(name="Test", env=log_environment))
    yield factory
    factory.close()
