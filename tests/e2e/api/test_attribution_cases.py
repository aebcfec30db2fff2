"""Attribution where touches are several anchors, and where paths are few, unlucky or many; each
test of paths has a day of its own, by which it asks."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.e2e.api.making import amount, campaign, customer
from tests.e2e.api.recorded import last_event, problem
from tests.e2e.api.running import Client, Product
from tests.e2e.api.test_attribution import buyer, by_touch, opened, sign, touch

DATA_DRIVEN = ["markov", "shapley"]


@pytest.mark.parametrize(
    ("touches", "model", "credits"),
    [
        ((40, 30, 20, 10), "w", ["600.00", "300.00", "50.00", "50.00"]),
        ((40, 30, 20, 10), "full_path", ["450.00", "225.00", "100.00", "225.00"]),
        ((40, 30), "u", ["500.00", "500.00"]),
        ((40, 30), "w", ["666.67", "333.33"]),
        ((40, 30), "full_path", ["500.00", "500.00"]),
    ],
)
def test_double_anchors_and_no_middle(
    admin: Client, touches: tuple[int, ...], model: str, credits: list[str]
) -> None:
    """R77: the first touch is the lead as well and gets both shares; with two touches the second
    is both opportunity and close, and the share of the middle goes to all in proportion. U with
    two: half each."""
    by, of = campaign(admin), buyer(admin)
    for days in touches:
        touch(admin, of, by, days)
    deal = opened(admin, of, 25)
    sign(admin, deal)
    anchors = [one["anchors"] for one in admin.read(f"/v1/attribution/deals/{deal}")["touches"]]
    assert anchors[0] == ["first", "lead"]
    assert "opportunity" in anchors[1]
    assert by_touch(admin, deal, model) == credits


def path_of(client: Client, day: str, touches: list[str], end: str | None) -> None:
    """A customer touched hour after hour of that day, who ends in a win of 1,000.00, a loss or,
    without a deal, nothing."""
    of = customer(client, occurred_at=f"{day}T00:00:00Z")
    for hour, by in enumerate(touches, 2):
        body = {"campaign_id": by, "channel": "web", "kind": "click"}
        at = f"{day}T{hour:02}:00:00Z"
        client.done(f"/v1/customers/{of}/responses", {**body, "occurred_at": at})
    if end is None:
        return
    deal = {"customer_id": of, "name": "crane", "amount": amount()}
    made = client.done("/v1/opportunities", {**deal, "occurred_at": f"{day}T01:00:00Z"})["id"]
    told: dict[str, Any] = {"occurred_at": f"{day}T23:00:00Z"}
    if end == "contract":
        told |= {"amount": amount(), "signed_on": day}
    else:
        told |= {"cause": "price", "competitor": "none"}
    client.done(f"/v1/opportunities/{made}/{end}", told)


def asked(client: Client, day: str, model: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Credits of campaigns, and the whole answer; they sum to the revenue."""
    following = f"{day[:-2]}{int(day[-2:]) + 1:02}"
    answer = client.read("/v1/attribution", **{"model": model, "from": day, "to": following})
    credits = {row["campaign_id"]: row["credit"]["value"] for row in answer["campaigns"]}
    parts = [*credits.values(), answer["unattributed"]["value"]]
    assert sum(map(Decimal, parts)) == Decimal(answer["revenue"]["value"])
    return credits, answer


def test_a_campaign_that_follows_on_itself_counts_once(admin: Client) -> None:
    """R77: G→win, G→win, M→win, G→M→win, G→nothing, with each G twice: 2.4 and 1.6 of 4 still."""
    day = "2021-03-02"
    g, m = campaign(admin, name="G"), campaign(admin, name="M")
    for touches, end in (
        ([g, g], "contract"), ([g], "contract"), ([m], "contract"), ([g, g, m], "contract"),
        ([g, g], None),
    ):  # fmt: skip
        path_of(admin, day, touches, end)
    credits, answer = asked(admin, day, "markov")
    assert credits == {g: "2400.00", m: "1600.00"}
    assert answer["fit"]["removal_effects"] == {g: "0.75", m: "0.5"}
    assert asked(admin, day, "shapley")[0] == {g: "1166.67", m: "2833.33"}


