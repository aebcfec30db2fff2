"""The product that the contract is held against, and a log that holds what was ever written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from domain.application import CRM
from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import StoreFeed
from infra.postgres import Pool, connect
from tests.contract.kept import Row, fill_log, fill_vault
from tests.e2e.api.conftest import start_product
from tests.e2e.api.running import Product
from tests.unit.infra.keys import MASTER_KEY

__all__ = ["product", "start_product"]


@pytest.fixture(scope="module")
def product(start_product: Callable[..., Product]) -> Product:
    """Waits only briefly for positions, since most of those that are sent will never come."""
    return start_product(wait_seconds=0.05)


class OldLog:
    """A log that was written before, its keys of personal data, and read models beside it."""

    def __init__(self, url: str, schemas: dict[str, str], directory: Path) -> None:
        self.url, self.schemas = url, schemas
        self.pool = Pool(url, size=2, role="crm_projector", search_path=[schemas["log"]])
        self.read_pool = Pool(url, size=4, role="crm_projector")
        (directory / "master.key").write_bytes(MASTER_KEY)
        self._environment = {
            "PERSISTENCE_MODULE": "infra.eventstore.factory",
            "LOG_DATABASE_URL": url,
            "LOG_SCHEMA": schemas["log"],
            "VAULT_SCHEMA": schemas["vault"],
            "MASTER_KEY_FILE": str(directory / "master.key"),
        }
        self._applications: list[CRM] = []

    def holds(self, rows: list[Row]) -> None:
        """Once: the rows become the log."""
        fill_log(self.url, self.schemas["log"], rows)
        fill_vault(self.url, self.schemas["vault"])

    def feed(self) -> StoreFeed:
        return StoreFeed(self.pool, Doorbell(lambda: connect(self.url)))

    def application(self) -> CRM:
        crm = CRM(
            self._environment, clock=lambda: datetime.now(UTC), timezone=ZoneInfo("Europe/Berlin")
        )
        self._applications.append(crm)
        return crm

    def close(self) -> None:
        for crm in self._applications:
            crm.close()
        self.pool.close()
        self.read_pool.close()


@pytest.fixture
def old_log(database_url: str, fresh_schemas: dict[str, str], tmp_path: Path) -> Iterator[OldLog]:
    log = OldLog(database_url, fresh_schemas, tmp_path)
    yield log
    log.close()
