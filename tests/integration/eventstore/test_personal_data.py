"""Text about a person is nowhere in the clear, and gone when the person's key is destroyed."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
import structlog

from domain.errors import SubjectErased
from domain.values import CustomerKind, Money, Severity
from infra.commands import StoreUnavailable
from infra.eventstore.feed import StoreFeed
from infra.eventstore.records import OutcomeUnknown
from infra.logging import configure
from infra.vault import WrongMasterKey
from tests.integration.eventstore.products import Product
from tests.integration.eventstore.stepping import Log, eventually, run

pytestmark = pytest.mark.database

SECRETS = ("Zaphod Beeblebrox", "Trillian Astra", "trillian@example.org", "+44 1632 960123")
DETAIL = "Marvin said that he is depressed"
SUMMARY = "Mr Prosser was difficult"
ALL_SECRETS = (*SECRETS, DETAIL, SUMMARY)
OPEN = "Sirius Cybernetics"


class People:
    """A person who is a customer, with a contact, and texts about both."""

    def __init__(self) -> None:
        self.person, self.contact, self.deal = uuid4(), uuid4(), uuid4()

    async def tell(self, product: Product) -> None:
        crm, person = product.crm, self.person
        await product.do(person, crm.define_default_pipeline)
        await product.register(person, "register", kind=CustomerKind.PERSON, name=SECRETS[0])
        for key, target, decide in (
            ("contact", person, lambda: self.add_contact(product)),
            (
                "signal",
                person,
                lambda: crm.raise_churn_signal(
                    person, kind="complaint", severity=Severity.HIGH, detail=DETAIL
                ),
            ),
            (
                "deal",
                self.deal,
                lambda: crm.open_opportunity(
                    self.deal,
                    customer_id=person,
                    name="deal",
                    amount=Money(Decimal(1), "EUR"),
                ),
            ),
            ("review", self.deal, lambda: crm.review(self.deal, summary=SUMMARY)),
        ):
            await product.do(target, decide, key)

    def add_contact(self, product: Product) -> Any:
        return product.crm.add_contact(
            self.person,
            contact_id=self.contact,
            name=SECRETS[1],
            department=OPEN,
            email=SECRETS[2],
            phone=SECRETS[3],
        )


@pytest.fixture
def people() -> People:
    return People()


def erase(log: Log, environment: dict[str, str], subject: UUID) -> None:
    log.rows(
        f"UPDATE {environment['VAULT_SCHEMA']}.keys"
        " SET wrapped = NULL, destroyed_at = clock_timestamp() WHERE subject = %s",
        [subject],
    )


def found(log: Log, schemas: list[str], text: str) -> set[str]:
    """The tables that hold the text: as text, as bytes or in base64."""
    raw = text.encode()
    forms = [text, raw.hex(), base64.b64encode(raw).decode()[:-4], raw.decode().upper()]
    tables = log.rows(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY(%s)", [schemas]
    )
    assert len(tables) >= 6
    return {
        table
        for schema, table in tables
        for form in forms
        if log.value(
            f"SELECT count(*) FROM {schema}.{table} AS t WHERE position(%s IN t::text) > 0", [form]
        )
    }


def test_no_table_holds_it_in_the_clear(
    log: Log,
    log_environment: dict[str, str],
    new_product: Callable[..., Product],
    people: People,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infra.commands.SNAPSHOT_EVERY", 1)
    product = new_product(IS_SNAPSHOTTING_ENABLED="y")

    async def steps() -> None:
        await people.tell(product)
        await product.commands.close()

    run(steps())
    schemas = [log_environment["LOG_SCHEMA"], log_environment["VAULT_SCHEMA"]]
    assert found(log, schemas, OPEN) == {"events", "snapshots"}  # the search does find things
    for secret in ALL_SECRETS:
        assert found(log, schemas, secret) == set()
    assert log.value("SELECT count(*) FROM receipts") == 5
    keys = log.rows(f"SELECT subject FROM {log_environment['VAULT_SCHEMA']}.keys")
    assert {row[0] for row in keys} == {people.person, people.contact}


def test_another_process_opens_it(new_product: Callable[..., Product], people: People) -> None:
    here, there = new_product(), new_product()
    run(people.tell(here))
    loaded: Any = there.commands._repository.load(people.person)
    contact = loaded.contacts[0]
    assert (
        loaded.personal_name.text,
        contact.name.text,
        contact.email.text,
        contact.phone.text,
    ) == (SECRETS)
    deal: Any = there.commands._repository.load(people.deal)
    assert deal.review_summary.text == SUMMARY


def test_the_feed_gives_it_unopened(product: Product, people: People) -> None:
    run(people.tell(product))
    batch = StoreFeed(product.factory.pool, product.factory.doorbell).read(0, 100)
    added = next(r.event for r in batch.events if r.topic == "crm.customer.contact-added")
    assert added.name.text is None
    assert product.factory.vault.open_tokens([added.name.sealed]) == {added.name.sealed: SECRETS[1]}


@pytest.mark.parametrize("snapshots", [False, True])
def test_when_the_key_is_destroyed_the_text_is_gone_and_the_stream_remains(
    log: Log,
    log_environment: dict[str, str],
    new_product: Callable[..., Product],
    people: People,
    snapshots: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infra.commands.SNAPSHOT_EVERY", 1)
    here = new_product(IS_SNAPSHOTTING_ENABLED="y" if snapshots else "n")

    async def before() -> None:
        await people.tell(here)
        await here.commands.close()

    run(before())
    erase(log, log_environment, people.contact)
    later = new_product(IS_SNAPSHOTTING_ENABLED="y" if snapshots else "n")

    async def after() -> None:
        loaded: Any = later.commands._repository.load(people.person)
        contact = loaded.contacts[0]
        assert loaded.personal_name.text == SECRETS[0]  # of somebody else
        assert (contact.name.text, contact.email.text, contact.phone.text) == (None, None, None)
        assert contact.department == OPEN
        assert (await later.order(people.person, "1")).version == 4
        assert later.commands._repository.load(people.person) is not None

    run(after())
    log.check()


def test_new_text_about_an_erased_person_is_refused(
    log: Log,
    log_environment: dict[str, str],
    new_product: Callable[..., Product],
    people: People,
) -> None:
    run(people.tell(new_product()))
    erase(log, log_environment, people.person)
    later = new_product()
    person = people.person

    async def steps() -> None:
        before = log.check()
        for attempt in (
            later.rename(person, "Ford Prefect", "rename"),
            later.rename(person, "Ford Prefect"),
            later.do(
                person,
                lambda: later.crm.raise_churn_signal(
                    person, kind="complaint", severity=Severity.LOW, detail="a text"
                ),
                "signal 2",
            ),
        ):
            with pytest.raises(SubjectErased) as refused:
                await attempt
            assert refused.value.type == "subject-erased"
        assert log.check() == before
        assert log.value("SELECT count(*) FROM receipts") == 5
        # What was done before is answered as it was, and what is not about the person goes on.
        again = await later.do(
            person,
            lambda: later.crm.raise_churn_signal(
                person, kind="complaint", severity=Severity.HIGH, detail=DETAIL
            ),
            "signal",
        )
        assert again.repeated
        await later.order(person, "1")
        await later.do(
            person,
            lambda: later.crm.raise_churn_signal(
                person, kind="complaint", severity=Severity.LOW, detail=None
            ),
        )

    run(steps())
    log.check()


def test_the_wrong_master_key_is_told_and_nothing_recorded(
    log: Log, new_product: Callable[..., Product], people: People, tmp_path: Path
) -> None:
    other = tmp_path / "other.key"
    other.write_bytes(b"o" * 32)
    wrong = new_product(MASTER_KEY_FILE=str(other))  # while the vault was empty
    run(people.tell(new_product()))

    async def steps() -> None:
        before = log.check()
        with pytest.raises(StoreUnavailable, match="WrongMasterKey"):
            await wrong.order(people.person, "1", "key")
        new = uuid4()
        await wrong.register(new)  # a company needs no key
        assert log.check() == before + 1

    run(steps())


def test_a_process_with_the_wrong_master_key_does_not_start(
    log: Log, new_product: Callable[..., Product], people: People, tmp_path: Path
) -> None:
    run(people.tell(new_product()))
    before = log.check()
    other = tmp_path / "other.key"
    with pytest.raises(WrongMasterKey, match=f"{other} is not there"):
        new_product(MASTER_KEY_FILE=str(other))
    assert not other.exists()
    other.write_bytes(b"o" * 32)
    with pytest.raises(WrongMasterKey, match=f"{other} is not the master key"):
        new_product(MASTER_KEY_FILE=str(other))
    assert log.check() == before


@pytest.fixture(params=["json", "console"])
def output(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What the product's logging writes, at its most talkative."""
    form: Literal["json", "console"] = request.param
    root = logging.getLogger()
    handlers, level, was = root.handlers[:], root.level, structlog.get_config()
    stream = io.StringIO()
    configure(form, "debug", stream)
    yield stream
    structlog.configure(**was)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_no_log_line_and_no_error_shows_it(
    log: Log,
    new_product: Callable[..., Product],
    people: People,
    output: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infra.commands.SNAPSHOT_EVERY", 1)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    product = new_product(IS_SNAPSHOTTING_ENABLED="y")
    errors: list[BaseException] = []

    async def attempt(key: str, step: str, broken: Any, owner: Any) -> None:
        stranger = uuid4()
        with monkeypatch.context() as patched:
            patched.setattr(owner, step, broken)
            try:
                await product.register(
                    stranger, key, kind=CustomerKind.PERSON, name=SECRETS[0], reason=key
                )
            except BaseException as error:
                errors.append(error)

    def dies(*_: Any, **__: Any) -> Any:
        raise RuntimeError("injected")

    async def steps() -> None:
        committer = product.committer
        monkeypatch.setattr(committer, "_connect_lane", None)  # all by the thread
        await people.tell(product)
        await attempt("1", "_append_group", dies, committer)
        await attempt("2", "_connect", dies, committer)
        await attempt("3", "prepare", dies, product.factory.vault)
        await attempt("4", "seal", dies, product.factory.vault)
        await attempt("\x00", "groups", committer.groups, committer)  # the database refuses it
        with log.held():
            lost = asyncio.create_task(attempt("5", "groups", committer.groups, committer))
            await asyncio.to_thread(eventually, log.waiting_for_a_lock)
            log.end_sessions(waiting_in="EXECUTE append_group%")
            await lost
        with monkeypatch.context() as patched:
            assert product.crm.snapshots is not None
            patched.setattr(product.crm.snapshots, "put", dies)
            await product.register(uuid4(), kind=CustomerKind.PERSON, name=SECRETS[0])
            await product.commands.close()

    run(steps())
    assert len(errors) == 6
    assert {type(error) for error in errors} >= {OutcomeUnknown, RuntimeError}
    written = output.getvalue()
    for expected in ("committer died", "snapshot failed", "connection lost", "group refused"):
        assert expected in written
    told = "".join("".join(traceback.format_exception(error)) + repr(error) for error in errors)
    for secret in ALL_SECRETS:
        assert secret not in written
        assert secret not in told
