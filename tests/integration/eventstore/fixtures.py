"""A log of one's own for each test, and what works on it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eventsourcing.utils import Environment

from infra.eventstore.factory import Factory
from infra.migrations import migrate
from infra.postgres import connect, quote
from tests.integration.eventstore.products import Product
from tests.integration.eventstore.stepping import Log


@pytest.fixture
def log_environment(database_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Settings of the persistence module, for an empty log and an empty vault."""
    mark = uuid.uuid4().hex[:12]
    schemas = {part: f"{part}_{mark}" for part in ("log", "vault")}
    migrate(database_url, schemas)
    yield {
        "PERSISTENCE_MODULE": "infra.eventstore.factory",
        "LOG_DATABASE_URL": database_url,
        "LOG_SCHEMA": schemas["log"],
        "VAULT_SCHEMA": schemas["vault"],
        "MASTER_KEY_FILE": str(tmp_path / "master.key"),
    }
    connection = connect(database_url, autocommit=True, settings={"lock_timeout": "10s"})
    with connection.cursor() as cursor:
        cursor.execute("SET client_min_messages = warning")
        names = ", ".join(quote(name) for name in schemas.values())
        cursor.execute(f"DROP SCHEMA {names} CASCADE")
    connection.close()


@pytest.fixture
def new_factory(log_environment: dict[str, str]) -> Iterator[Callable[..., Factory]]:
    """Makes further processes' views of the same log."""
    made: list[Factory] = []

    def make(**settings: str) -> Factory:
        made.append(Factory(Environment(name="Test", env={**log_environment, **settings})))
        return made[-1]

    yield make
    for factory in made:
        factory.close()


@pytest.fixture
def log_factory(new_factory: Callable[..., Factory]) -> Factory:
    return new_factory()


@pytest.fixture
def log(log_environment: dict[str, str]) -> Iterator[Log]:
    """The same log from outside."""
    log = Log(log_environment)
    yield log
    log.close()


@pytest.fixture
def new_product(log_environment: dict[str, str]) -> Iterator[Callable[..., Product]]:
    """Starts processes of the product on the same log."""
    made: list[Product] = []

    def make(**settings: str) -> Product:
        made.append(Product({**log_environment, **settings}))
        return made[-1]

    yield make
    for product in made:
        asyncio.run(product.leave())


@pytest.fixture
def product(new_product: Callable[..., Product]) -> Product:
    return new_product()
