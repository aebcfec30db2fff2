"""Needs, keeping customers, what is moved and growth, through the API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.api.making import amount, campaign, customer, deal
from tests.e2e.api.running import Client, Product


def at(day: str) -> str:
    return f"{day}T09:00:00+00:00"


@pytest.fixture(scope="module")
def product_of_its_own(start_product: Callable[..., Product]) -> Product:
    return start_product()


@pytest.fixture
def client(product_of_its_own: Product) -> Iterator[Client]:
    with product_of_its_own.client() as client:
        yield client


def order(client: Client, who: str, day: str, value: str = "100.00", **more: Any) -> None:
    body = {"order_id": f"{who} {day}", "amount": amount(value), "occurred_at": at(day), **more}
    client.done(f"/v1/customers/{who}/orders", body)


def describe(client: Client, who: str, day: str, **demand: Any) -> None:
    client.done(f"/v1/customers/{who}/demand", {**demand, "occurred_at": at(day)})


def test_a_need_is_due_on_the_day_and_not_before(client: Client) -> None:
    """R69: last purchase + cycle, and stock below its level."""
    cycle, stock, project, lost = (customer(client, occurred_at=at("2024-01-01")) for _ in range(4))
    for who in (cycle, stock, project, lost):
        order(client, who, "2024-02-01")
    describe(client, cycle, "2024-02-02", repeat_type="periodic", cycle_days=30)
    describe(client, lost, "2024-02-02", repeat_type="periodic", cycle_days=30)
    describe(client, stock, "2024-02-02", repeat_type="continuous", stock_alert_below="10")
    describe(client, project, "2024-02-02", repeat_type="project")
    for day, level in (("2024-02-10", "12"), ("2024-02-20", "8"), ("2024-02-25", "6")):
        body = {"level": level, "occurred_at": at(day)}
        client.done(f"/v1/customers/{stock}/stock", body)
    client.done(f"/v1/customers/{lost}/churn", {"cause": "price", "occurred_at": at("2024-02-15")})

    def due(as_of: str, **more: Any) -> list[tuple[str, str, str]]:
        items = client.read("/v1/demand-alerts", as_of=as_of, **more)["items"]
        return [(item["customer_id"], item["kind"], item["due_at"]) for item in items]

    low = (stock, "stock", at("2024-02-20"))
    gone_by = (cycle, "cycle", at("2024-03-02"))  # 30 days after 1 February
    assert due("2024-02-20T08:59:59+00:00") == []
    assert due(at("2024-02-20")) == [low]
    assert due("2024-03-02T08:59:59+00:00") == [low]
    assert due(at("2024-03-02")) == [low, gone_by]
    assert due(at("2024-03-02"), kind="cycle") == [gone_by]
    assert due(at("2024-02-26"), due_before=at("2024-04-01")) == [low, gone_by]
    order(client, stock, "2024-03-05")
    assert due(at("2024-03-06")) == [gone_by]
    pages = list(client.pages("/v1/demand-alerts", as_of=at("2024-03-02"), limit=1))
    assert [page["items"][0]["kind"] for page in pages] == ["stock", "cycle"]


def test_what_keeping_costs_stands_against_what_is_at_stake(client: Client) -> None:
    """R66: the limit is refused to be passed."""
    big, small, failing = (customer(client, occurred_at=at("2024-01-01")) for _ in range(3))
    order(client, big, "2024-06-01", "5000.00")
    order(client, big, "2024-07-01", "1000.00")
    order(client, small, "2024-06-01", "100.00")
    order(client, failing, "2024-06-01", "300.00")
    for who, limit in ((big, "900.00"), (small, "500.00")):
        body = {
            "worth_keeping": True,
            "social_effect": "high",
            "limit": amount(limit),
            "occurred_at": at("2024-08-01"),
        }
        client.done(f"/v1/customers/{who}/retention", body)
    spent = {"amount": amount("200.00"), "reference": "visit", "occurred_at": at("2024-08-02")}
    client.done(f"/v1/customers/{big}/retention-costs", spent)
    too_much = {"amount": amount("700.01"), "reference": "gift", "occurred_at": at("2024-08-03")}
    assert client.command(f"/v1/customers/{big}/retention-costs", too_much).status_code == 409
    client.done(
        f"/v1/customers/{failing}/lifecycle",
        {"level": "declining", "occurred_at": at("2024-08-01")},
    )
    answer = client.read("/v1/retention", as_of=at("2024-09-01"))
    rows = {row["customer_id"]: row for row in answer["customers"]}
    assert list(rows) == [big, failing, small]
    assert rows[big]["past_revenue"] == rows[big]["value_at_stake"] == amount("6000.00")
    assert rows[big]["limit"] == amount("900.00")
    assert rows[big]["spent"] == amount("200.00")
    assert rows[big]["remaining"] == amount("700.00")
    assert rows[big]["over_value"] is False
    assert rows[small]["over_value"] is True
    assert (rows[failing]["level"], rows[failing]["limit"]) == ("declining", None)
    assert (answer["limit"], answer["spent"]) == (amount("1400.00"), amount("200.00"))
    planned = client.read("/v1/retention", as_of=at("2024-09-01"), planned="true")
    assert [row["customer_id"] for row in planned["customers"]] == [big, small]
    before = client.read("/v1/retention", as_of=at("2024-07-15"))
    assert before["customers"] == []


def test_sales_that_grow_without_profit_are_flagged(client: Client) -> None:
    """R10: sales +20%, profit +0%."""
    who = customer(client, occurred_at=at("2022-01-01"))
    order(client, who, "2022-01-10", "1000.00", cost=amount("600.00"))
    order(client, who, "2022-02-10", "1200.00", cost=amount("800.00"))
    order(client, who, "2022-03-10", "1800.00", cost=amount("1000.00"))
    months = {"from": "2022-02-01", "to": "2022-03-01", "before_from": "2022-01-01"}
    flagged = client.read("/v1/growth", **months)
    assert (flagged["sales_growth"], flagged["profit_growth"]) == ("0.2", "0")
    assert flagged["flagged"] is True
    assert flagged["lag"] == "0.2"
    assert flagged["after"]["raised_per_cost"] == "1.5"
    sound = client.read(
        "/v1/growth", **{"from": "2022-03-01", "to": "2022-04-01", "before_from": "2022-02-01"}
    )
    assert (sound["sales_growth"], sound["profit_growth"]) == ("0.5", "1")
    assert sound["flagged"] is False
    nothing = client.read("/v1/growth", **{"from": "2001-03-01", "to": "2001-04-01"})
    assert nothing["sales_growth"] is nothing["profit_growth"] is None
    assert nothing["flagged"] is False
    for wrong in (
        {"from": "2022-03-01", "to": "2022-02-01"},
        {"from": "2022-03-01"},
        {"from": "2022-03-01", "to": "2022-04-01", "before_from": "2022-03-01"},
    ):
        assert client.get("/v1/growth", params=wrong).status_code == 422


def test_marketing_and_sales_are_told_by_what_they_move(client: Client) -> None:
    """R30: median days and order rate beside revenue."""
    fair = campaign(
        client, occurred_at=at("2021-01-01"), starts_on="2021-01-01", ends_on="2021-02-01"
    )
    who = customer(client, occurred_at=at("2021-01-02"))
    customer(client, occurred_at=at("2021-01-02"))
    for opened, signed, source, value in (
        ("2021-01-12", "2021-01-22", fair, "100.00"),
        ("2021-01-12", "2021-02-11", fair, "50.00"),
        ("2021-01-12", None, fair, "70.00"),
        ("2021-01-13", "2021-01-18", None, "30.00"),
    ):
        made = deal(client, customer_id=who, occurred_at=at(opened), campaign_id=source)
        if signed:
            body = {"amount": amount(value), "signed_on": signed, "occurred_at": at(signed)}
            client.done(f"/v1/opportunities/{made}/contract", body)
    answer = client.read("/v1/performance", **{"from": at("2021-01-01"), "to": at("2021-03-01")})
    origins = {row.pop("origin"): row for row in answer["origins"]}
    assert origins["marketing"] == {
        "deals": 3, "won": 2, "lost": 0, "order_rate": "0.666667", "win_rate": "1",
        "median_days": "20", "revenue": amount("150.00"), "other_currencies": [],
    }  # fmt: skip
    assert origins["sales"]["median_days"] == "5"
    assert origins["sales"]["revenue"] == amount("30.00")
    steps = {row.pop("value"): row for row in answer["steps"]}
    assert steps["prospect"] == {
        "moved_by": "marketing", "customers": 2, "moved": 1, "rate": "0.5", "median_days": "10",
    }  # fmt: skip
    assert steps["opportunity"]["median_days"] == "6"
    assert client.read("/v1/performance", as_of=at("2000-01-01"))["origins"][0]["deals"] == 0
