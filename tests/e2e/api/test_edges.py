"""The analytic answers at the edges of what they are asked and of what there is."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.api.making import amount, campaign, customer, deal
from tests.e2e.api.running import Client, Product

STAGES = [
    {"name": "first", "chance_to_next": "0.5", "duration_months": "2"},
    {"name": "second", "chance_to_next": "0.5", "duration_months": "1"},
]
ANALYTIC = [
    "/v1/funnel",
    "/v1/forecast",
    "/v1/forecast?timing=aged",
    "/v1/forecast?timing=learned",
    "/v1/lifecycle",
    "/v1/lifecycle/transitions",
    "/v1/lifecycle/durations",
    "/v1/attribution",
    "/v1/attribution?model=markov",
    "/v1/attribution?model=shapley",
    "/v1/attribution/comparison",
    "/v1/campaigns/performance",
    "/v1/win-rates",
    "/v1/lifecycle/cohorts",
    "/v1/lifecycle/causes",
    "/v1/lifecycle/losses",
    "/v1/lifecycle/strategies",
    "/v1/campaigns/effect",
    "/v1/campaigns/ranking",
    "/v1/campaigns/invitations",
    "/v1/opportunities/overdue",
    "/v1/demand-alerts",
    "/v1/retention",
    "/v1/value",
    "/v1/performance",
]
RULES = ["first", "last", "linear", "u", "w", "full_path", "time_decay"]
NOBODY = "00000000-0000-4000-8000-000000000001"
MODELS = [*RULES, "markov", "shapley"]


def problem(client: Client, path: str) -> tuple[int, str]:
    response = client.get(path)
    return response.status_code, str(response.json().get("type", "")).rpartition(":")[2]


def values(answer: Any) -> Iterator[str]:
    """Every amount in an answer."""
    if isinstance(answer, dict):
        if answer.keys() == {"value", "currency"}:
            yield answer["value"]
        else:
            for part in answer.values():
                yield from values(part)
    elif isinstance(answer, list):
        for part in answer:
            yield from values(part)


def pipeline(client: Client) -> str:
    body = {"name": uuid.uuid4().hex, "stages": STAGES}
    return str(client.done("/v1/pipelines", body)["id"])


@pytest.fixture(scope="module")
def empty(start_product: Callable[..., Product]) -> Iterator[Client]:
    """A product in which nothing has happened but the definition of the default pipeline."""
    with start_product().client() as client:
        yield client


@pytest.mark.parametrize("path", ANALYTIC)
def test_nothing_has_happened(empty: Client, path: str) -> None:
    answer = empty.read(path)
    assert set(values(answer)) <= {"0.00"}
    assert answer["position"] >= 0


def test_with_nothing_to_learn_from_the_definition_counts_and_the_answer_says_so(
    empty: Client,
) -> None:
    (sample,) = empty.read("/v1/forecast", timing="learned")["samples"]
    assert (sample["used"], sample["ended"]) == (False, 0)


@pytest.mark.parametrize("path", ANALYTIC)
def test_before_the_first_event(admin: Client, path: str) -> None:
    deal(admin)
    parts = path.split("?")
    query = dict([parts[1].split("=")]) if len(parts) > 1 else {}
    answer = admin.read(parts[0], as_of="1990-01-01T00:00:00Z", **query)
    assert set(values(answer)) <= {"0.00"}
    assert answer["as_of"].startswith("1990-01-01T00:00:00")
    assert answer.get("customers", 0) in (0, [])
    assert answer.get("items", []) == []


@pytest.mark.parametrize("path", ANALYTIC)
def test_known_before_the_first_event(admin: Client, path: str) -> None:
    deal(admin)
    parts = path.split("?")
    query = dict([parts[1].split("=")]) if len(parts) > 1 else {}
    response = admin.get(parts[0], params={"known_at": 0, "min_position": admin.position, **query})
    if parts[0] in ("/v1/funnel", "/v1/forecast"):
        assert response.status_code == 404  # of no pipeline was known then
    else:
        assert response.status_code == 200, response.text
        assert set(values(response.json())) <= {"0.00"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/v1/funnel?pipeline_id={NOBODY}", (404, "not-found")),
        (f"/v1/forecast?pipeline_id={NOBODY}", (404, "not-found")),
        ("/v1/funnel?pipeline_id=x", (422, "invalid-request")),
        ("/v1/forecast?timing=soon", (422, "invalid-request")),
        ("/v1/forecast?months=0", (422, "invalid-request")),
        ("/v1/forecast?by=week", (422, "invalid-request")),
        ("/v1/forecast?group=colour", (422, "invalid-request")),
        ("/v1/forecast?colour=red", (422, "invalid-request")),
        ("/v1/forecast?convert=perhaps", (422, "invalid-request")),
        ("/v1/lifecycle?classification=colour", (422, "invalid-request")),
        ("/v1/attribution?model=magic", (422, "invalid-request")),
        ("/v1/attribution?currency=XXQ", (422, "invalid-request")),
        ("/v1/attribution?from=2026-13-01", (422, "invalid-request")),
        ("/v1/attribution?from=2026-02-01&to=2026-01-31", (422, "invalid-request")),
        (
            "/v1/lifecycle/transitions?from=2026-02-01T00:00:00Z&to=2026-01-31T00:00:00Z",
            (422, "invalid-request"),
        ),
    ],
    ids=lambda value: value.partition("/v1/")[2][:30] if isinstance(value, str) else None,
)
def test_what_is_asked_wrongly(admin: Client, path: str, expected: tuple[int, str]) -> None:
    assert problem(admin, path) == expected


@pytest.mark.parametrize("path", ANALYTIC)
def test_a_field_or_a_currency_that_there_is_not(admin: Client, path: str) -> None:
    joint = "&" if "?" in path else "?"
    for asked in ("colour=red", "currency=XXQ", "as_of=2026-01-01T00:00:00", "known_at=soon"):
        assert problem(admin, f"{path}{joint}{asked}") == (422, "invalid-request")


def test_one_deal(admin: Client) -> None:
    one = pipeline(admin)
    deal(admin, pipeline_id=one)
    answer = admin.read("/v1/forecast", pipeline_id=one, months=3)
    assert [month["expected"]["value"] for month in answer["months"]] == ["0.00", "250.00", "0.00"]
    assert [month["sd"]["value"] for month in answer["months"]] == ["0.00", "433.01", "0.00"]
    for timing in ("full_duration", "aged"):
        found = admin.read("/v1/forecast", pipeline_id=one, months=3, timing=timing)
        assert [m["expected"]["value"] for m in found["months"]] == ["0.00", "0.00", "250.00"]
    learned = admin.read("/v1/forecast", pipeline_id=one, months=3, timing="learned")
    assert [sample["used"] for sample in learned["samples"]] == [False]
    assert learned["total"] == amount("250.00")


def test_all_lost(admin: Client) -> None:
    """Nothing is open, and what was learned from the losses divides by no win."""
    one = pipeline(admin)
    before = {"occurred_at": (datetime.now(UTC) - timedelta(days=3)).isoformat()}
    loss = {"cause": "price", "competitor": "Rival", **before}
    for _ in range(3):
        lost = deal(admin, pipeline_id=one, **before)
        admin.done(f"/v1/opportunities/{lost}/loss", loss)
    for timing in ("half_elapsed", "full_duration", "aged", "learned"):
        answer = admin.read("/v1/forecast", pipeline_id=one, timing=timing)
        assert set(values(answer["months"])) == {"0.00"}
        assert answer["deals"] == 0
    still = deal(admin, pipeline_id=one)
    learned = admin.read("/v1/forecast", pipeline_id=one, timing="learned", months=120)
    assert learned["samples"][0]["used"] is True
    assert learned["samples"][0]["ended"] == 3
    expected = float(learned["total"]["value"]) + float(learned["beyond"]["value"])
    assert 0 <= expected < 250
    admin.done(f"/v1/opportunities/{still}/loss", {"cause": "price", "competitor": "none"})


def credits(answer: dict[str, Any]) -> dict[str, str]:
    return {row["campaign_id"]: row["credit"]["value"] for row in answer["campaigns"]}


def respond(client: Client, who: str, to: str, at: str) -> None:
    body = {"campaign_id": to, "channel": "web", "kind": "reply", "occurred_at": at}
    client.done(f"/v1/customers/{who}/responses", body)


def won(client: Client, who: str, currency: str, opened: str, at: str) -> str:
    """A deal of 1,000.00 won at that time."""
    money = amount("1000.00", currency)
    made = deal(client, customer_id=who, amount=money, occurred_at=opened)
    signed = {"amount": money, "signed_on": at[:10], "occurred_at": at}
    client.done(f"/v1/opportunities/{made}/contract", signed)
    return made


def test_a_campaign_that_cost_nothing_has_no_return(admin: Client) -> None:
    free = campaign(admin)
    who = customer(admin, occurred_at="2025-01-01T00:00:00Z")
    respond(admin, who, free, "2025-02-01T00:00:00Z")
    won(admin, who, "SEK", "2025-02-02T00:00:00Z", "2025-02-03T00:00:00Z")
    for model in MODELS:
        answer = admin.read("/v1/attribution", model=model, currency="SEK")
        row = next(row for row in answer["campaigns"] if row["campaign_id"] == free)
        assert row["return"] is None


def test_touches_after_the_win_earn_nothing(admin: Client) -> None:
    before, after = campaign(admin), campaign(admin)
    who = customer(admin, occurred_at="2025-01-01T00:00:00Z")
    respond(admin, who, before, "2025-03-01T00:00:00Z")
    won(admin, who, "GBP", "2025-03-01T00:00:00Z", "2025-03-02T00:00:00Z")
    respond(admin, who, after, "2025-03-02T00:00:00.000001Z")
    days = {"from": "2025-03-02", "to": "2025-03-03"}
    for model in MODELS:
        answer = admin.read("/v1/attribution", model=model, currency="GBP", **days)
        found = credits(answer)
        assert (model, found[before], found.get(after, "0.00")) == (model, "1000.00", "0.00")
        assert answer["revenue"] == amount("1000.00", "GBP")
        assert answer["unattributed"] == amount("0.00", "GBP")


def test_touches_at_one_instant_go_by_position(admin: Client) -> None:
    """In the order in which they were recorded, in every answer."""
    first, second = campaign(admin), campaign(admin)
    who = customer(admin, occurred_at="2025-01-01T00:00:00Z")
    for one in (first, second):
        respond(admin, who, one, "2025-04-01T00:00:00Z")
    won(admin, who, "CHF", "2025-04-01T00:00:00Z", "2025-04-01T00:00:00Z")
    earned = {
        model: credits(admin.read("/v1/attribution", model=model, currency="CHF"))
        for model in ("first", "last", "linear", "time_decay")
    }
    assert {one: earned["first"].get(one, "0.00") for one in (first, second)} == {
        first: "1000.00",
        second: "0.00",
    }
    assert {one: earned["last"].get(one, "0.00") for one in (first, second)} == {
        first: "0.00",
        second: "1000.00",
    }
    assert earned["linear"] == earned["time_decay"] == {first: "500.00", second: "500.00"}


def test_amounts_in_three_currencies_are_never_added_silently(admin: Client) -> None:
    one, who = pipeline(admin), customer(admin, occurred_at="2025-01-01T00:00:00Z")
    for currency, value in (("CNY", "100.00"), ("EUR", "10.00"), ("JPY", "5000")):
        deal(admin, customer_id=who, pipeline_id=one, amount=amount(value, currency))
    for path in ("/v1/funnel", "/v1/forecast"):
        for convert in ("false", "true"):  # no rate from yen is recorded
            answer = admin.read(
                path, pipeline_id=one, convert=convert, as_of="2999-01-01T00:00:00Z"
            )
            beside = {
                row["amount"]["currency"]: row["amount"] for row in answer["other_currencies"]
            }
            assert beside["JPY"] == amount("5000", "JPY")
            assert beside["EUR"] == amount("10.00", "EUR")
            own = answer["stages"][0]["weighted"] if "stages" in answer else answer["total"]
            assert own == amount("25.00")
    quoted = {"from": "EUR", "to": "CNY", "rate": "8", "on": "2025-01-01"}
    admin.done("/v1/exchange-rates", quoted)
    for path in ("/v1/funnel", "/v1/forecast"):
        answer = admin.read(path, pipeline_id=one, convert="true")
        assert [row["amount"]["currency"] for row in answer["other_currencies"]] == ["JPY"]
        own = answer["stages"][0]["weighted"] if "stages" in answer else answer["total"]
        assert own == amount("45.00")
        assert [rate["rate"] for rate in answer["rates"]] == ["8"]
