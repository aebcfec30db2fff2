"""Lists, cursors, the two times of a question, and how much of the log an answer knows."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.postgres import connect
from tests.e2e.api.making import amount, campaign, customer, deal
from tests.e2e.api.running import Client, Product


@pytest.fixture
def region(admin: Client) -> str:
    """A region with seven customers, named a to g."""
    name = f"region {uuid.uuid4().hex}"
    for letter in "cafebdg":
        customer(admin, name=f"{letter}-{name}", region=name)
    return name


@pytest.mark.parametrize("sort", ["name", "-name", "registered_at", "-id"])
def test_pages_hold_everything_once_and_in_order(admin: Client, region: str, sort: str) -> None:
    field = sort.removeprefix("-")
    pages = list(admin.pages("/v1/customers", region=region, sort=sort, limit=3))
    items = [item for page in pages for item in page["items"]]
    assert [len(page["items"]) for page in pages] == [3, 3, 1]
    assert len({item["id"] for item in items}) == 7
    values = [item[field] for item in items]
    assert values == sorted(values, reverse=sort.startswith("-"))
    assert pages[-1]["next"] is None


def test_the_cursor_in_the_answer_is_the_one_of_the_link(admin: Client, region: str) -> None:
    parameters: dict[str, Any] = {
        "region": region,
        "limit": 5,
        "min_position": admin.position,
    }
    first = admin.get("/v1/customers", params=parameters)
    assert first.links["next"]["url"].startswith("/v1/customers?")
    by_link = admin.get(first.links["next"]["url"]).json()["items"]
    cursor = {"cursor": first.json()["next"], "limit": 1000}
    assert admin.get("/v1/customers", params={**parameters, **cursor}).json()["items"] == by_link


def test_a_cursor_is_good_for_its_list_alone(admin: Client, region: str) -> None:
    first = admin.read("/v1/customers", region=region, limit=5)
    for path, parameters in (
        ("/v1/customers", {}),
        ("/v1/customers", {"region": region, "sort": "-id"}),
        ("/v1/customers", {"region": region, "search": "a"}),
        ("/v1/campaigns", {"region": region}),
    ):
        response = admin.get(path, params={**parameters, "cursor": first["next"]})
        assert response.status_code == 400


def test_the_page_size_is_bounded_and_50_by_default(admin: Client) -> None:
    assert len(admin.read("/v1/customers")["items"]) <= 50
    assert admin.get("/v1/customers", params={"limit": 1000}).status_code == 200


def test_search_finds_parts_of_names_literally(admin: Client, region: str) -> None:
    found = admin.read("/v1/customers", search=f"A-{region}".upper())["items"]
    assert [item["name"] for item in found] == [f"a-{region}"]
    assert admin.read("/v1/customers", search=f"%{region}")["items"] == []
    assert admin.read("/v1/customers", search=f"_-{region}")["items"] == []


def test_deals_are_found_by_what_one_would_try(admin: Client) -> None:
    owner, buyer, fair = uuid.uuid4().hex, customer(admin), campaign(admin)
    made = deal(
        admin,
        customer_id=buyer,
        campaign_id=fair,
        owner=owner,
        stage="bid",
        name=f"crane {owner}",
        amount=amount("7.00", "EUR"),
        expected_close="2026-12-31",
        external_id={"source": "old crm", "id": owner},
    )
    for parameters in (
        {"customer_id": buyer},
        {"campaign_id": fair},
        {"owner": owner},
        {"owner": owner, "stage": "bid", "status": "open", "currency": "EUR"},
        {"name": f"crane {owner}"},
        {"search": owner[:20]},
        {"external_source": "old crm", "external_id": owner},
    ):
        assert [item["id"] for item in admin.read("/v1/opportunities", **parameters)["items"]] == [
            made
        ]
    assert admin.read("/v1/opportunities", owner=owner, stage="prospect")["items"] == []
    assert admin.read("/v1/opportunities", owner=owner, currency="CNY")["items"] == []


def test_campaigns_and_pipelines_are_listed(admin: Client) -> None:
    name = uuid.uuid4().hex
    fair = campaign(admin, "submit", name=name, region="north")
    found = admin.read("/v1/campaigns", name=name, status="submitted", sort="-budget")["items"]
    assert [item["id"] for item in found] == [fair]
    stage = {"name": "talk", "chance_to_next": "0.25", "duration_months": "1.5"}
    pipeline = admin.done("/v1/pipelines", {"name": name, "stages": [stage]})["id"]
    (item,) = admin.read("/v1/pipelines", search=name)["items"]
    assert (item["id"], item["revision"]) == (pipeline, 1)
    assert item["stages"][0]["duration_months"] == "1.5"
    admin.done(f"/v1/pipelines/{pipeline}/revisions", {"stages": [{**stage, "name": "meet"}]})
    revised = admin.read(f"/v1/pipelines/{pipeline}")
    assert (revised["revision"], revised["version"]) == (2, 2)
    assert revised["stages"][0]["name"] == "meet"


def test_a_read_reflects_the_command_before_it(product: Product, admin: Client) -> None:
    product.pausing.set()
    try:
        made = customer(admin)
        path, wanted = f"/v1/customers/{made}", {"min_position": admin.position}
        assert admin.get(path).status_code == 404
        with ThreadPoolExecutor(20) as threads:
            waiting = [threads.submit(admin.get, path, params=wanted) for _ in range(20)]
            began = time.monotonic()
            assert admin.get("/health/live").status_code == 200
            assert time.monotonic() - began < 1.0, "who waits holds up nobody"
            product.pausing.clear()
            for answer in waiting:
                assert answer.result().status_code == 200
                assert answer.result().json()["position"] >= wanted["min_position"]
    finally:
        product.pausing.clear()


def test_a_position_that_does_not_come_is_waited_for_no_longer_than_bounded(
    start_product: Callable[..., Product],
) -> None:
    with start_product(wait_seconds=0.2).client() as client:
        began = time.monotonic()
        response = client.get("/v1/funnel", params={"min_position": 2**62})
        assert time.monotonic() - began < 5.0
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert response.json()["type"].endswith(":position-not-reached")
        assert response.json()["position"] >= 0


def test_each_answer_says_what_it_knows(admin: Client) -> None:
    made = customer(admin)
    answer = admin.read(f"/v1/customers/{made}")
    assert answer["position"] >= admin.position
    assert answer["known_at"] == answer["position"]
    assert datetime.fromisoformat(answer["as_of"]).tzinfo is not None


def test_what_was_known_then_and_what_was_true_then(admin: Client) -> None:
    now = datetime.now(UTC)
    long_ago, between = now - timedelta(days=30), now - timedelta(days=20)
    made = deal(admin, occurred_at=long_ago.isoformat())
    path = f"/v1/opportunities/{made}"
    admin.done(f"{path}/amount", {"amount": amount("5.00")})
    known = admin.position
    late = (now - timedelta(days=25)).isoformat()
    admin.done(f"{path}/stage", {"stage": "bid", "occurred_at": late})

    then = {"as_of": between.isoformat()}
    assert admin.read(path, **then)["stage"] == "bid"
    assert admin.read(path, **then, known_at=known)["stage"] == "prospect"
    assert admin.read(path, known_at=known)["amount"] == amount("5.00")
    assert admin.read(path, **then)["amount"] == amount("1000.00")
    before = (long_ago - timedelta(days=1)).isoformat()
    assert admin.get(path, params={"as_of": before}).status_code == 404


def test_known_at_takes_a_time(admin: Client) -> None:
    path = f"/v1/opportunities/{deal(admin)}"
    admin.read(path)
    moment = datetime.now(UTC).isoformat()
    time.sleep(0.01)
    admin.done(f"{path}/amount", {"amount": amount("5.00")})
    assert admin.read(path, known_at=moment)["amount"] == amount("1000.00")
    assert admin.read(path)["amount"] == amount("5.00")


def test_an_offset_whose_plus_was_not_encoded_is_understood(admin: Client) -> None:
    answer = admin.get("/v1/funnel?as_of=2026-01-01T08:00:00+08:00")
    assert answer.json()["as_of"] == "2026-01-01T00:00:00+00:00"


@pytest.fixture
def parked(product: Product, admin: Client) -> Iterator[str]:
    """A deal of which an event could not be projected."""
    made = deal(admin)
    admin.read(f"/v1/opportunities/{made}")
    connection = connect(product.database_url, search_path=["read"], autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO parked (projection, key, position, event, error)"
            " SELECT projection, %s, 1, '{}', 'poison' FROM position"
            " WHERE projection LIKE 'funnel/%%' LIMIT 1",
            (made,),
        )
        yield made
        cursor.execute("DELETE FROM parked WHERE key = %s", (made,))
    connection.close()


def test_a_parked_key_is_told(admin: Client, parked: str) -> None:
    response = admin.get(f"/v1/opportunities/{parked}")
    assert response.status_code == 503
    assert response.json()["type"].endswith(":parked")
    assert response.headers["retry-after"]
    assert admin.read(f"/v1/opportunities/{deal(admin)}")
    assert admin.read("/v1/opportunities")["parked"] == 1
    assert admin.read("/v1/funnel")["parked"] == 1
    assert admin.read("/v1/customers")["parked"] == 0
    assert 'parked_total{projection="funnel"} 1.0' in admin.get("/metrics").text
