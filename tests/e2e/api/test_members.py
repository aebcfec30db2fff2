"""Owners and their teams through the API: told, listed, and in the forecast."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from api.tokens import Scope
from domain.member import member_id
from tests.e2e.api.making import amount, customer, deal
from tests.e2e.api.recorded import problem
from tests.e2e.api.running import Client, Product

PATH = "/v1/members"


def at(day: str) -> str:
    return f"{day}T09:00:00+00:00"


@pytest.fixture(scope="module")
def product(start_product: Callable[..., Product]) -> Product:
    return start_product()


@pytest.fixture(scope="module")
def sales(product: Product) -> Iterator[Client]:
    """Four deals of 1,000 in negotiation: of ann, of bob, of somebody unknown and of nobody."""
    with product.client() as client:
        buyer = customer(client, occurred_at=at("2025-01-01"))
        for owner in ("ann", "bob", "eve", None):
            deal(
                client, customer_id=buyer, stage="negotiation", amount=amount("1000.00"),
                occurred_at=at("2025-01-10"), **({"owner": owner} if owner else {}),
            )  # fmt: skip
        for owner, team, day in (
            ("ann", "north", "2025-01-02"),
            ("bob", "south", "2025-01-02"),
            ("ann", "south", "2025-02-01"),
        ):
            client.done(PATH, {"owner": owner, "team": team, "occurred_at": at(day)})
        yield client


def groups(client: Client, **moment: Any) -> dict[str | None, str]:
    answer = client.read("/v1/forecast", group="team", **moment)
    found = {one["group"]: one["total"]["value"] for one in answer["groups"]}
    assert answer["group"] == "team"
    assert len(found) == len(answer["groups"])
    assert sum(map(Decimal, found.values())) == Decimal(answer["total"]["value"])
    assert sum(one["deals"] for one in answer["groups"]) == answer["deals"] == 4
    return found


def test_the_forecast_by_team_as_it_was_and_as_it_was_known(sales: Client) -> None:
    assert groups(sales) == {"south": "1800.00", None: "1800.00"}
    january = {"north": "900.00", "south": "900.00", None: "1800.00"}
    assert groups(sales, as_of=at("2025-01-20")) == january
    told = sales.done(PATH, {"owner": "ann", "occurred_at": at("2025-01-15"), "reason": "on leave"})
    before = told["position"] - 1
    assert groups(sales, as_of=at("2025-01-20")) == {"south": "900.00", None: "2700.00"}
    assert groups(sales, as_of=at("2025-01-20"), known_at=before) == january
    assert groups(sales, as_of=at("2025-01-12")) == january
    assert groups(sales) == {"south": "1800.00", None: "1800.00"}

    def members(**moment: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = sales.read(PATH, **moment)["items"]
        return items

    now = [("ann", "south", at("2025-02-01")), ("bob", "south", at("2025-01-02"))]
    assert [tuple(one.values()) for one in members()] == now
    assert [one["team"] for one in members(as_of=at("2025-01-20"))] == [None, "south"]
    assert [one["team"] for one in members(as_of=at("2025-01-20"), known_at=before)] == [
        "north",
        "south",
    ]
    assert members(as_of=at("2025-01-01")) == []
    assert [one["owner"] for one in members(team="south", sort="-owner")] == ["bob", "ann"]
    pages = [one["owner"] for page in sales.pages(PATH, limit=1) for one in page["items"]]
    assert pages == ["ann", "bob"]


def test_the_same_told_again_adds_nothing(product: Product) -> None:
    with product.client() as client:
        body = {"owner": "dan", "team": "west"}
        first, again = client.done(PATH, body), client.done(PATH, body)
        assert first["id"] == again["id"] == str(member_id("dan"))
        assert first["version"] == again["version"] == 1
        assert first.keys() == {"id", "version", "position"}
        assert client.done(PATH, {"owner": "dan", "team": None})["version"] == 2
        assert client.done(PATH, {"owner": "dan"})["version"] == 2
        lines = [
            {"path": PATH, "key": uuid.uuid4().hex, "body": {"owner": "dan", "team": team}}
            for team in ("west", "east")
        ]
        answers = client.post("/v1/bulk", json=lines).text.splitlines()
        assert [json.loads(answer)["version"] for answer in answers] == [3, 4]
        early = {"owner": "dan", "team": "x", "occurred_at": at("2020-01-01")}
        assert problem(client.command(PATH, early)) == (409, "before-first-event")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"owner": None},
        {"owner": " "},
        {"owner": "x" * 101},
        {"owner": "a\x00b"},
        {"owner": "fay", "team": ""},
        {"owner": "fay", "team": "x" * 101},
        {"owner": "fay", "team": 5},
        {"owner": "fay", "colour": "red"},
        {"owner": "fay", "occurred_at": "2025-01-01T00:00:00"},
        {"owner": "fay", "occurred_at": "2999-01-01T00:00:00Z"},
    ],
)
def test_what_is_wrong_is_refused(product: Product, body: dict[str, Any]) -> None:
    with product.client() as client:
        assert problem(client.command(PATH, body))[0] == 422
        assert client.read(PATH, owner="fay")["items"] == []


def test_needs_the_scope(product: Product) -> None:
    with product.client(Scope.READ) as reader:
        assert problem(reader.command(PATH, {"owner": "gus"})) == (403, "forbidden")
        assert reader.get(PATH).status_code == 200
        assert reader.get(PATH, params={"sort": "shoe"}).status_code == 422
