"""A product that is backed up while it runs, lost, and brought back elsewhere."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_up import Product, product

__all__ = ["product"]  # the fixture

pytestmark = pytest.mark.database


@pytest.fixture
def elsewhere(product: Product) -> Iterator[Product]:
    """Another data directory."""
    other = Product(product.directory.with_name("other"))
    yield other
    if other.process is not None:
        other.end(signal.SIGKILL)
    if other.postmaster is not None:
        other.crm("doctor")


def test_a_product_comes_back_as_it_was(
    product: Product, elsewhere: Product, tmp_path: Path
) -> None:
    product.up()
    first = product.register("Acme", key="first")
    folder = tmp_path / "backup"
    made = product.crm("backup", str(folder))
    assert made.returncode == 0, made.stderr
    product.register("later than the backup")
    assert product.end(signal.SIGTERM) == 0
    assert product.crm("restore", str(folder), "--check").returncode == 0
    refused = product.crm("restore", str(folder))
    assert refused.returncode == 1
    said = [line for line in refused.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1  # beside log lines
    assert said[0].startswith("crm: the database is not empty: log.events holds rows.")

    elsewhere.directory.mkdir(mode=0o711)
    for name in ("master.key", "signing.key"):
        assert str(product.directory / name) in made.stderr
        shutil.copy(product.directory / name, elsewhere.directory)
    restored = elsewhere.crm("restore", str(folder))
    assert restored.returncode == 0, restored.stderr
    assert "Restored and read back: " in restored.stderr
    assert elsewhere.postmaster is None
    elsewhere.up()
    again = elsewhere.register("Acme", key="first")
    assert again.json() == first.json()
    position = elsewhere.register("Bolt").json()["position"]
    assert elsewhere.names(position) == ["Acme", "Bolt"]


def test_without_a_product_there_is_nothing_to_back_up(product: Product, tmp_path: Path) -> None:
    answer = product.crm("backup", str(tmp_path / "backup"))
    assert answer.returncode == 1
    assert answer.stderr.startswith("crm: there is no database in ")
    assert not product.directory.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_meant_is_told(product: Product, tmp_path: Path) -> None:
    for arguments, says in (
        (["restore"], "name a backup"),
        (["restore", str(tmp_path), "--adopt"], "goes without DIR"),
        (["archive", str(tmp_path)], "either --to POSITION or --check"),
        (["archive", str(tmp_path), "--to", "0"], "greater than or equal to 1"),
    ):
        answer = product.crm(*arguments)
        assert answer.returncode == 2, arguments
        assert says in answer.stderr
    for arguments in (["restore", str(tmp_path)], ["archive", str(tmp_path), "--check"]):
        answer = product.crm(*arguments)
        assert answer.returncode == 1, arguments
        assert answer.stderr.startswith("crm: ")
        assert answer.stderr.count("\n") == 1