def test_where_all_paths_were_lost_there_is_nothing_to_share(admin: Client) -> None:
    """R77: all effects are zero, and no answer divides by them."""
    day = "2021-03-04"
    g, m = campaign(admin), campaign(admin)
    path_of(admin, day, [g, m], "loss")
    path_of(admin, day, [m], None)
    for model in DATA_DRIVEN:
        credits, answer = asked(admin, day, model)
        assert set(credits.values()) <= {"0.00"}
        assert answer["revenue"] == amount("0.00")
        assert (answer["fit"]["paths"], answer["fit"]["wins"]) == (2, 0)


def test_shares_are_never_negative(admin: Client) -> None:
    """R77, Shapley: v(A)=1, v(B)=0, v(AB)=1/3, so B's value is -1/3: it gets 0, A all."""
    day = "2021-03-06"
    a, b = campaign(admin), campaign(admin)
    path_of(admin, day, [a], "contract")
    path_of(admin, day, [b], "loss")
    path_of(admin, day, [a, b], "loss")
    credits, _ = asked(admin, day, "shapley")
    assert (credits[a], credits.get(b, "0.00")) == ("1000.00", "0.00")


def test_what_no_path_was_alone_is_worth_nothing_alone(admin: Client) -> None:
    """R77, Shapley: v(A)=v(B)=0, v(AB)=1: half each."""
    day = "2021-03-08"
    a, b = campaign(admin), campaign(admin)
    path_of(admin, day, [a, b], "contract")
    assert asked(admin, day, "shapley")[0] == {a: "500.00", b: "500.00"}


@pytest.mark.parametrize(("day", "count"), [("2021-03-10", 12), ("2021-03-12", 13)])
def test_up_to_twelve_it_is_exact_and_above_the_error_is_stated(
    admin: Client, day: str, count: int
) -> None:
    """R77, Shapley: each campaign alone has won once, so that each has the same value."""
    made = [campaign(admin) for _ in range(count)]
    for by in made:
        path_of(admin, day, [by], "contract")
    credits, answer = asked(admin, day, "shapley")
    assert sum(map(Decimal, credits.values())) == 1000 * count
    errors = [row["error"] for row in answer["campaigns"]]
    if count <= 12:
        assert credits == dict.fromkeys(made, "1000.00")
        assert (answer["fit"]["orders"], set(map(str, errors))) == (0, {"None"})
    else:
        assert answer["fit"]["orders"] >= 200
        for row in answer["campaigns"]:
            away = abs(Decimal(row["credit"]["value"]) - 1000)
            assert away <= 6 * Decimal(row["error"]["value"]) + Decimal("0.01")


def test_five_channels_and_any_other_by_name(admin: Client, product: Product) -> None:
    """R77: visit, conference, web, letter, phone; another needs no more than a name; a response is
    an event."""
    known = ("visit", "conference", "web", "letter", "phone")
    who = customer(admin)
    for channel in (*known, "trade-fair"):
        by = campaign(admin, channel=channel)
        answered = {"campaign_id": by, "channel": channel, "kind": "reply"}
        admin.done(f"/v1/customers/{who}/responses", answered)
        topic, _, body = last_event(product)
        assert topic == "crm.customer.campaign-responded"
        assert (body["campaign_id"], body["channel"]) == (by, channel)
    schemas = product.app.openapi()["components"]["schemas"]
    for body in ("PlanCampaign", "RecordResponse"):
        assert schemas[body]["properties"]["channel"]["examples"] == list(known)
    planned = {"name": "x", "starts_on": "2026-03-01", "ends_on": "2026-03-31", "budget": amount()}
    for wrong in ("Web", "trade fair", "x" * 51, ""):
        assert admin.command("/v1/campaigns", {**planned, "channel": wrong}).status_code == 422
        refused = admin.command(f"/v1/customers/{who}/responses", {**answered, "channel": wrong})
        assert refused.status_code == 422


