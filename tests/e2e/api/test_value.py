"""What customers are worth, through the API: on CDNOW, and on a few made for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from tests.cdnow import CALIBRATION_ENDS, sampled_purchases
from tests.e2e.api.making import amount, customer
from tests.e2e.api.running import Client, Product

ENDS = f"{CALIBRATION_ENDS.isoformat()}T23:59:00+00:00"


def told(client: Client, commands: list[tuple[str, dict[str, object]]]) -> list[str]:
    """The ids that many commands answer, each of which must succeed."""
    lines = b"\n".join(
        json.dumps({"path": path, "key": f"{path} {number}", "body": body}).encode()
        for number, (path, body) in enumerate(commands)
    )
    response = client.post(
        "/v1/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"}
    )
    answers = [json.loads(line) for line in response.text.splitlines()]
    assert {answer["status"] // 100 for answer in answers} == {2}, answers[:3]
    client.position = max(answer["position"] for answer in answers)
    return [answer["id"] for answer in sorted(answers, key=lambda answer: answer["line"])]


@pytest.fixture(scope="module")
def cdnow(start_product: Callable[..., Product]) -> Iterator[tuple[Client, dict[str, str]]]:
    """The published sample, up to a month after its calibration ends."""
    purchases = sampled_purchases(CALIBRATION_ENDS + timedelta(days=30))
    with start_product().client() as client:
        first = {one.customer: one for one in reversed(purchases)}
        numbers = sorted(first)
        made = told(
            client,
            [
                (
                    "/v1/customers",
                    {
                        "name": number,
                        "external_id": {"source": "cdnow", "id": number},
                        "occurred_at": f"{first[number].on}T00:00:00Z",
                    },
                )
                for number in numbers
            ],
        )
        ids = dict(zip(numbers, made, strict=True))
        told(
            client,
            [
                (
                    f"/v1/customers/{ids[one.customer]}/orders",
                    {
                        "order_id": str(number),
                        "amount": amount(str(one.amount), "USD"),
                        "occurred_at": f"{one.on}T12:00:00Z",
                    },
                )
                for number, one in enumerate(purchases)
            ],
        )
        yield client, ids


def test_the_model_on_cdnow_is_the_published_one(cdnow: tuple[Client, dict[str, str]]) -> None:
    """R67: r=0.243, alpha=4.414, a=0.793, b=2.426."""
    answer = cdnow[0].read("/v1/value/model", currency="USD", as_of=ENDS)
    assert (answer["customers"], answer["repeaters"]) == (2357, 946)
    found = {name: round(float(value), 3) for name, value in answer["buying"].items()}
    assert found == {
        "r": 0.243, "alpha": 4.414, "a": 0.793, "b": 2.426, "log_likelihood": -9582.429,
    }  # fmt: skip
    spending = answer["spending"]
    assert float(spending["p"]) == pytest.approx(6.25, abs=0.02)
    assert float(spending["q"]) == pytest.approx(3.74, abs=0.02)
    assert float(spending["gamma"]) == pytest.approx(15.44, abs=0.05)


def test_the_customer_of_the_publication_is_expected_to_buy_as_published(
    cdnow: tuple[Client, dict[str, str]],
) -> None:
    """R67: x = 2, t_x = 30.43, T = 38.86 weeks: E[Y(39)] = 1.226, P(alive) = 0.7266."""
    client, ids = cdnow
    answer = client.read(
        f"/v1/customers/{ids['00004']}/value", currency="USD", as_of=ENDS, weeks=39
    )
    worth = answer["worth"]
    assert worth["purchase_days"] == 3
    assert (worth["first_on"], worth["last_on"]) == ("1997-01-01", "1997-08-02")
    assert float(worth["expected_purchases"]) == pytest.approx(1.226, abs=0.0005)
    assert float(worth["alive"]) == pytest.approx(0.7266, abs=0.0001)
    assert worth["next_purchase_on"] > "1998-01-01"


def test_the_list_is_in_order_and_goes_on(cdnow: tuple[Client, dict[str, str]]) -> None:
    client, _ = cdnow
    rows = client.read("/v1/value", currency="USD", as_of=ENDS, limit=20)["customers"]
    values = [float(row["lifetime_value"]["value"]) for row in rows]
    assert values == sorted(values, reverse=True)
    later = client.read("/v1/value", currency="USD", as_of=ENDS, limit=10, offset=10)["customers"]
    assert later == rows[10:]


def test_a_customer_of_one_off_business_has_no_next_purchase(
    cdnow: tuple[Client, dict[str, str]],
) -> None:
    """R76: nor any expected."""
    client, ids = cdnow
    path = f"/v1/customers/{ids['00004']}"
    described = {"repeat_type": "project", "occurred_at": "1997-10-01T12:00:00Z"}
    client.done(f"{path}/demand", described)
    later = {"currency": "USD", "as_of": "1997-10-02T00:00:00Z"}
    worth = client.read(f"{path}/value", **later)["worth"]
    assert worth["repeat_type"] == "project"
    assert worth["next_purchase_on"] is None
    assert (worth["expected_purchases"], worth["lifetime_value"]["value"]) == ("0", "0.00")
    before = client.read(f"{path}/value", currency="USD", as_of=ENDS)["worth"]
    assert before["next_purchase_on"] is not None


def test_lifetime_value_is_what_the_formula_says(cdnow: tuple[Client, dict[str, str]]) -> None:
    """R75: one month, no discount: purchases expected in it × mean value × margin."""
    client, ids = cdnow
    path = f"/v1/customers/{ids['00021']}/value"
    asked = {"currency": "USD", "as_of": ENDS, "yearly_discount": "0"}
    month = client.read(path, **asked, horizon_months=1)["worth"]
    year = client.read(path, **asked, horizon_months=12, weeks=52)["worth"]
    assert month["margin"] == "1"
    assert "÷ (1 + yearly discount)^(m/12)" in client.read(path, **asked)["model"]["formula"]
    expected = float(year["expected_purchases"]) * float(year["mean_value"]["value"])
    assert float(year["lifetime_value"]["value"]) == pytest.approx(expected, rel=0.005)
    assert 0 < float(month["lifetime_value"]["value"]) < float(year["lifetime_value"]["value"]) / 8
    discounted = client.read(
        path, currency="USD", as_of=ENDS, horizon_months=1, yearly_discount="0.21"
    )["worth"]
    ratio = float(discounted["lifetime_value"]["value"]) / float(month["lifetime_value"]["value"])
    assert ratio == pytest.approx(1.21 ** (-1 / 12), abs=0.01)


@pytest.fixture(scope="module")
def shop(start_product: Callable[..., Product]) -> Iterator[Client]:
    with start_product().client() as client:
        yield client


def test_too_little_data_says_so_and_a_steady_buyer_is_above_one_big_old_order(
    shop: Client,
) -> None:
    """R67: with our cost."""
    registered = "2023-01-01T00:00:00Z"
    big, steady = (customer(shop, occurred_at=registered) for _ in range(2))
    orders = [(big, "2024-01-10", "100000.00", "60000.00")]
    orders += [(steady, f"2025-{month:02}-10", "100.00", "60.00") for month in range(1, 12)]
    for number, (who, day, value, cost) in enumerate(orders):
        body = {
            "order_id": str(number),
            "amount": amount(value),
            "cost": amount(cost),
            "occurred_at": f"{day}T09:00:00Z",
        }
        shop.done(f"/v1/customers/{who}/orders", body)
    answer = shop.read("/v1/value", as_of="2025-12-01T00:00:00Z", sort="score")
    assert [row["customer_id"] for row in answer["customers"]] == [steady, big]
    above, below = answer["customers"]
    assert float(above["scores"]["whole"]) > float(below["scores"]["whole"])
    assert above["cost_share"] == "0.6"
    assert answer["model"]["buying"] is None
    assert "2 customers bought" in answer["model"]["reason"]
    assert above["lifetime_value"] is above["alive"] is None


def test_before_the_first_purchase_nobody_is_worth_anything(shop: Client) -> None:
    answer = shop.read("/v1/value", as_of="1999-01-01T00:00:00Z")
    assert answer["customers"] == []
    assert answer["model"]["customers"] == 0
