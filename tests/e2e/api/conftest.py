"""A product for each module's tests, and one of one's own where sums matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from infra.migrations import migrate
from infra.postgres import connect
from tests.e2e.api.running import Client, Product


@pytest.fixture(scope="module")
def start_product(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Product]]:
    """Starts a product on an empty database of its own; it is stopped after the module's tests,
    since the server that all share has a hundred connections."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Product:
            url = new_database()
            migrate(url)
            return stack.enter_context(Product(url, tmp_path_factory.mktemp("data"), **settings))

        yield start


@pytest.fixture(scope="module")
def product(start_product: Callable[..., Product]) -> Product:
    """The product that tests share: each makes its own customers and deals in it."""
    return start_product()


@pytest.fixture
def admin(product: Product) -> Iterator[Client]:
    """May do everything."""
    with product.client() as client:
        yield client


@pytest.fixture
def last_actor(product: Product) -> Callable[[], str]:
    """Who recorded the last event."""

    def ask() -> str:
        connection = connect(product.database_url, search_path=["log"])
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT actor FROM events ORDER BY position DESC LIMIT 1")
                return str((cursor.fetchone() or (None,))[0])
        finally:
            connection.close()

    return ask
