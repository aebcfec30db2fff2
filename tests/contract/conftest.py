"""The product that the contract is held against."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.api.conftest import start_product
from tests.e2e.api.running import Product

__all__ = ["product", "start_product"]


@pytest.fixture(scope="module")
def product(start_product: Callable[..., Product]) -> Product:
    """Waits only briefly for positions, since most of those that are sent will never come."""
    return start_product(wait_seconds=0.05)
