"""Nothing a client can say makes a stream unreadable: refused, or stored and read as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain import personal_attributes
from domain.customer import Customer
from domain.errors import DomainError, InvalidAttributes
from domain.values import CustomerKind, ExternalId, Level, Money, Severity
from infra.eventstore import transcoder
from infra.eventstore.feed import StoreFeed, Undecodable
from tests.integration.eventstore.products import Product
from tests.integration.eventstore.stepping import run

pytestmark = pytest.mark.database

anything = st.one_of(
    st.text(max_size=30),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Co", "Zs", "Mn"]), max_size=10),
    st.sampled_from(["_type_", "\x00", "\ud800", '{"_type_": "x"}', "\u2028", "e\u0301" * 50]),
)
attributes_ = st.dictionaries(
    st.one_of(anything, st.sampled_from(["_type_", "_data_", "__class__"])),
    st.one_of(anything, st.integers(), st.floats(), st.booleans()),
    max_size=5,
)
examples = settings(
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def told_apart(state: dict[str, Any]) -> dict[str, Any]:
    """True, 1 and 1.0 are equal, and not the same."""
    return {name: (type(value), value) for name, value in state.items()}


@examples
@given(name=anything, region=anything, kind=st.sampled_from(CustomerKind), attributes=attributes_)
def test_customers_of_any_name_and_attributes(
    product: Product, name: str, region: str, kind: CustomerKind, attributes: dict[str, Any]
) -> None:
    id_ = uuid4()

    def decide() -> Customer:
        return product.crm.register_customer(
            id_, kind=kind, name=name, region=region, attributes=attributes
        )

    async def steps() -> None:
        try:
            await product.do(id_, decide, str(id_))
        except DomainError:
            assert product.commands._repository.load(id_) is None
            return
        held: Any = product.commands._repository.get(id_)
        loaded: Any = product.commands._repository.load(id_)
        assert vars(loaded) == vars(held)
        told = personal_attributes.held(loaded.attributes, loaded.personal_attributes)
        assert told_apart(told) == told_apart(attributes)
        await product.rename(id_, "Acme")
        assert product.commands._repository.load(id_) is not None

    run(steps())


@examples
@given(text=anything, order_id=anything, owner=anything, source=anything)
def test_free_texts(product: Product, text: str, order_id: str, owner: str, source: str) -> None:
    id_, deal = uuid4(), uuid4()
    crm = product.crm

    async def steps() -> None:
        await product.do(id_, crm.define_default_pipeline)
        await product.register(id_)
        amount = Money(Decimal("0.01"), "EUR")
        for target, decide in (
            (id_, lambda: crm.place_order(id_, order_id=order_id, amount=amount)),
            (
                id_,
                lambda: crm.raise_churn_signal(id_, kind=text, severity=Severity.LOW, detail=text),
            ),
            (id_, lambda: crm.add_contact(id_, contact_id=deal, name=text, email=owner)),
            (
                deal,
                lambda: crm.open_opportunity(
                    deal,
                    customer_id=id_,
                    name=text,
                    amount=amount,
                    owner=owner,
                    external_id=ExternalId(source, order_id),
                ),
            ),
            (deal, lambda: crm.review(deal, summary=text, competitor=owner)),
            (deal, lambda: crm.lose(deal, cause=text, competitor=owner)),
        ):
            try:
                await product.do(target, decide)
            except (DomainError, TypeError):
                continue
        for target in (id_, deal):
            loaded: Any = product.commands._repository.load(target)
            held = product.commands._repository._held.get(target)
            if held is not None:
                assert vars(loaded) == vars(held[0])

    run(steps())
    feed = StoreFeed(product.factory.pool, product.factory.doorbell)
    assert not [r for r in feed.read(0, 100_000).events if isinstance(r.event, Undecodable)]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 2**63])
def test_what_json_has_no_number_for_is_refused(product: Product, number: float) -> None:
    id_ = uuid4()

    async def steps() -> None:
        with pytest.raises(InvalidAttributes):
            await product.register(id_, attributes={"x": number})
        assert product.commands._repository.load(id_) is None

    run(steps())


def test_old_events_of_a_class_that_has_changed(
    product: Product, new_product: Callable[..., Product], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the aggregate, in the feed, and in a snapshot that was taken before."""
    id_ = uuid4()

    async def before() -> None:
        await product.register(id_)
        await product.order(id_, "7")

    def upcast(state: dict[str, Any]) -> None:
        state["order_id"] = f"A-{state['order_id']}"

    run(before())
    monkeypatch.setattr(Customer.OrderPlaced, "class_version", 3)
    monkeypatch.setattr(Customer.OrderPlaced, "upcast_v2_v3", staticmethod(upcast), raising=False)
    transcoder.event_codec.cache_clear()
    try:
        later = new_product()

        async def after() -> None:
            await later.order(id_, "8")
            loaded: Any = later.commands._repository.load(id_)
            assert list(loaded.orders) == ["A-7", "8"]

        run(after())
        batch = StoreFeed(later.factory.pool, later.factory.doorbell).read(0, 10)
        assert [recorded.event.order_id for recorded in batch.events[1:]] == ["A-7", "8"]
    finally:
        transcoder.event_codec.cache_clear()


def test_times_are_kept_to_the_microsecond(product: Product) -> None:
    id_ = uuid4()
    product.now = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)

    async def steps() -> None:
        await product.register(id_)
        loaded: Any = product.commands._repository.load(id_)
        assert loaded.created_on == loaded.last_occurred_on == product.now

    run(steps())


def test_snapshots_shorten_the_load(
    new_product: Callable[..., Product], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.commands.SNAPSHOT_EVERY", 3)
    product = new_product(IS_SNAPSHOTTING_ENABLED="y")
    id_ = uuid4()

    async def steps() -> None:
        await product.register(id_)
        await product.order(id_, "1")
        await product.do(  # two events at once, past the third version
            id_,
            lambda: _both(product.crm.place_order(id_, order_id="2", amount=_one())),
        )
        await product.commands.close()

    def _both(customer: Customer) -> Customer:
        customer.change_level(level=Level.GROWING, at=product.now)
        return customer

    def _one() -> Money:
        return Money(Decimal(1), "EUR")

    run(steps())
    assert product.crm.snapshots is not None
    taken: Any = list(product.crm.snapshots.get(id_))
    assert [snapshot.originator_version for snapshot in taken] == [4]
    loaded: Any = product.commands._repository.load(id_)
    replayed: Any = None
    events: Any = product.crm.events.get(id_)
    for event in events:
        replayed = event.mutate(replayed)
    customer: Any = Customer
    for name in ("version", *(field.name for field in fields(customer))):
        assert getattr(loaded, name) == getattr(replayed, name)
    assert loaded.level is Level.GROWING
