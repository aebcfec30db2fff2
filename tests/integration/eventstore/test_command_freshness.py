"""What another process wrote meanwhile costs one more try, and no wrong answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.errors import CustomerNotFound, NotInRelationship
from domain.values import CustomerKind, CustomerType, Level, Money, Severity
from infra import commands as write_path
from infra.commands import StaleVersion, StillConflicting
from tests.integration.eventstore.products import Product
from tests.integration.eventstore.stepping import PATIENCE, Log, run

pytestmark = pytest.mark.database


@pytest.fixture
def here(new_product: Callable[..., Product]) -> Product:
    return new_product()


@pytest.fixture
def there(new_product: Callable[..., Product]) -> Product:
    return new_product()


def counting(product: Product, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is loaded from the log from now on."""
    loaded: list[Any] = []
    load = product.commands._repository.load

    def counted(id_: Any) -> Any:
        loaded.append(id_)
        return load(id_)

    monkeypatch.setattr(product.commands._repository, "load", counted)
    return loaded


def test_a_stale_aggregate_costs_one_more_try(
    log: Log, here: Product, there: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await here.register(id_)
        await there.order(id_, "1")
        loaded = counting(here, monkeypatch)
        assert (await here.order(id_, "2")).version == 3
        assert loaded == [id_]
        assert (await here.order(id_, "3")).version == 4
        assert loaded == [id_]  # what was committed is remembered

    run(steps())
    assert log.check() == 4


def test_a_fresh_aggregate_is_not_loaded(here: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = uuid4()

    async def steps() -> None:
        loaded = counting(here, monkeypatch)
        await here.register(id_)
        for n in range(5):
            await here.order(id_, str(n))
        assert loaded == []

    run(steps())


def test_a_refusal_is_only_said_of_the_present_state(here: Product, there: Product) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await here.register(id_)  # here it is a prospect still
        await there.order(id_, "1")
        assert (await here.level(id_, Level.STABLE)).version == 3

        there.tick()
        here.now = there.now
        await there.churn(id_)
        with pytest.raises(NotInRelationship):
            await here.level(id_, Level.GROWING)

    run(steps())


def test_that_there_is_nothing_to_do_is_only_said_of_the_present_state(
    here: Product, there: Product
) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await here.register(id_, name="Acme")
        await there.rename(id_, "Acme & Sons")
        assert (await here.rename(id_, "Acme")).version == 3
        assert (await there.rename(id_, "Acme")).version == 3

    run(steps())


def test_what_another_process_created_is_found(here: Product, there: Product) -> None:
    id_ = uuid4()

    async def steps() -> None:
        with pytest.raises(CustomerNotFound):
            await here.order(id_, "1")
        await there.register(id_)
        assert (await here.order(id_, "1")).version == 2

    run(steps())


def test_if_match_is_compared_with_the_present_state(here: Product, there: Product) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await here.register(id_)
        await there.order(id_, "1")
        assert (await here.order(id_, "2", if_match=2)).version == 3  # here it was 1
        await there.order(id_, "3")
        with pytest.raises(StaleVersion) as stale:
            await here.order(id_, "4", if_match=3)  # as it is here
        assert stale.value.current == 4
        with pytest.raises(StaleVersion) as stale:
            await here.order(id_, "4", if_match=9)
        assert stale.value.current == 4

    run(steps())


def test_many_writers_of_one_aggregate_in_two_processes(
    log: Log, here: Product, there: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_path, "MAX_TRIES", 1000)
    id_ = uuid4()

    async def steps() -> None:
        await here.register(id_)
        await asyncio.gather(
            *(on.order(id_, f"{n} of {i}") for n in range(10) for i, on in enumerate((here, there)))
        )

    run(steps())
    assert log.check() == 21


def test_an_endless_conflict_ends(
    log: Log, here: Product, there: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else always comes first."""
    id_ = uuid4()

    async def steps() -> None:
        await here.register(id_)
        record = here.commands._record
        meanwhile = iter(range(100))

        async def too_late(*args: Any) -> Any:
            await there.order(id_, str(next(meanwhile)))
            return await record(*args)

        monkeypatch.setattr(here.commands, "_record", too_late)
        with pytest.raises(StillConflicting):
            await here.order(id_, "mine")
        assert next(meanwhile) == write_path.MAX_TRIES
        monkeypatch.undo()
        assert (await here.order(id_, "mine")).version == 2 + write_path.MAX_TRIES

    run(steps())
    log.check()


def test_what_a_decision_only_reads_may_be_a_second_old(
    here: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = uuid4()

    async def steps() -> None:
        await here.do(customer, here.crm.define_default_pipeline)
        await here.register(customer)
        loaded = counting(here, monkeypatch)

        async def open_deal() -> None:
            id_ = uuid4()
            await here.do(
                id_,
                lambda: here.crm.open_opportunity(
                    id_, customer_id=customer, name="deal", amount=Money(Decimal(1), "EUR")
                ),
            )

        monkeypatch.setattr(write_path, "FRESH", 1000.0)
        monkeypatch.setattr(write_path, "STALE", 1000.0)
        await open_deal()
        assert loaded == []
        monkeypatch.setattr(write_path, "STALE", 0.0)  # each read takes longer than this
        await open_deal()
        assert len(loaded) == 2

    run(steps())


def test_what_is_only_read_is_loaded_anew_in_the_background(
    here: Product, there: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision that finds it aging does not wait for that; those after it see what it was."""
    customer, id_ = uuid4(), uuid4()

    async def steps() -> None:
        await here.register(customer)
        await there.order(customer, "1")
        loaded = counting(here, monkeypatch)

        def decide() -> Any:
            seen.append(here.crm.repository.get(customer).version)
            return here.crm.register_customer(id_, kind=CustomerKind.COMPANY, name="Acme")

        seen: list[int] = []
        monkeypatch.setattr(write_path, "STALE", 1000.0)
        monkeypatch.setattr(write_path, "FRESH", 0.0)
        await here.do(id_, decide)
        while here.commands._loading:
            await asyncio.wait(here.commands._loading.values())
        assert seen == [1]
        assert loaded == [customer]
        assert here.commands._repository._held[customer][0].version == 2

    run(steps())


def test_a_win_starts_the_relationship_of_a_customer_who_changed_meanwhile(
    log: Log, here: Product, there: Product
) -> None:
    """Two aggregates in one command, both stale."""
    customer, deal = uuid4(), uuid4()

    async def steps() -> None:
        await here.do(customer, here.crm.define_default_pipeline)
        await here.register(customer)
        await here.do(
            deal,
            lambda: here.crm.open_opportunity(
                deal, customer_id=customer, name="deal", amount=Money(Decimal(1), "EUR")
            ),
        )
        await there.rename(customer, "Acme & Sons")
        await there.do(deal, lambda: there.crm.transfer(deal, owner="them"))
        answer = await here.do(
            deal,
            lambda: here.crm.sign_contract(
                deal, amount=Money(Decimal(2), "EUR"), signed_on=here.now.date()
            ),
        )
        assert (answer.id, answer.version) == (deal, 3)
        loaded = there.commands._repository.load(customer)
        assert loaded is not None
        assert (loaded.version, loaded.type) == (3, CustomerType.RELATIONSHIP)

    run(steps())
    assert log.check() == 7


@pytest.mark.parametrize("refuses", [False, True])
def test_what_an_unfinished_decision_had_changed_is_not_remembered(
    log: Log, here: Product, refuses: bool
) -> None:
    """A decision that changes one thing, then meets another that is not in memory, or refuses."""
    first, second = uuid4(), uuid4()

    async def steps() -> None:
        await here.register(first)
        await here.register(second)
        if not refuses:
            here.commands._repository.release(second)

        def both() -> Any:
            changed = [
                here.crm.raise_churn_signal(id_, kind="complaint", severity=Severity.LOW)
                for id_ in (first, second)
            ]
            if refuses:
                raise NotInRelationship("a rule")
            return tuple(changed)

        if refuses:
            with pytest.raises(NotInRelationship):
                await here.do(second, both)
        else:
            await here.do(second, both)
        assert (await here.order(first, "1")).version == (2 if refuses else 3)

    run(steps())
    assert log.check() == (3 if refuses else 5)


def test_a_state_that_was_read_before_it_was_demanded_is_not_the_present_one(
    here: Product, there: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load that began early and ends late: what it has read is as old as its beginning."""
    other, id_, third = uuid4(), uuid4(), uuid4()
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    async def steps() -> None:
        await here.register(other)
        await here.register(id_)
        load = here.commands._repository.load

        def stepped(wanted: UUID) -> Any:
            found = load(wanted)
            if wanted == id_ and not begun.is_set():
                begun.set()
                assert go_on.wait(PATIENCE)
            elif wanted == other:  # while this one is loaded, the early one comes back
                go_on.set()
                assert ended.wait(PATIENCE)
            return found

        def reading(register: Any) -> Any:
            here.crm.repository.get(id_)
            return register(third, kind=CustomerKind.COMPANY, name="Third")

        monkeypatch.setattr(here.commands._repository, "load", stepped)
        monkeypatch.setattr(write_path, "FRESH", 1000.0)
        monkeypatch.setattr(write_path, "STALE", 0.0)
        early = asyncio.create_task(here.do(third, lambda: reading(here.crm.register_customer)))
        early.add_done_callback(lambda _: ended.set())
        await asyncio.to_thread(begun.wait, PATIENCE)
        monkeypatch.setattr(write_path, "STALE", 1000.0)
        await there.order(id_, "1")

        def decide() -> Any:
            here.crm.repository.get(other)
            return here.crm.change_level(id_, level=Level.STABLE)

        assert (await here.do(id_, decide)).version == 3
        await early

    run(steps())
