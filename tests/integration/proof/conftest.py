"""A log of one's own for each test, filled with a made-up company, and its sealer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.proof.ground import Ground


@pytest.fixture
def ground(database_url: str, fresh_log_schema: str, tmp_path: Path) -> Iterator[Ground]:
    """An empty log."""
    ground = Ground(database_url, fresh_log_schema, tmp_path)
    yield ground
    ground.close()


@pytest.fixture
def filled(ground: Ground) -> Callable[[int], Ground]:
    """The log with at least so many events."""

    def fill(count: int) -> Ground:
        ground.record(count)
        return ground

    return fill
