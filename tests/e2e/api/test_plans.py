"""What a campaign is meant to bring, who came, what a contract costs us, and exchange rates."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from api.tokens import Scope
from domain.exchange_rate import exchange_rate_id
from tests.e2e.api.making import amount, campaign, deal
from tests.e2e.api.recorded import last_event, problem, twice
from tests.e2e.api.running import Client, Product

AIMS = {
    "attendees": 120, "responses": 30, "deals": 4, "contracts": 0, "revenue": amount("9.00"),
}  # fmt: skip
PLAN = {
    "name": "open day",
    "channel": "visit",
    "starts_on": "2026-01-01",
    "ends_on": "2026-01-31",
    "budget": amount("50.00"),
}
RATE = {"from": "EUR", "to": "CNY", "rate": "7.8123", "on": "2024-03-28"}


def test_a_campaign_with_its_aims(admin: Client, product: Product) -> None:
    campaign(admin, product="rolling mill", plan=AIMS)
    topic, version, body = last_event(product)
    assert (topic, version) == ("crm.campaign.planned", 2)
    assert (body["product"], body["plan"]) == ("rolling mill", AIMS)
    without: list[dict[str, Any]] = [{}, {"plan": {}}, {"plan": None, "product": None}]
    for fields in without:
        campaign(admin, **fields)
        assert not last_event(product)[2].keys() & {"product", "plan"}


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"attendees": -1}, (422, "invalid-request")),
        ({"deals": 1.5}, (422, "invalid-request")),
        ({"deals": 10**9 + 1}, (422, "invalid-request")),
        ({"contracts": "4"}, (422, "invalid-request")),
        ({"visitors": 1}, (422, "invalid-request")),
        ({"revenue": amount("-1.00")}, (422, "invalid-request")),
        ({"revenue": amount("1.00", "EUR")}, (409, "currency-differs")),
    ],
    ids=repr,
)
def test_aims_that_are_none(admin: Client, plan: dict[str, Any], told: tuple[int, str]) -> None:
    assert problem(admin.command("/v1/campaigns", {**PLAN, "plan": plan})) == told


def test_who_came(admin: Client, product: Product) -> None:
    path = f"/v1/campaigns/{campaign(admin, 'submit', 'approve', 'start')}/attendance"
    assert twice(admin, path, {"attendees": 97}) == 5
    assert twice(admin, path, {"attendees": 0}) == 6
    assert last_event(product) == ("crm.campaign.attendance-recorded", 1, {"attendees": 0})
    for wrong in (-1, 10**9 + 1, "97", 1.5, None, True):
        refused = admin.command(path, {"attendees": wrong})
        assert problem(refused) == (422, "invalid-request")


def test_nobody_comes_before_the_start(admin: Client) -> None:
    path = f"/v1/campaigns/{campaign(admin, 'submit', 'approve')}/attendance"
    assert problem(admin.command(path, {"attendees": 1})) == (409, "campaign-step-refused")
    nowhere = f"/v1/campaigns/{uuid.uuid4()}/attendance"
    assert problem(admin.command(nowhere, {"attendees": 1})) == (404, "campaign-not-found")


def test_a_contract_with_our_cost(admin: Client, product: Product) -> None:
    path = f"/v1/opportunities/{deal(admin)}/contract"
    signed = {
        "amount": amount("9.00"),
        "cost": amount("7.00"),
        "signed_on": product.clock().date().isoformat(),
    }
    refused = admin.command(path, {**signed, "cost": amount("7.00", "EUR")})
    assert problem(refused) == (409, "currency-differs")
    assert problem(admin.command(path, {**signed, "cost": amount("-7.00")}))[0] == 422
    assert twice(admin, path, signed) == 2
    for changed in ({"cost": amount("8.00")}, {"cost": None}):
        refused = admin.command(path, {**signed, **changed})
        assert problem(refused) == (409, "contract-differs")


class TestExchangeRates:
    def test_are_recorded_once_a_day(self, admin: Client, product: Product) -> None:
        before = twice(admin, "/v1/exchange-rates", RATE)
        pair = {"from_currency": "EUR", "to_currency": "CNY"}
        rate = {"rate": "7.8123", "on": "2024-03-28"}
        assert last_event(product) == ("crm.exchange-rate.recorded", 1, {**pair, **rate})
        answer = admin.done("/v1/exchange-rates", {**RATE, "rate": 7.9})
        assert answer["id"] == str(exchange_rate_id("EUR", "CNY"))
        assert answer["version"] == before + 1
        assert answer.keys() == {"id", "version", "position"}

    def test_with_one_key_are_one(self, admin: Client) -> None:
        key, body = uuid.uuid4().hex, {**RATE, "rate": "7.5"}
        first, again = (admin.command("/v1/exchange-rates", body, key=key) for _ in range(2))
        assert (again.status_code, again.json()) == (200, first.json())
        assert again.headers["idempotent-replayed"] == "true"
        other = admin.command("/v1/exchange-rates", {**body, "rate": "7.6"}, key=key)
        assert problem(other) == (422, "key-reused")

    def test_of_the_other_direction_are_another_pair(self, admin: Client) -> None:
        turned = {**RATE, "from": "CHF", "to": "SEK"}
        assert twice(admin, "/v1/exchange-rates", turned) == 2
        assert twice(admin, "/v1/exchange-rates", {**turned, "from": "SEK", "to": "CHF"}) == 2

    def test_of_earlier_days_may_come_later(self, admin: Client) -> None:
        pair = {**RATE, "from": "GBP"}
        assert twice(admin, "/v1/exchange-rates", pair) == 2
        assert twice(admin, "/v1/exchange-rates", {**pair, "on": "1999-01-04"}) == 3

    @pytest.mark.parametrize(
        ("change", "slug"),
        [
            ({"rate": "0"}, "invalid-request"),
            ({"rate": 0}, "invalid-request"),
            ({"rate": "-7.8"}, "invalid-request"),
            ({"rate": "NaN"}, "invalid-request"),
            ({"rate": "0.0000000000001"}, "invalid-request"),
            ({"rate": "1000000000000"}, "invalid-request"),
            ({"rate": None}, "invalid-request"),
            ({"to": "EUR"}, "invalid-rate"),
            ({"to": "XXQ"}, "invalid-money"),
            ({"from": "eur"}, "invalid-request"),
            ({"from": None}, "invalid-request"),
            ({"from_currency": "EUR"}, "invalid-request"),
            ({"on": "2024-02-30"}, "invalid-request"),
            ({"on": "1899-12-31"}, "invalid-request"),
            ({"on": "2999-01-01"}, "in-the-future"),
        ],
        ids=repr,
    )
    def test_that_are_none(self, admin: Client, change: dict[str, Any], slug: str) -> None:
        refused = admin.command("/v1/exchange-rates", {**RATE, **change})
        assert problem(refused) == (422, slug)

    def test_in_bulk(self, admin: Client) -> None:
        lines = [
            {"path": "/v1/exchange-rates", "key": uuid.uuid4().hex, "body": body}
            for body in ({**RATE, "from": "USD"}, {**RATE, "from": "CNY"})
        ]
        answers = admin.post("/v1/bulk", json=lines).text.splitlines()
        assert '"status":200' in answers[0]
        assert "invalid-rate" in answers[1]

    def test_need_the_scope_command(self, product: Product) -> None:
        with product.client(Scope.READ) as reader:
            assert problem(reader.command("/v1/exchange-rates", RATE)) == (403, "forbidden")
