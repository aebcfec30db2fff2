"""What readers see of customers who are natural persons, with the scope for that and without."""

from __future__ import annotations

from typing import Any

import pytest

from api.tokens import Scope
from tests.e2e.api.running import Client, Product


@pytest.fixture(scope="module")
def person(product: Product) -> dict[str, Any]:
    body = {
        "kind": "person",
        "name": "Wang Fang",
        "external_id": {"source": "shop", "id": "wang.fang@example.com"},
        "attributes": {"born": "1980-02-03"},
    }
    with product.client() as client:
        made = client.done("/v1/customers", body)
        company = {**body, "kind": "company", "external_id": {"source": "shop", "id": "acme@x"}}
        client.done("/v1/customers", company)
        client.read("/v1/customers")
    return {"id": made["id"], "position": client.position}


def reading(product: Product, person: dict[str, Any], *scopes: Scope) -> Client:
    client = product.client(*scopes)
    client.position = person["position"]
    return client


def test_nothing_of_a_person_is_shown_without_the_scope(
    product: Product, person: dict[str, Any]
) -> None:
    with reading(product, person, Scope.READ) as client:
        one = client.get(f"/v1/customers/{person['id']}")
        listed = client.get("/v1/customers", params={"kind": "person"})
        for answer in (one, listed):
            assert answer.status_code == 200
            assert not any(told in answer.text for told in ("Wang", "example.com", "1980"))
        for part in ("wang", "example", "@"):
            found = client.read("/v1/customers", search=part)["items"]
            assert [item["kind"] for item in found if item["kind"] == "person"] == []
        companies = client.read("/v1/customers", search="acme@")["items"]
        assert [item["attributes"] for item in companies] == [{"born": "1980-02-03"}]


def test_with_the_scope_all_is_shown(product: Product, person: dict[str, Any]) -> None:
    with reading(product, person, Scope.READ, Scope.PERSONAL) as client:
        one = client.read(f"/v1/customers/{person['id']}")
        assert one["name"] == "Wang Fang"
        assert one["external_id"] == {"source": "shop", "id": "wang.fang@example.com"}
        assert one["attributes"] == {"born": "1980-02-03"}
        (found,) = client.read("/v1/customers", search="fang@")["items"]
        assert found["id"] == person["id"]
