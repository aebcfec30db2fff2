"""A product for the whole session, and one of one's own where sums matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from infra.migrations import migrate
from tests.e2e.api.running import Client, Product


@pytest.fixture(scope="session")
def start_product(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Product]]:
    """Starts a product on an empty database of its own; it is stopped at the end."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Product:
            url = new_database()
            migrate(url)
            return stack.enter_context(Product(url, tmp_path_factory.mktemp("data"), **settings))

        yield start


@pytest.fixture(scope="session")
def product(start_product: Callable[..., Product]) -> Product:
    """The product that tests share: each makes its own customers and deals in it."""
    return start_product()


@pytest.fixture
def admin(product: Product) -> Iterator[Client]:
    """May do everything."""
    with product.client() as client:
        yield client
