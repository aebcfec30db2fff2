from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from tests.faults.proxy import Proxy
from tests.integration.eventstore.fixtures import (  # noqa: F401  (fixtures, for all tests here)
    log,
    log_environment,
    log_factory,
    new_factory,
    new_product,
    product,
)


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    proxy = Proxy(database_url)
    yield proxy
    proxy.close()


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    """What was logged, instead of printing it."""
    with capture_logs() as entries:
        yield entries
