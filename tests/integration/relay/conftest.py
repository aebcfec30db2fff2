from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from infra.kafka import quiet_client
from tests.integration.relay.ground import Ground
from tests.integration.relay.ground import ground as on_ground


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The client's log lines hold on to its sockets, and pytest to the lines."""
    client = logging.getLogger("kafka")
    level = client.level
    quiet_client()
    yield
    client.setLevel(level)


@pytest.fixture
def ground(database_url: str, fresh_log_schema: str, broker: Any, topic: str) -> Iterator[Ground]:
    """An empty log, and a topic that is not there yet."""
    with on_ground(database_url, fresh_log_schema, broker.bootstrap, topic) as ground:
        yield ground
