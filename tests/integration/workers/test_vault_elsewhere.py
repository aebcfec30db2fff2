"""Keys of personal data in a database of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from domain.values import CustomerKind
from infra.commands import Request
from infra.postgres import connect
from infra.settings import Settings, load
from infra.vault import WrongMasterKey
from workers.doctor import examine
from workers.keys import rotate_keys
from workers.wiring import databases, ledger

pytestmark = pytest.mark.database


def rows(url: str, statement: str) -> list[Any]:
    connection = connect(url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(statement)
        found = cursor.fetchall()
    connection.close()
    return found


def register(settings: Settings) -> None:
    person = uuid4()

    async def steps(book: Any) -> None:
        await book.prepare()
        await book.commands.execute(
            lambda: book.crm.register_customer(person, kind=CustomerKind.PERSON, name="Zaphod"),
            target=person,
            request=Request("tester", None),
        )
        await book.erasures.erase(book.commands, person, None, Request("tester", None))
        await book.commands.close()

    with databases(settings) as addresses, ledger(settings, addresses) as book:
        asyncio.run(steps(book))


def test_the_vault_has_its_own_database(new_database: Callable[[], str], tmp_path: Path) -> None:
    log, vault = new_database(), new_database()
    settings = load(
        {
            "CRM_DATABASE_URL": log,
            "CRM_VAULT_DATABASE_URL": vault,
            "CRM_DATA_DIR": str(tmp_path / "data"),
        }
    )
    register(settings)
    assert rows(log, "SELECT to_regclass('vault.keys')") == [(None,)]
    assert rows(vault, "SELECT to_regclass('log.events')") == [(None,)]
    assert rows(vault, "SELECT count(*), count(wrapped) FROM vault.keys") == [(1, 0)]
    assert rows(vault, "SELECT position FROM vault.erasures") == [(3,)]
    said = {one.subject: (one.good, one.text) for one in examine(settings)}
    assert said["keys of personal data"][0]
    assert said["erasures"][0]
    assert said["erasures"][1].startswith("1, also in ")
    assert "vault 00" in said["schemas"][1]
    assert rotate_keys(settings).startswith("0 keys")


def test_keys_that_were_not_moved_are_told_of(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    log = new_database()
    here = {"CRM_DATABASE_URL": log, "CRM_DATA_DIR": str(tmp_path / "data")}
    settings = load(here)
    with databases(settings) as addresses, ledger(settings, addresses) as book:
        book.vault.prepare([uuid4()])
    elsewhere = load({**here, "CRM_VAULT_DATABASE_URL": new_database()})
    with (
        databases(elsewhere) as addresses,
        pytest.raises(WrongMasterKey, match="Copy schema vault there first"),
        ledger(elsewhere, addresses),
    ):
        pass
