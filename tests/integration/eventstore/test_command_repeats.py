"""A command is done once, however often it is sent; receipt, then If-Match, then rule."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from domain.errors import Invalid, NotInRelationship
from domain.values import CustomerKind, Level
from infra import tracing
from infra.commands import (
    Answer,
    Commands,
    KeyInFlight,
    KeyReused,
    Request,
    StaleVersion,
)
from tests.integration.eventstore.products import Product
from tests.integration.eventstore.stepping import Log, eventually, run

pytestmark = pytest.mark.database


def receipts(log: Log) -> set[str]:
    return {row[0] for row in log.rows("SELECT key FROM receipts")}


@pytest.fixture(params=["the same process", "another process"])
def second(
    request: pytest.FixtureRequest, product: Product, new_product: Callable[..., Product]
) -> Product:
    """Where the repetition arrives."""
    return product if request.param == "the same process" else new_product()


def test_a_repetition_gets_the_first_answer(log: Log, product: Product, second: Product) -> None:
    id_ = uuid4()

    async def steps() -> None:
        first = await product.register(id_, "register")
        assert first == Answer(200, id_, 1, 1, {})
        await product.order(id_, "1", "order")
        again = await second.register(id_, "register")
        assert again == Answer(200, id_, 1, 1, {}, repeated=True)
        assert await second.order(id_, "1", "order") == Answer(200, id_, 2, 2, {}, repeated=True)

    run(steps())
    assert log.check() == 2
    assert receipts(log) == {"register", "order"}


def test_a_repeated_creation_gets_the_id_of_the_first(
    log: Log, product: Product, second: Product
) -> None:
    """The id of a new thing is drawn anew each time it is asked for."""

    async def steps() -> None:
        drawn, drawn_again = uuid4(), uuid4()
        await product.register(drawn, "key")
        assert (await second.register(drawn_again, "key")).id == drawn

    run(steps())
    assert log.check() == 1


def test_the_answer_of_the_first_is_kept_whole(product: Product, second: Product) -> None:
    id_ = uuid4()

    async def steps() -> None:
        def decide(on: Product) -> Any:
            return on.crm.register_customer(id_, kind=CustomerKind.COMPANY, name="Acme")

        asked = Request("tester", "key", b"#")
        given: dict[str, Any] = {"status": 201, "extra": {"contact_id": str(uuid4())}}
        first = await product.commands.execute(
            lambda: decide(product), target=id_, request=asked, **given
        )
        assert first.status == 201
        again = await second.commands.execute(lambda: decide(second), target=id_, request=asked)
        assert again == Answer(201, id_, 1, 1, given["extra"], repeated=True)

    run(steps())


def test_the_same_key_for_another_request_is_refused(
    log: Log, product: Product, second: Product
) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_, "key")
        with pytest.raises(KeyReused):
            await second.order(id_, "1", "key", request_hash=b"other")
        with pytest.raises(KeyReused):  # before the rule, which would refuse as well
            await second.level(id_, Level.STABLE, "key", request_hash=b"other")
        with pytest.raises(KeyReused):  # before If-Match, which would fail as well
            await second.order(id_, "1", "key", request_hash=b"other", if_match=99)

    run(steps())
    assert log.check() == 1


def test_a_repetition_is_no_error_in_its_trace(
    product: Product, new_product: Callable[..., Product]
) -> None:
    """In another process, which learns of the first only from the log."""
    id_, second = uuid4(), new_product()
    exporter = InMemorySpanExporter()

    async def steps() -> None:
        await product.register(id_, "key")
        assert (await second.register(uuid4(), "key")).repeated
        with pytest.raises(KeyReused):
            await second.register(uuid4(), "key", request_hash=b"other")

    tracing.configure(None, "crm-test", exporter=exporter)
    try:
        run(steps())
    finally:
        tracing.close()
    spans = exporter.get_finished_spans()
    told = [(span.name, span.status.status_code, span.attributes["crm.events"]) for span in spans]
    unset = StatusCode.UNSET
    assert told == [("record", unset, 1), ("record", unset, 0), ("record", unset, 0)]


def test_the_same_key_of_another_principal_is_another_key(log: Log, product: Product) -> None:
    async def steps() -> None:
        for actor in ("one", "two"):
            id_ = uuid4()
            answer = await product.commands.execute(
                partial(product.crm.register_customer, id_, kind=CustomerKind.COMPANY, name="Acme"),
                target=id_,
                request=Request(actor, "key", b"#"),
            )
            assert not answer.repeated

    run(steps())
    assert log.check() == 2


def test_a_command_that_adds_nothing_has_a_receipt(
    log: Log, product: Product, second: Product
) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_)
        await product.order(id_, "1")
        nothing = await product.order(id_, "1", "nothing")
        assert nothing == Answer(200, id_, 2, 2, {})
        await product.order(id_, "2")
        assert await second.order(id_, "1", "nothing") == Answer(200, id_, 2, 2, {}, repeated=True)
        with pytest.raises(KeyReused):
            await second.order(id_, "1", "nothing", request_hash=b"other")
        assert await second.order(id_, "1") == Answer(200, id_, 3, 3, {})  # without a key

    run(steps())
    assert log.check() == 3
    assert receipts(log) == {"nothing"}


def test_a_refusal_has_no_receipt(log: Log, product: Product, second: Product) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_)
        with pytest.raises(NotInRelationship):
            await product.level(id_, Level.STABLE, "key")
        with pytest.raises(StaleVersion) as stale:
            await product.order(id_, "1", "key", if_match=7)
        assert stale.value.current == 1
        assert receipts(log) == set()

        await product.order(id_, "1")  # now the rule allows it
        assert not (await second.level(id_, Level.STABLE, "key")).repeated

    run(steps())
    assert receipts(log) == {"key"}


def test_a_repetition_that_the_rule_would_now_refuse(
    log: Log, product: Product, second: Product
) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_)
        await product.order(id_, "1")
        done = await product.level(id_, Level.STABLE, "level", if_match=2)
        product.tick()
        second.now = product.now
        await product.churn(id_)

        with pytest.raises(NotInRelationship):
            await second.level(id_, Level.STABLE, "other key")
        again = await second.level(id_, Level.STABLE, "level")
        assert again == Answer(200, id_, done.version, done.position, {}, repeated=True)
        again = await second.level(id_, Level.STABLE, "level", if_match=2)  # stale by now
        assert again.repeated

    run(steps())
    assert log.check() == 4


def test_if_match_comes_before_the_rule(product: Product) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_)
        with pytest.raises(StaleVersion):
            await product.level(id_, Level.STABLE, "key", if_match=2)
        with pytest.raises(NotInRelationship):
            await product.level(id_, Level.STABLE, "key", if_match=1)

    run(steps())


@pytest.mark.parametrize("processes", [1, 2])
def test_the_same_command_many_times_at_once(
    log: Log, new_product: Callable[..., Product], processes: int
) -> None:
    products = [new_product() for _ in range(processes)]
    id_ = uuid4()

    async def steps() -> None:
        await products[0].register(id_)
        answers = await asyncio.gather(
            *(on.order(id_, "1", "key") for _ in range(5) for on in products)
        )
        assert {(a.id, a.version, a.position) for a in answers} == {(id_, 2, 2)}
        assert sum(not answer.repeated for answer in answers) == 1

    run(steps())
    assert log.check() == 2


def test_the_same_key_in_two_processes_before_either_has_committed(
    log: Log, new_product: Callable[..., Product]
) -> None:
    products = [new_product(), new_product()]

    async def steps() -> None:
        drawn = [uuid4(), uuid4()]
        with log.held():
            tasks = []
            for n, (on, id_) in enumerate(zip(products, drawn, strict=True)):
                tasks.append(asyncio.create_task(on.register(id_, "key")))
                await asyncio.to_thread(eventually, partial(log.waits_for_a_lock, n + 1))
        first, second = await asyncio.gather(*tasks)
        assert {first.repeated, second.repeated} == {False, True}
        assert first.id == second.id
        assert first.position == second.position == 1

    run(steps())
    assert log.check() == 1


def test_a_key_in_flight_waits_for_its_first_and_then_says_so(
    log: Log, product: Product, log_environment: dict[str, str]
) -> None:
    id_ = uuid4()
    product.commands = Commands(product.crm, product.factory.vault, wait_for_key=0.0)

    async def steps() -> None:
        with log.held():
            first = asyncio.create_task(product.register(id_, "key"))
            await asyncio.to_thread(eventually, log.waiting_for_a_lock)
            with pytest.raises(KeyInFlight):
                await product.register(id_, "key")
        assert not (await first).repeated
        assert (await product.register(id_, "key")).repeated

    run(steps())
    assert log.check() == 1


def test_after_a_refused_first_the_waiting_repetition_is_tried(log: Log, product: Product) -> None:
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_)
        refusals = await asyncio.gather(
            *(product.level(id_, Level.STABLE, "key") for _ in range(3)), return_exceptions=True
        )
        assert [type(refusal) for refusal in refusals] == [NotInRelationship] * 3

    run(steps())
    assert receipts(log) == set()


@pytest.mark.parametrize(
    "wrong", [{"reason": "\x00"}, {"reason": "\ud800"}, {"key": "\x00"}, {"key": "\ud800"}]
)
def test_a_value_the_store_cannot_hold_is_a_value_that_is_wrong(
    log: Log, product: Product, wrong: dict[str, Any]
) -> None:
    """Not a store that cannot be reached: to try it again would be of no use."""
    id_ = uuid4()

    async def steps() -> None:
        with pytest.raises(Invalid):
            await product.register(id_, **{"key": "key", **wrong})
        assert (await product.register(id_, "key")).position == 1

    run(steps())
    assert log.check() == 1


def test_locks_and_slots_are_let_go(product: Product) -> None:
    async def steps() -> None:
        ids: list[UUID] = [uuid4() for _ in range(10)]
        await asyncio.gather(*(product.register(id_, str(id_)) for id_ in ids))
        await asyncio.gather(
            *(product.level(id_, Level.STABLE) for id_ in ids), return_exceptions=True
        )
        await asyncio.sleep(0)
        gc.collect()
        assert len(product.commands._locks) == 0
        assert product.commands._in_flight == {}
        assert product.commands._tasks == set()

    run(steps())
