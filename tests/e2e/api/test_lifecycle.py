"""The lifecycle of customers through the API: flows, cohorts, losses by reason, and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.api.making import amount, campaign, customer, deal
from tests.e2e.api.recorded import problem
from tests.e2e.api.running import Client, Product


def at(day: str) -> str:
    return f"{day}T09:00:00+00:00"


@pytest.fixture(scope="module")
def story(start_product: Callable[..., Product]) -> Iterator[tuple[Client, dict[str, str]]]:
    """Four customers in the first half of 2025; the last one buys nothing."""
    with start_product().client() as client:
        made = {
            name: customer(client, name=name, occurred_at=at(day))
            for name, day in (
                ("acme", "2025-01-05"),
                ("beta", "2025-01-20"),
                ("gamma", "2025-02-10"),
                ("quiet", "2025-03-01"),
            )
        }

        def order(name: str, day: str, value: str, **more: Any) -> None:
            body = {"order_id": f"{name} {day}", "amount": amount(value), **more}
            client.done(f"/v1/customers/{made[name]}/orders", {**body, "occurred_at": at(day)})

        order("acme", "2025-01-10", "100.00")
        order("acme", "2025-03-10", "50.00")
        order("beta", "2025-01-25", "30.00")
        order("gamma", "2025-02-20", "10.00")
        path = f"/v1/customers/{made['beta']}"
        client.done(f"{path}/lifecycle", {"level": "stable", "occurred_at": at("2025-02-01")})
        client.done(f"{path}/churn", {"cause": "price", "occurred_at": at("2025-04-01")})
        won = deal(client, customer_id=made["gamma"], occurred_at=at("2025-03-01"))
        body = {"amount": amount("70.00"), "signed_on": "2025-04-15"}
        client.done(f"/v1/opportunities/{won}/contract", body)
        yield client, made


def test_flows_sum_to_the_customers_on_every_date(story: tuple[Client, dict[str, str]]) -> None:
    client, _ = story
    answer = client.read(
        "/v1/lifecycle/flows",
        **{"from": at("2025-02-05"), "between": at("2025-03-15"), "to": at("2025-05-01")},
    )
    assert answer["customers"] == 4
    assert answer["definition"] == {"path": "1"}
    for step in range(3):
        nodes = [node for node in answer["nodes"] if node["step"] == step]
        assert sum(node["customers"] for node in nodes) == 4
    for step in range(2):
        links = [link for link in answer["links"] if link["step"] == step]
        assert sum(link["customers"] for link in links) == 4
    found = {
        (link["step"], link["from"], link["to"]): link["customers"] for link in answer["links"]
    }
    assert found == {
        (0, "absent", "prospect"): 1,
        (0, "absent", "relationship"): 1,
        (0, "relationship", "relationship"): 2,
        (1, "prospect", "prospect"): 1,
        (1, "relationship", "relationship"): 2,
        (1, "relationship", "lost"): 1,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"from": "2025-03-01T00:00:00Z", "to": "2025-02-01T00:00:00Z"},
        {"from": "2025-03-01T00:00:00Z", "between": "2025-02-01T00:00:00Z"},
        {"from": "2025-03-01T00:00:00Z", "to": "2999-02-01T00:00:00Z"},
        {"to": "2025-02-01T00:00:00Z"},
    ],
)
def test_dates_out_of_order_are_refused(
    story: tuple[Client, dict[str, str]], wrong: dict[str, str]
) -> None:
    assert story[0].get("/v1/lifecycle/flows", params=wrong).status_code == 422
    if "from" in wrong and "to" in wrong and wrong["to"] < wrong["from"]:
        for path in ("transitions", "losses", "causes"):
            assert story[0].get(f"/v1/lifecycle/{path}", params=wrong).status_code == 422


def test_cohorts_have_who_bought_who_stayed_and_the_revenue(
    story: tuple[Client, dict[str, str]],
) -> None:
    answer = story[0].read("/v1/lifecycle/cohorts", as_of=at("2025-05-01"), months=5)
    january, february = answer["cohorts"]
    assert (january["cohort"], january["customers"]) == ("2025-01-01", 2)
    assert [month["active"] for month in january["months"]] == [2, 0, 1, 0, 0]
    assert [month["retained"] for month in january["months"]] == [2, 2, 2, 1, 1]
    assert [month["revenue"]["value"] for month in january["months"]] == [
        "130.00", "0.00", "50.00", "0.00", "0.00",
    ]  # fmt: skip
    assert (february["cohort"], february["customers"]) == ("2025-02-01", 1)
    assert [month["revenue"]["value"] for month in february["months"]] == [
        "10.00", "0.00", "70.00", "0.00",
    ]  # fmt: skip
    by_registration = story[0].read(
        "/v1/lifecycle/cohorts", as_of=at("2025-05-01"), months=5, by="registration"
    )
    assert [cohort["customers"] for cohort in by_registration["cohorts"]] == [2, 1, 1]
    early = story[0].read("/v1/lifecycle/cohorts", as_of=at("1999-05-01"))
    assert early["cohorts"] == []


def test_losses_tell_who_when_and_why(story: tuple[Client, dict[str, str]]) -> None:
    """R66: and from which level."""
    client, made = story
    (loss,) = client.read("/v1/lifecycle/losses")["items"]
    assert loss.pop("event") > 0
    assert loss == {
        "customer_id": made["beta"],
        "lost_at": at("2025-04-01"),
        "cause": "price",
        "active": True,
        "level": "stable",
        "rule": None,
    }
    answer = client.read("/v1/lifecycle/causes")
    assert answer["causes"] == [{"cause": "price", "active": True, "losses": 1, "from_stable": 1}]
    before = client.read("/v1/lifecycle/losses", to=at("2025-04-01"))
    assert before["items"] == []
    assert client.read("/v1/lifecycle/losses", active="false")["items"] == []


def test_a_customer_says_why_it_stands_there(story: tuple[Client, dict[str, str]]) -> None:
    client, made = story
    path = f"/v1/customers/{made['beta']}/lifecycle"
    now = client.read(path)
    assert now["standing"]["type"]["cause"] == "price"
    assert now["standing"]["type"]["event"]["kind"] == "churned"
    assert now["strategy"] is None
    stable = client.read(path, as_of=at("2025-03-01"))
    assert stable["standing"]["level"]["value"] == "stable"
    assert stable["standing"]["level"]["event"]["kind"] == "level-changed"
    strategies = {
        row["level"]: row["strategy"]
        for row in client.read("/v1/lifecycle/strategies")["strategies"]
    }
    assert len(strategies) == 6
    assert stable["strategy"] == strategies["stable"]
    assert client.get(path, params={"as_of": at("1999-01-01")}).status_code == 404


def test_time_in_a_value_counts_who_is_still_there(story: tuple[Client, dict[str, str]]) -> None:
    answer = story[0].read("/v1/lifecycle/durations", as_of=at("2025-04-30"))
    rows = {row["value"]: row for row in answer["durations"]}
    relationship = rows["relationship"]
    assert (relationship["closed"], relationship["open"]) == (1, 2)
    assert relationship["mean_days"] == relationship["median_days"] == "66"
    # Kaplan–Meier over 66 days ended, 69 and 110 still running: S = 2/3 from day 66 on.
    assert relationship["survival_median_days"] is None
    assert relationship["restricted_to_days"] == "110"
    assert relationship["restricted_mean_days"] == "95.333333"


def test_a_user_begins_with_the_first_delivery(start_product: Callable[..., Product]) -> None:
    """R29: also where the delivery was told late."""
    with start_product().client() as client:
        made = {
            name: customer(client, name=name, occurred_at=at("2025-01-01"))
            for name in ("user", "buyer", "prospect")
        }
        made["unknown"] = customer(client, identified=False, occurred_at=at("2025-01-01"))
        for name in ("user", "buyer"):
            order = {"order_id": "O-1", "amount": amount(), "occurred_at": at("2025-01-10")}
            client.done(f"/v1/customers/{made[name]}/orders", order)
        path = f"/v1/customers/{made['user']}/deliveries"
        delivery = {"delivery_id": "D-1", "order_id": "O-1", "occurred_at": at("2025-02-01")}
        done = client.done(path, {**delivery, "reason": "the lorry was there"})
        assert client.done(path, delivery)["version"] == done["version"] == 3
        client.done(f"/v1/customers/{made['unknown']}/deliveries", {"delivery_id": "D-9"})
        differs = client.command(path, {**delivery, "order_id": "O-2"})
        assert problem(differs) == (409, "delivery-differs")
        for wrong in ({}, {"delivery_id": " "}, {"delivery_id": "D", "order_id": 5}):
            assert client.command(path, wrong).status_code == 422

        def counts(**moment: str | int) -> dict[str, int]:
            answer = client.read("/v1/lifecycle", classification="identification", **moment)
            rows = {row["value"]: row["customers"] for row in answer["distribution"]}
            assert sum(rows.values()) == answer["customers"] == 4
            assert list(rows) == [
                "to_be_identified", "prospect", "sales_opportunity", "order", "user",
            ]  # fmt: skip
            return {value: customers for value, customers in rows.items() if customers}

        assert counts() == {"to_be_identified": 1, "prospect": 1, "order": 1, "user": 1}
        january = {"to_be_identified": 1, "prospect": 1, "order": 2}
        assert counts(as_of=at("2025-01-31")) == january
        early = {
            "path": path, "key": "early",
            "body": {"delivery_id": "D-0", "occurred_at": at("2025-01-20")},
        }  # fmt: skip
        (line,) = client.post("/v1/bulk", json=[early]).text.splitlines()
        answer = json.loads(line)
        assert answer["status"] == 200
        assert counts(as_of=at("2025-01-31"), min_position=answer["position"])["user"] == 1
        assert counts(as_of=at("2025-01-31"), known_at=answer["position"] - 1) == january


@pytest.mark.parametrize("classification", ["type", "path", "identification", "level"])
def test_the_distribution_sums_to_the_customers_at_every_date(
    story: tuple[Client, dict[str, str]], classification: str
) -> None:
    """R28, R29, R64, R65: every customer has one value, from its registration on."""
    for day, customers in (
        ("2025-01-04", 0), ("2025-01-05", 1), ("2025-01-20", 2), ("2025-02-01", 2),
        ("2025-02-10", 3), ("2025-03-01", 4), ("2025-04-01", 4), ("2025-05-01", 4),
    ):  # fmt: skip
        asked = {"classification": classification, "as_of": at(day)}
        answer = story[0].read("/v1/lifecycle", **asked)
        counts = [row["customers"] for row in answer["distribution"]]
        assert sum(counts) == answer["customers"] == customers


@pytest.mark.parametrize(
    ("classification", "moves"),
    [
        ("type", {("prospect", "relationship"): 3, ("relationship", "lost"): 1}),
        (
            "path",
            {("prospect", "order"): 3, ("order", "repeat"): 2},
        ),
        ("identification", {("prospect", "order"): 3}),
        ("level", {("none", "new"): 3, ("new", "stable"): 1, ("stable", "none"): 1}),
    ],
)
def test_the_rows_of_the_matrix_sum_to_the_departures(
    story: tuple[Client, dict[str, str]], classification: str, moves: dict[tuple[str, str], int]
) -> None:
    """R28, R64, R65: and a loss out of `stable` is singled out, whatever is asked for."""
    answer = story[0].read("/v1/lifecycle/transitions", classification=classification)
    found = {(row["from"], row["to"]): row["moves"] for row in answer["transitions"]}
    assert found == moves
    for row in answer["departures"]:
        out = sum(count for (source, _), count in moves.items() if source == row["value"])
        assert row["departures"] == out
    assert answer["stable_to_lost"] == 1


def test_time_in_a_value_begins_with_the_event_that_opened_it(
    story: tuple[Client, dict[str, str]],
) -> None:
    """R64: the first one included: 5, 5 and 10 days from the registration to the first order."""

    def rows(classification: str) -> dict[str, tuple[int, int, str | None]]:
        answer = story[0].read("/v1/lifecycle/durations", classification=classification)
        return {
            row["value"]: (row["closed"], row["open"], row["mean_days"])
            for row in answer["durations"]
        }

    assert rows("type")["prospect"] == (3, 1, "6.666667")
    levels = rows("level")
    assert levels["new"] == (1, 2, "7")  # 25 January to 1 February
    assert levels["stable"] == (1, 0, "59")  # to 1 April


def test_the_way_of_one_customer(admin: Client) -> None:
    """R28, R29, R65: each value in its turn; paths never go back, a deal is one order, and who is
    won back begins anew."""
    fair = campaign(admin, occurred_at=at("2018-01-01"))
    who = customer(admin, identified=False, occurred_at=at("2018-01-01"))
    path = f"/v1/customers/{who}"

    def told(what: str, day: str, **body: Any) -> None:
        admin.done(f"{path}/{what}", {**body, "occurred_at": at(day)})

    told("profile", "2018-01-05", identified=True)
    told("responses", "2018-01-07", campaign_id=fair, channel="visit", kind="met")
    first = deal(admin, customer_id=who, occurred_at=at("2018-01-10"))
    signed = {"amount": amount("70.00"), "signed_on": "2018-01-20"}
    for _ in range(2):
        admin.done(
            f"/v1/opportunities/{first}/contract", {**signed, "occurred_at": at("2018-01-20")}
        )
    told("orders", "2018-01-30", order_id="1", amount=amount())
    deal(admin, customer_id=who, occurred_at=at("2018-02-10"))
    told("churn", "2018-02-20", cause="price")
    told("win-back", "2018-03-01")
    names = ("type", "path", "identification", "level")
    for day, values in (
        ("2018-01-01", ("prospect", "prospect", "to_be_identified", "none")),
        ("2018-01-05", ("prospect", "prospect", "prospect", "none")),
        ("2018-01-07", ("responder", "prospect", "prospect", "none")),
        ("2018-01-10", ("responder", "opportunity", "sales_opportunity", "none")),
        ("2018-01-20", ("relationship", "order", "order", "new")),
        ("2018-01-29", ("relationship", "order", "order", "new")),
        ("2018-01-30", ("relationship", "repeat", "order", "new")),
        ("2018-02-10", ("relationship", "repeat", "order", "new")),
        ("2018-02-20", ("lost", "repeat", "order", "none")),
        ("2018-03-01", ("relationship", "repeat", "order", "new")),
    ):
        seen = admin.read(path, as_of=at(day))["lifecycle"]
        assert (day, tuple(seen[name]["value"] for name in names)) == (day, values)


def test_losses_by_cause(admin: Client) -> None:
    """R66: by every reason that somebody can tell; a silence is found, not told."""
    causes = ["product", "service", "price", "competitor", "closure", "relationship", "other"]
    for cause in [*causes, "price"]:
        who = customer(admin, occurred_at=at("2017-01-01"))
        body = {"order_id": "1", "amount": amount(), "occurred_at": at("2017-01-02")}
        admin.done(f"/v1/customers/{who}/orders", body)
        admin.done(f"/v1/customers/{who}/churn", {"cause": cause, "occurred_at": at("2017-02-01")})
    answer = admin.read(
        "/v1/lifecycle/causes", **{"from": at("2017-01-15"), "to": at("2017-03-01")}
    )
    assert answer["losses"] == 8
    assert {row["cause"]: row["losses"] for row in answer["causes"]} == {
        **dict.fromkeys(causes, 1), "price": 2,
    }  # fmt: skip
    assert answer["causes"][0]["cause"] == "price"
    for wrong in ("silence", "weather"):
        assert admin.command(f"/v1/customers/{who}/churn", {"cause": wrong}).status_code == 422


def test_each_level_has_a_strategy(admin: Client) -> None:
    """R68: six levels, six texts."""
    rows = admin.read("/v1/lifecycle/strategies")["strategies"]
    levels = ["new", "growing", "stable", "declining", "problem", "no-value"]
    assert [row["level"] for row in rows] == levels
    assert len({row["strategy"] for row in rows}) == 6
