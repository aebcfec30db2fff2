"""Erased stays erased: after a restored backup, in other processes, and where there was no key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from domain.errors import ContactNotFound, CustomerNotFound, NotAPerson, SubjectErased
from domain.values import CustomerKind, Personal
from infra.commands import Request, StoreUnavailable
from infra.erasure import Erasure, Erasures
from infra.erasure_file import ErasureFile
from tests.integration.eventstore.products import Product
from tests.integration.eventstore.stepping import Log, eventually, run

pytestmark = pytest.mark.database

REQUEST = Request("auditor", None, reason="asked for")


@pytest.fixture
def file(tmp_path: Path) -> ErasureFile:
    return ErasureFile(tmp_path / "erasures.ndjson")


def of(product: Product, file: ErasureFile) -> Erasures:
    factory = product.factory
    return Erasures(factory.vault, factory.vault_pool, factory.pool, file)


@pytest.fixture
def erasures(product: Product, file: ErasureFile) -> Erasures:
    return of(product, file)


@pytest.fixture
def person(product: Product) -> UUID:
    person = uuid4()
    run(product.register(person, kind=CustomerKind.PERSON, name="Zaphod", attributes={"a": 1}))
    return person


def erased(erasures: Erasures, product: Product, person: UUID) -> Erasure:
    return run(erasures.erase(product.commands, person, None, REQUEST))


class Vaults:
    """The vault's tables seen from outside."""

    def __init__(self, log: Log, environment: dict[str, str]) -> None:
        self._log = log
        self._schema = environment["VAULT_SCHEMA"]

    def rows(self, statement: str, *parameters: object) -> list[object]:
        self._log.rows(f"SET search_path TO {self._schema}")
        try:
            return self._log.rows(statement, parameters)
        finally:
            self._log.rows(f"SET search_path TO {self._log.schema}")

    def key(self, subject: UUID) -> object:
        return self.rows(
            "SELECT wrapped IS NOT NULL, destroyed_at IS NOT NULL FROM keys WHERE subject = %s",
            subject,
        )


@pytest.fixture
def vaults(log: Log, log_environment: dict[str, str]) -> Vaults:
    return Vaults(log, log_environment)


def test_a_key_that_a_backup_brought_back_is_destroyed_again(
    product: Product, erasures: Erasures, person: UUID, vaults: Vaults, file: ErasureFile
) -> None:
    (kept,) = vaults.rows("SELECT wrapped FROM keys WHERE subject = %s", person)
    first = erased(erasures, product, person)
    assert vaults.key(person) == [(False, True)]
    assert erasures.reapply() == 0
    restore = "UPDATE keys SET wrapped = %s, destroyed_at = NULL WHERE subject = %s"
    vaults.rows(restore, kept[0], person)  # type: ignore[index]
    assert vaults.key(person) == [(True, False)]
    assert erasures.reapply() == 1
    assert vaults.key(person) == [(False, True)]
    # A backup of before knows of no erasure at all: the file does.
    vaults.rows("DELETE FROM erasures")
    vaults.rows(restore, kept[0], person)  # type: ignore[index]
    assert erasures.reapply() == 1
    assert vaults.key(person) == [(False, True)]
    run(erasures.complete(product.commands))
    assert erasures.find(person) == first
    assert len(list(file.entries())) == 1


def test_what_is_missing_in_the_file_is_added(
    product: Product, erasures: Erasures, person: UUID, file: ErasureFile
) -> None:
    entry = erased(erasures, product, person).entry
    file.path.unlink()
    assert erasures.reapply() == 0
    assert list(file.entries()) == [entry]


def test_a_file_that_cannot_be_written_leaves_the_rest_to_a_repetition(
    product: Product, erasures: Erasures, person: UUID, vaults: Vaults, file: ErasureFile
) -> None:
    file.path.mkdir()
    with pytest.raises(StoreUnavailable, match="file of erasures"):
        erased(erasures, product, person)
    assert vaults.key(person) == [(False, True)]
    file.path.rmdir()
    found = erased(erasures, product, person)
    assert found.position is not None
    assert list(file.entries()) == [found.entry]


def test_who_never_had_a_key_gets_none(
    product: Product, erasures: Erasures, vaults: Vaults
) -> None:
    unnamed = uuid4()
    run(
        product.do(
            unnamed,
            lambda: product.crm.register_customer(
                unnamed, kind=CustomerKind.PERSON, name=None, identified=False
            ),
        )
    )
    assert vaults.key(unnamed) == []
    found = erased(erasures, product, unnamed)
    assert (found.sealed_fields, found.positions) == (0, [])
    assert vaults.key(unnamed) == [(False, True)]
    with pytest.raises(SubjectErased):
        run(product.rename(unnamed, "Zaphod"))
    product.factory.vault.prepare([unnamed])
    with pytest.raises(SubjectErased):
        product.factory.vault.seal(Personal(unnamed, "Zaphod"), event="e", field="name")
    assert vaults.key(unnamed) == [(False, True)]


def test_other_processes_forget_at_once(
    new_product: Callable[..., Product], person: UUID, file: ErasureFile, log: Log
) -> None:
    here, there = new_product(), new_product()
    there.factory.at_erasures.append(there.commands.forget)
    assert there.factory.doorbell is not None
    token = log.value("SELECT convert_from(state, 'UTF8')::jsonb ->> 'personal_name' FROM events")
    vault = there.factory.vault
    assert vault.remember == 60

    async def steps() -> None:
        await there.order(person, "1")  # the person is in its memory, with the name
        assert person in there.commands._repository._held
        assert vault.shown_tokens([token]) == {token: "Zaphod"}
        await of(here, file).erase(here.commands, person, None, REQUEST)
        await there.commands.blocking(
            lambda: eventually(lambda: vault.shown_tokens([token]) == {token: "[erased]"})
        )
        while person in there.commands._repository._held:
            await there.commands.blocking(lambda: None)

    run(steps())


def test_who_is_not_there_is_not_erased(
    product: Product, erasures: Erasures, person: UUID, vaults: Vaults
) -> None:
    company = uuid4()
    run(product.register(company))
    for customer, contact, error in (
        (uuid4(), None, CustomerNotFound),
        (company, None, NotAPerson),
        (company, uuid4(), ContactNotFound),
        (uuid4(), person, CustomerNotFound),
        (company, person, ContactNotFound),
    ):
        with pytest.raises(error):
            run(erasures.erase(product.commands, customer, contact, REQUEST))
    assert erasures.all() == []
    assert vaults.key(person) == [(True, False)]


def test_attributes_of_before_are_told_of(
    product: Product, erasures: Erasures, person: UUID, log: Log
) -> None:
    body = "convert_from(state, 'UTF8')::jsonb - 'personal_attributes'"
    clear = """ || '{"attributes": {"born": "1980"}}'"""
    log.rows(
        f"UPDATE events SET class_version = 1, state = convert_to(({body}{clear})::text, 'UTF8')"
    )
    found = erased(erasures, product, person)
    assert (found.in_clear, found.sealed_fields) == ([1], 1)