def test_nothing_runs_before_it_is_approved(admin: Client) -> None:
    """R36: planned, submitted, rejected or approved, running, completed; or cancelled."""
    path = f"/v1/campaigns/{campaign(admin)}"

    def step(name: str, told: str = "") -> str:
        response = admin.command(f"{path}/{name}")
        assert problem(response) == ((409, told) if told else (200, ""))
        return str(admin.read(path)["status"])

    assert step("start", "campaign-not-approved") == "planned"
    assert step("approve", "campaign-step-refused") == "planned"
    assert step("submit") == "submitted"
    assert step("start", "campaign-not-approved") == "submitted"
    assert step("reject") == "rejected"
    assert step("start", "campaign-not-approved") == "rejected"
    assert step("submit") == "submitted"
    assert step("approve") == "approved"
    assert step("complete", "campaign-step-refused") == "approved"
    assert step("start") == "running"
    assert step("complete") == "completed"
    assert step("cancel", "campaign-step-refused") == "completed"
    path = f"/v1/campaigns/{campaign(admin, 'submit', 'cancel')}"
    assert step("start", "campaign-step-refused") == "cancelled"


def test_one_campaign_to_many_deals_and_contracts_and_what_grew(admin: Client) -> None:
    """R37, R39: three deals, two contracts; sales of 500 after 200 in as many days before grew by
    1.5; two of four customers reached; watched half-way, two of four weeks."""
    region = "the far north"
    by = campaign(
        admin, "submit", "approve", "start", region=region, starts_on="2022-03-03",
        ends_on="2022-03-30", budget=amount("80.00"),
    )  # fmt: skip
    admin.done(f"/v1/campaigns/{by}/costs", {"amount": amount("100.00")})
    long_ago = "2022-01-01T09:00:00Z"
    one, other, *_ = (customer(admin, region=region, occurred_at=long_ago) for _ in range(4))

    def won(of: str, opened_on: str, signed_on: str | None, value: str, by: str | None) -> None:
        deal = {"customer_id": of, "name": "crane", "amount": amount(value), "campaign_id": by}
        at = f"{opened_on}T09:00:00Z"
        made = admin.done("/v1/opportunities", {**deal, "occurred_at": at})["id"]
        if signed_on is not None:
            signed = {"amount": amount(value), "signed_on": signed_on}
            at = f"{signed_on}T09:00:00Z"
            admin.done(f"/v1/opportunities/{made}/contract", {**signed, "occurred_at": at})

    won(one, "2022-02-03", "2022-02-10", "200.00", None)
    won(one, "2022-03-05", "2022-03-20", "400.00", by)
    won(other, "2022-03-06", "2022-03-29", "100.00", by)
    won(other, "2022-03-07", None, "70.00", by)
    rows = admin.read("/v1/campaigns/performance")["campaigns"]
    (row,) = (row for row in rows if row["campaign_id"] == by)
    assert (row["deals"], row["contracts"], row["contract_amount"]) == (3, 2, amount("500.00"))
    assert (row["cost"], row["differences"]["cost"]) == (amount("100.00"), amount("20.00"))
    effect = admin.read(f"/v1/campaigns/{by}/effect")
    assert (effect["sales_before"], effect["sales"]) == (amount("200.00"), amount("500.00"))
    assert effect["growth"] == "1.5"
    assert (effect["reached"], effect["customers"], effect["coverage"]) == (2, 4, "0.5")
    assert (effect["cost"], effect["credit"]) == (amount("100.00"), amount("500.00"))
    assert (effect["return"], effect["output_over_input"]) == ("4", "5")
    assert [week["deals"] for week in effect["weeks"]] == [3, 0, 0, 0]
    sold = [week["amount"]["value"] for week in effect["weeks"]]
    assert sold == ["0.00", "0.00", "400.00", "100.00"]
