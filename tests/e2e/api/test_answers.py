"""Lifecycle and attribution through the API, on a company small enough to reckon by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.e2e.api.making import amount, campaign, customer, deal
from tests.e2e.api.running import Client, Product

TODAY = datetime.now(UTC).date().isoformat()


@pytest.fixture(scope="module")
def company(start_product: Callable[..., Product]) -> Iterator[Client]:
    """Two campaigns; one deal won after three touches, one without any; one customer lost."""
    with start_product().client() as client:
        fair = campaign(client, "submit", "approve", "start", name="fair")
        letter = campaign(client, "submit", "approve", "start", name="letter", channel="letter")
        client.done(f"/v1/campaigns/{fair}/costs", {"amount": amount("50.00")})
        touched, untouched, lost = (customer(client) for _ in range(3))
        for source in (fair, fair, letter):
            response = {"campaign_id": source, "channel": "web", "kind": "click"}
            client.done(f"/v1/customers/{touched}/responses", response)
        for buyer, value in ((touched, "100.00"), (untouched, "30.00")):
            path = f"/v1/opportunities/{deal(client, customer_id=buyer)}"
            contract = {"amount": amount(value), "signed_on": TODAY}
            client.done(f"{path}/contract", contract)
        client.done(f"/v1/customers/{lost}/orders", {"order_id": "1", "amount": amount()})
        client.done(f"/v1/customers/{lost}/lifecycle", {"level": "stable"})
        client.done(f"/v1/customers/{lost}/churn", {"cause": "price"})
        yield client


@pytest.mark.parametrize(
    ("model", "credits_"),
    [
        ("first", {"fair": "100.00"}),
        ("last", {"letter": "100.00"}),
        ("linear", {"fair": "66.67", "letter": "33.33"}),
    ],
)
def test_won_revenue_is_attributed_and_unattributed_to_the_cent(
    company: Client, model: str, credits_: dict[str, str]
) -> None:
    names = {item["id"]: item["name"] for item in company.read("/v1/campaigns")["items"]}
    answer = company.read("/v1/attribution", model=model)
    assert answer["revenue"]["value"] == "130.00"
    assert answer["unattributed"]["value"] == "30.00"
    found = {names[row["campaign_id"]]: row["credit"]["value"] for row in answer["campaigns"]}
    assert {name: value for name, value in found.items() if value != "0.00"} == credits_
    parts = [Decimal(value) for value in (*found.values(), answer["unattributed"]["value"])]
    assert sum(parts) == Decimal(answer["revenue"]["value"])


def test_attribution_counts_the_days_asked_for(company: Client) -> None:
    assert company.read("/v1/attribution", to=TODAY)["revenue"]["value"] == "0.00"
    since = company.read("/v1/attribution", **{"from": TODAY})
    assert since["revenue"]["value"] == "130.00"


def test_performance_has_cost_responses_and_return(company: Client) -> None:
    rows = {row["name"]: row for row in company.read("/v1/campaigns/performance")["campaigns"]}
    assert rows["fair"]["cost"] == amount("50.00")
    assert rows["fair"]["responses"] == 2
    assert rows["letter"]["credit"] == amount("100.00")
    assert rows["letter"]["return"] is None


@pytest.mark.parametrize(
    ("classification", "expected"),
    [
        ("type", {"relationship": 2, "lost": 1}),
        ("path", {"order": 3}),
        ("identification", {"order": 3}),
        ("level", {"new": 2, "none": 1}),
    ],
)
def test_every_customer_stands_somewhere(
    company: Client, classification: str, expected: dict[str, int]
) -> None:
    answer = company.read("/v1/lifecycle", classification=classification)
    found = {row["value"]: row["customers"] for row in answer["distribution"]}
    assert {value: count for value, count in found.items() if count} == expected
    assert sum(found.values()) == answer["customers"] == 3


def test_moves_out_of_a_value_are_its_departures(company: Client) -> None:
    answer = company.read("/v1/lifecycle/transitions")
    for row in answer["departures"]:
        moves = [move for move in answer["transitions"] if move["from"] == row["value"]]
        assert sum(move["moves"] for move in moves) == row["departures"]
    assert answer["stable_to_lost"] == 1


def test_time_in_a_value_counts_the_open_ones(company: Client) -> None:
    rows = company.read("/v1/lifecycle/durations")["durations"]
    durations = {row["value"]: row for row in rows}
    assert durations["relationship"]["periods"] == 3
    assert (durations["relationship"]["closed"], durations["relationship"]["open"]) == (1, 2)


def test_a_customer_says_where_it_stands(company: Client) -> None:
    (lost,) = (
        item
        for item in company.read("/v1/customers")["items"]
        if company.read(f"/v1/customers/{item['id']}")["lifecycle"]["type"]["value"] == "lost"
    )
    assert company.read(f"/v1/customers/{lost['id']}")["lifecycle"]["level"]["value"] == "none"
