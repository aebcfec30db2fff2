"""An erasure that a crash ends early is completed: by its repetition, or by the next start."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.erasing.running import Running, database

pytestmark = [pytest.mark.database, pytest.mark.slow]


@pytest.fixture
def product() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="crm-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        product = Running(Path(folder))
        yield product
        product.close()
        product.crm("doctor")  # joins what is left of the database, and stops it


@pytest.mark.parametrize("point", ["erase.destroyed", "erase.noted", "erase.recorded"])
def test_the_next_start_completes_it(product: Running, point: str) -> None:
    product.up(CRM_CRASHPOINT=point)
    person = product.post("/v1/customers", {"kind": "person", "name": "Wang Fang"})["id"]
    with pytest.raises(httpx.HTTPError):
        product.post(f"/v1/customers/{person}/erasure", {"reason": "asked for"})
    assert product.ended(product.processes.pop("up")) == -signal.SIGKILL
    product.up()
    certificate = product.get(f"/v1/audit/erasures/{person}")
    assert certificate["position"] is not None
    assert certificate["destroyed"]["sealed_fields"] == 1
    assert certificate["reason"] == "asked for"
    assert product.post(f"/v1/customers/{person}/erasure") == certificate
    shown = product.get(f"/v1/customers/{person}", min_position=certificate["position"])
    assert shown["name"] == "[erased]"
    with database(product.directory) as admin:
        erased = "SELECT count(*) FROM log.events WHERE topic = 'crm.customer.erased'"
        assert admin.rows(erased) == [(1,)]
    lines = (product.directory / "erasures.ndjson").read_text().splitlines()
    (line,) = map(json.loads, lines)
    assert line == {
        "subject": person,
        "customer_id": person,
        "kind": "customer",
        "erased_at": line["erased_at"],
        "actor": "admin",
    }
    assert product.end() == 0
