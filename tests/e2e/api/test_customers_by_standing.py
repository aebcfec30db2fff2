"""Customers listed by where they stood in their lifecycle, at any date, as known at any date."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.api.making import amount, customer
from tests.e2e.api.running import Client

START = datetime(2024, 1, 1, 9, tzinfo=UTC)


def day(number: int) -> str:
    return (START + timedelta(days=number)).isoformat()


class Company:
    """Three customers of a region of their own."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.region = f"region {uuid.uuid4().hex}"
        self.ids = {
            name: customer(
                client, name=f"{name} {self.region}", region=self.region, occurred_at=day(0)
            )
            for name in ("acme", "bolt", "crane")
        }

    def tell(self, name: str, what: str, at: int, **body: Any) -> int:
        answer = self.client.done(
            f"/v1/customers/{self.ids[name]}/{what}", {**body, "occurred_at": day(at)}
        )
        return int(answer["position"])

    def listed(self, **asked: Any) -> list[str]:
        pages = self.client.pages(
            "/v1/customers", region=self.region, limit=1, sort="name", **asked
        )
        return [item["name"].split()[0] for page in pages for item in page["items"]]


@pytest.fixture
def company(admin: Client) -> Company:
    company = Company(admin)
    for name in ("acme", "bolt"):
        company.tell(name, "orders", 10, order_id="1", amount=amount())
    company.tell("acme", "lifecycle", 20, level="growing")
    company.tell("bolt", "lifecycle", 30, level="growing")
    company.tell("acme", "lifecycle", 40, level="declining")
    company.tell("bolt", "churn", 50, cause="price")
    return company


@pytest.mark.parametrize(
    ("at", "asked", "expected"),
    [
        (5, {"level": "none"}, ["acme", "bolt", "crane"]),
        (5, {"type": "prospect"}, ["acme", "bolt", "crane"]),
        (15, {"level": "new"}, ["acme", "bolt"]),
        (25, {"level": "growing"}, ["acme"]),
        (35, {"level": "growing"}, ["acme", "bolt"]),
        (45, {"level": "growing"}, ["bolt"]),
        (45, {"level": "declining", "type": "relationship"}, ["acme"]),
        (45, {"level": "declining", "type": "lost"}, []),
        (55, {"type": "lost"}, ["bolt"]),
        (None, {"level": "declining"}, ["acme"]),
        (None, {"level": "none", "type": "prospect"}, ["crane"]),
    ],
)
def test_customers_of_a_level_at_any_date(
    company: Company, at: int | None, asked: dict[str, str], expected: list[str]
) -> None:
    times = {} if at is None else {"as_of": day(at)}
    assert company.listed(**asked, **times) == expected


def test_what_was_known_then_stays_what_it_was(company: Company) -> None:
    before = company.listed(as_of=day(25), level="new")
    known = company.client.position
    company.tell("crane", "orders", 18, order_id="1", amount=amount())
    assert company.listed(as_of=day(25), level="new") == ["bolt", "crane"]
    assert company.listed(as_of=day(25), level="new", known_at=known) == before == ["bolt"]


@pytest.mark.parametrize("asked", [{"level": "best"}, {"type": "none"}, {"level": ""}])
def test_values_that_there_are_not(admin: Client, asked: dict[str, str]) -> None:
    assert admin.get("/v1/customers", params=asked).status_code == 422
