"""What is known of a customer's next purchase, and what is spent on keeping it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.e2e.api.making import amount, customer
from tests.e2e.api.recorded import last_event, problem, twice
from tests.e2e.api.running import Client, Product

PERIODIC = {"repeat_type": "periodic", "cycle_days": 90, "stock_alert_below": "12.50"}
WORTH = {"worth_keeping": True, "social_effect": "high", "limit": amount("100.00")}


@pytest.fixture
def path(admin: Client) -> str:
    """Of a customer."""
    return f"/v1/customers/{customer(admin)}"


def test_an_order_with_our_cost(admin: Client, path: str, product: Product) -> None:
    order = {"order_id": "A-1", "amount": amount("100.00"), "cost": amount("70.00")}
    assert twice(admin, f"{path}/orders", order) == 2
    assert last_event(product) == ("crm.customer.order-placed", 2, order)
    for changed in ({"cost": amount("71.00")}, {"cost": None}):
        refused = admin.command(f"{path}/orders", {**order, **changed})
        assert problem(refused) == (409, "order-differs")


def test_an_order_without_cost(admin: Client, path: str, product: Product) -> None:
    order = {"order_id": "A-1", "amount": amount("100.00")}
    assert twice(admin, f"{path}/orders", order) == 2
    assert last_event(product) == ("crm.customer.order-placed", 2, order)


def test_a_cost_is_in_the_orders_currency(admin: Client, path: str) -> None:
    order = {"order_id": "A-1", "amount": amount("100.00"), "cost": amount("70.00", "EUR")}
    assert problem(admin.command(f"{path}/orders", order)) == (409, "currency-differs")


@pytest.mark.parametrize("value", ["-0.01", "NaN", "1.001", 7, None], ids=repr)
def test_a_cost_is_an_amount(admin: Client, path: str, value: Any) -> None:
    cost = {"value": value, "currency": "CNY"}
    order = {"order_id": "A-1", "amount": amount("100.00"), "cost": cost}
    assert problem(admin.command(f"{path}/orders", order)) == (422, "invalid-request")


def test_a_demand(admin: Client, path: str, product: Product) -> None:
    assert twice(admin, f"{path}/demand", PERIODIC) == 2
    assert last_event(product) == ("crm.customer.demand-described", 1, PERIODIC)
    assert twice(admin, f"{path}/demand", {"repeat_type": "project"}) == 3
    assert twice(admin, f"{path}/demand", {}) == 4
    assert last_event(product) == ("crm.customer.demand-described", 1, {})


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        ({"cycle_days": 0}, "invalid-request"),
        ({"cycle_days": 3_651}, "invalid-request"),
        ({"cycle_days": 1.5}, "invalid-request"),
        ({"cycle_days": "90"}, "invalid-request"),
        ({"repeat_type": "often"}, "invalid-request"),
        ({"repeat_type": "project", "cycle_days": 90}, "invalid-cycle"),
        ({"stock_alert_below": "-1"}, "invalid-request"),
        ({"stock_alert_below": "0"}, "invalid-quantity"),
        ({"stock_alert_below": "0.0000000000001"}, "invalid-request"),
        ({"stock_alert_below": True}, "invalid-request"),
    ],
    ids=repr,
)
def test_a_demand_that_nobody_has(
    admin: Client, path: str, body: dict[str, Any], slug: str
) -> None:
    assert problem(admin.command(f"{path}/demand", body)) == (422, slug)


def test_a_stock(admin: Client, path: str, product: Product) -> None:
    for version, level in enumerate(("9.25", 9.25, "9.25", 0), 2):
        answer = admin.done(f"{path}/stock", {"level": level})
        assert answer["version"] == version, "each report is a fact of its own"
    assert last_event(product) == ("crm.customer.stock-reported", 1, {"level": "0"})


@pytest.mark.parametrize(
    "level", ["-1", -1, "NaN", "Infinity", "1000000000000000", 1e15, "few", None, True], ids=repr
)
def test_a_stock_that_there_is_not(admin: Client, path: str, level: Any) -> None:
    assert problem(admin.command(f"{path}/stock", {"level": level})) == (422, "invalid-request")


def test_what_is_spent_stays_within_the_limit(admin: Client, path: str, product: Product) -> None:
    """R66: above it 409."""
    costs = f"{path}/retention-costs"
    first = {"amount": amount("60.00"), "reference": "RE 1"}
    assert problem(admin.command(costs, first)) == (409, "retention-not-planned")
    assert twice(admin, f"{path}/retention", WORTH) == 2
    assert last_event(product) == ("crm.customer.retention-planned", 1, WORTH)
    assert twice(admin, costs, first) == 3
    assert last_event(product) == ("crm.customer.retention-spent", 1, first)
    differs = admin.command(costs, {**first, "amount": amount("61.00")})
    assert problem(differs) == (409, "cost-differs")
    for value, told in (("40.01", (409, "retention-limit-exceeded")), ("40.00", (200, ""))):
        assert problem(admin.command(costs, {"amount": amount(value)})) == told
    dollars = admin.command(costs, {"amount": amount("0.00", "USD")})
    assert problem(dollars) == (409, "currency-differs")


def test_a_cost_without_reference_is_booked_under_its_key(admin: Client, path: str) -> None:
    admin.done(f"{path}/retention", WORTH)
    keys = (uuid.uuid4().hex, uuid.uuid4().hex)
    spent = {"amount": amount("10.00")}
    versions = [
        admin.command(f"{path}/retention-costs", spent, key=key).json()["version"]
        for key in (keys[0], keys[0], keys[1])
    ]
    assert versions == [3, 3, 4]


def test_nothing_is_spent_on_who_is_not_worth_keeping(admin: Client, path: str) -> None:
    lost = {**WORTH, "worth_keeping": False}
    assert problem(admin.command(f"{path}/retention", lost)) == (422, "invalid-limit")
    assert twice(admin, f"{path}/retention", {**lost, "limit": amount("0.00")}) == 2


@pytest.mark.parametrize(
    "change",
    [{"worth_keeping": "yes"}, {"limit": None}, {"limit": amount("-1.00")}, {"social_effect": "?"}],
    ids=repr,
)
def test_a_plan_that_is_none(admin: Client, path: str, change: dict[str, Any]) -> None:
    refused = admin.command(f"{path}/retention", {**WORTH, **change})
    assert problem(refused) == (422, "invalid-request")


@pytest.mark.parametrize(
    ("step", "body"),
    [
        ("demand", PERIODIC),
        ("stock", {"level": 1}),
        ("retention", WORTH),
        ("retention-costs", {"amount": amount()}),
    ],
)
def test_of_nobody(admin: Client, step: str, body: dict[str, Any]) -> None:
    refused = admin.command(f"/v1/customers/{uuid.uuid4()}/{step}", body)
    assert problem(refused) == (404, "customer-not-found")
