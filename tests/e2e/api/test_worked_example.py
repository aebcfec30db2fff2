"""The weighted forecast with timing (R42), figure by figure, through the API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.api.running import Client, Product

DEALS = {"prospect": "500000.00", "bid": "250000.00", "negotiation": "200000.00"}


@pytest.fixture(scope="module")
def sales(start_product: Callable[..., Product]) -> Iterator[Client]:
    """A product of its own, with one deal in each stage of the default pipeline."""
    with start_product().client() as client:
        customer = client.done("/v1/customers", {"name": "Harbour Works"})["id"]
        for stage, value in DEALS.items():
            body = {
                "customer_id": customer,
                "name": f"crane, {stage}",
                "amount": {"value": value, "currency": "CNY"},
                "stage": stage,
            }
            client.done("/v1/opportunities", body)
        yield client


def values(answer: dict[str, Any], name: str) -> list[str]:
    assert {month[name]["currency"] for month in answer["months"]} == {"CNY"}
    return [month[name]["value"] for month in answer["months"]]


def test_the_chances_to_win_are_products(sales: Client) -> None:
    """R42: 0.36, 0.72, 0.9."""
    (pipeline,) = sales.read("/v1/pipelines")["items"]
    assert {stage["name"]: stage["chance_to_win"] for stage in pipeline["stages"]} == {
        "prospect": "0.36",
        "bid": "0.72",
        "negotiation": "0.9",
        "contract": "1",
    }


def test_the_funnel_weighs_each_stage_at_180_000(sales: Client) -> None:
    """R42: what each stage is worth."""
    stages = {stage["stage"]: stage for stage in sales.read("/v1/funnel")["stages"]}
    for name, value in DEALS.items():
        assert stages[name]["deals"] == 1
        assert stages[name]["amount"] == {"value": value, "currency": "CNY"}
        assert stages[name]["weighted"] == {"value": "180000.00", "currency": "CNY"}
    assert stages["contract"]["deals"] == 0


def test_with_half_of_the_stage_left_it_is_180_000_in_months_1_2_and_3(sales: Client) -> None:
    """R42: with deviations of 60,000, 112,250, 240,000, together 271,662."""
    answer = sales.read("/v1/forecast", timing="half_elapsed", months=4)
    assert values(answer, "expected") == ["180000.00", "180000.00", "180000.00", "0.00"]
    assert values(answer, "sd") == ["60000.00", "112249.72", "240000.00", "0.00"]
    assert answer["total"]["value"] == "540000.00"
    assert answer["sd"]["value"] == "271661.55"
    assert answer["beyond"]["value"] == "0.00"


def test_with_the_full_duration_it_is_months_1_2_and_4(sales: Client) -> None:
    """R42: nothing in month 3."""
    answer = sales.read("/v1/forecast", timing="full_duration", months=4)
    assert values(answer, "expected") == ["180000.00", "180000.00", "0.00", "180000.00"]
    assert answer["total"]["value"] == "540000.00"


def test_what_falls_later_is_beyond(sales: Client) -> None:
    answer = sales.read("/v1/forecast", timing="full_duration", months=3)
    assert answer["total"]["value"] == "360000.00"
    assert answer["beyond"]["value"] == "180000.00"


def test_a_deal_in_contract_counts_whole_in_month_1(sales: Client) -> None:
    """R42: chance 1, no duration."""
    (deal,) = sales.read("/v1/opportunities", stage="negotiation")["items"]
    sales.done(f"/v1/opportunities/{deal['id']}/stage", {"stage": "contract"})
    try:
        answer = sales.read("/v1/forecast", months=1)
        assert values(answer, "expected") == ["200000.00"]
        assert values(answer, "sd") == ["0.00"]
    finally:
        sales.done(f"/v1/opportunities/{deal['id']}/stage", {"stage": "negotiation"})


def test_the_forecast_of_before_is_what_it_was(sales: Client) -> None:
    known = sales.read("/v1/forecast")["known_at"]
    (deal,) = sales.read("/v1/opportunities", stage="bid")["items"]
    sales.done(f"/v1/opportunities/{deal['id']}/suspend")
    assert sales.read("/v1/forecast")["total"]["value"] == "360000.00"
    before = sales.read("/v1/forecast", known_at=known)
    assert (before["total"]["value"], before["known_at"]) == ("540000.00", known)
    sales.done(f"/v1/opportunities/{deal['id']}/resume")
    assert sales.read("/v1/forecast")["total"]["value"] == "540000.00"
