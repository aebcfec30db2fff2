"""The decision tree through the API: rules, probabilities, scores and the exported segment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.api.making import amount
from tests.e2e.api.running import Client, Product
from tests.e2e.api.test_value import told

BEFORE, AFTER = "2024-01-01T00:00:00Z", "2024-06-01T00:00:00Z"
QUESTION: dict[str, Any] = {
    "target": "path:order",
    "since": "2024-02-01T00:00:00Z",
    "as_of": "2024-12-01T00:00:00Z",
}


@pytest.fixture(scope="module")
def market(start_product: Callable[..., Product]) -> Iterator[Client]:
    """Of a hundred customers in the north 95 bought later, of as many in the south 5; then ten came
    to the north and seven to the south who have not been asked yet."""
    with start_product().client() as client:
        bodies: list[dict[str, object]] = [
            {
                "name": f"{region} {number}",
                "region": region,
                "attributes": {"staff": number, "listed": number % 2 == 0},
                "occurred_at": BEFORE if number < 100 else AFTER,
            }
            for region, count in (("north", 110), ("south", 107))
            for number in range(count)
        ]
        made = told(client, [("/v1/customers", body) for body in bodies])
        buyers = made[:95] + made[110:115]
        told(
            client,
            [
                (
                    f"/v1/customers/{who}/orders",
                    {"order_id": who, "amount": amount(), "occurred_at": "2024-03-01T00:00:00Z"},
                )
                for who in buyers
            ],
        )
        yield client


def test_the_leaves_are_at_95_and_5_per_cent(market: Client) -> None:
    """R35: a readable rule a leaf."""
    answer = market.read("/v1/segments/tree", **QUESTION, depth=1)
    assert (answer["customers"], answer["reached"], answer["others"]) == (200, 100, 117)
    assert [
        (leaf["rule"], leaf["probability"], leaf["customers"], leaf["reached"], leaf["others"])
        for leaf in answer["leaves"]
    ] == [
        (["region is north"], "0.95", 100, 95, 15),
        (["region is not north"], "0.05", 100, 5, 102),
    ]


def test_the_segment_is_exported_as_a_target_list(market: Client) -> None:
    """R35: those of a leaf who were not asked yet."""
    best, _ = market.read("/v1/segments/tree", **QUESTION, depth=1)["leaves"]
    response = market.get(
        "/v1/segments/members",
        params={**QUESTION, "depth": 1, "leaf": best["leaf"], "min_position": market.position},
    )
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert len(lines) == 15
    assert response.headers["x-definition"] == "path=1"
    assert {(line["leaf"], line["probability"]) for line in lines} == {(best["leaf"], "0.95")}
    north = {
        item["id"]
        for page in market.pages("/v1/customers", region="north", limit=1000)
        for item in page["items"]
    }
    assert {line["customer_id"] for line in lines} <= north
    unknown = market.get("/v1/segments/members", params={**QUESTION, "leaf": 4711})
    assert unknown.status_code == 404


def test_with_too_little_to_learn_from_the_answer_says_so(market: Client) -> None:
    few = market.read("/v1/segments/tree", **{**QUESTION, "least": 1000})
    assert few["leaves"] == []
    assert "200 customers to learn from" in few["reason"]
    early = market.read(
        "/v1/segments/tree", target="path:order", as_of="1999-12-01T00:00:00Z", least=20
    )
    assert early["customers"] == early["others"] == 0
    same = market.read("/v1/segments/tree", **{**QUESTION, "target": "type:lost"})
    assert same["reason"] == "the customers to learn from all have the same outcome"


@pytest.mark.parametrize(
    "wrong",
    [{"target": "path:nowhere"}, {"target": "x"}, {"since": "2999-01-01T00:00:00Z"}, {"depth": 0}],
)
def test_what_is_no_question_is_refused(market: Client, wrong: dict[str, Any]) -> None:
    assert market.get("/v1/segments/tree", params={**QUESTION, **wrong}).status_code == 422
