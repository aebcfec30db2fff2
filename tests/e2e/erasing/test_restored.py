"""Who was erased after a backup was made stays so when that backup comes back."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.erasing.running import Running, database

pytestmark = [pytest.mark.database, pytest.mark.slow]

NAME, OTHER = "Wang Fang", "Li Na"
KEPT = ("master.key", "signing.key", "erasures.ndjson")
"""What is kept beside the backups: the keys, and the ledger of erasures."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="crm-", dir="/tmp") as made:
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.fixture
def product(folder: Path) -> Iterator[Running]:
    yield from running(folder / "first")


@pytest.fixture
def elsewhere(folder: Path) -> Iterator[Running]:
    yield from running(folder / "second")


def running(folder: Path) -> Iterator[Running]:
    folder.mkdir(mode=0o711)
    product = Running(folder)
    yield product
    product.close()
    if (product.directory / "postgres").exists():
        product.crm("doctor")  # joins what is left of the database, and stops it


def test_a_restored_product_has_what_was_erased_since_as_erased(
    product: Running, elsewhere: Running, folder: Path
) -> None:
    product.up()
    person = product.post("/v1/customers", {"kind": "person", "name": NAME})["id"]
    other = product.post("/v1/customers", {"kind": "person", "name": OTHER})["id"]
    backup = folder / "backup"
    product.crm("backup", str(backup))
    product.post(f"/v1/customers/{person}/erasure", {"reason": "asked for"})
    product.end(number=signal.SIGKILL)

    elsewhere.directory.mkdir(mode=0o711)
    for name in KEPT:
        shutil.copy(product.directory / name, elsewhere.directory)
    elsewhere.crm("restore", str(backup))
    elsewhere.up()
    certificate = elsewhere.get(f"/v1/audit/erasures/{person}")
    assert certificate["position"] is not None
    shown = elsewhere.get(f"/v1/customers/{person}", min_position=certificate["position"])
    assert shown["name"] == "[erased]"
    assert elsewhere.get(f"/v1/customers/{other}")["name"] == OTHER
    with database(elsewhere.directory) as admin:
        keys = "SELECT subject::text, wrapped IS NULL FROM vault.keys ORDER BY 2"
        assert admin.rows(keys) == [(other, False), (person, True)]
    assert elsewhere.end() == 0
