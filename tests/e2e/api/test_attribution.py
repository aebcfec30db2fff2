"""Attribution and campaigns through the API, by the check values of their definitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from infra.postgres import connect
from tests.e2e.api.making import amount, campaign, customer
from tests.e2e.api.running import Client, Product

CLOSE = datetime.now(UTC).replace(microsecond=0) - timedelta(days=5)
MODELS = [
    "first", "last", "linear", "u", "w", "full_path", "time_decay", "markov", "shapley",
]  # fmt: skip
RULES = MODELS[:7]


def before(days: float) -> str:
    """So many days before the close."""
    return (CLOSE - timedelta(days=days)).isoformat()


def running(client: Client, **body: Any) -> str:
    return campaign(client, "submit", "approve", "start", **body)


def buyer(client: Client, **body: Any) -> str:
    return customer(client, occurred_at=before(200), **body)


def touch(client: Client, of: str, by: str, days: float) -> None:
    body = {"campaign_id": by, "channel": "web", "kind": "click", "occurred_at": before(days)}
    client.done(f"/v1/customers/{of}/responses", body)


def opened(client: Client, of: str, days: float, by: str | None = None, **body: Any) -> str:
    deal = {"customer_id": of, "name": "crane", "amount": amount(), "occurred_at": before(days)}
    return str(client.done("/v1/opportunities", {**deal, "campaign_id": by, **body})["id"])


def sign(client: Client, deal: str, value: str = "1000.00", currency: str = "CNY") -> None:
    body = {
        "amount": amount(value, currency),
        "signed_on": CLOSE.date().isoformat(),
        "occurred_at": CLOSE.isoformat(),
    }
    client.done(f"/v1/opportunities/{deal}/contract", body)


def lose(client: Client, deal: str) -> None:
    body = {"cause": "price", "competitor": "none", "occurred_at": CLOSE.isoformat()}
    client.done(f"/v1/opportunities/{deal}/loss", body)


def by_touch(client: Client, deal: str, model: str) -> list[str]:
    answer = client.read(f"/v1/attribution/deals/{deal}")
    credits = [one["credits"][model]["value"] for one in answer["touches"]]
    assert sum(map(Decimal, credits)) == Decimal(answer["amount"]["value"])
    return credits


# ---- one deal, touch by touch ----


def test_u_with_four_touches(admin: Client) -> None:
    """R77: 400/100/100/400."""
    by, of = running(admin), buyer(admin)
    deal = opened(admin, of, 50)
    for days in (40, 30, 20, 10):
        touch(admin, of, by, days)
    sign(admin, deal)
    assert by_touch(admin, deal, "u") == ["400.00", "100.00", "100.00", "400.00"]


@pytest.mark.parametrize("last", [False, True], ids=["w-with-five", "full-path-with-six"])
def test_anchors_at_one_three_and_four(admin: Client, last: bool) -> None:
    """R77: W 300/50/300/300/50, full path 225/50/225/225/50/225. Two deals are opened from a
    campaign before the customer responds to anything."""
    by, of = running(admin), buyer(admin)
    opened(admin, of, 60, by)
    opened(admin, of, 50, by)
    touch(admin, of, by, 40)
    deal = opened(admin, of, 30, by)
    touch(admin, of, by, 20)
    if last:
        touch(admin, of, by, 10)
    sign(admin, deal)
    answer = admin.read(f"/v1/attribution/deals/{deal}")
    anchors = [["first"], [], ["lead"], ["opportunity"], []]
    assert [one["anchors"] for one in answer["touches"]] == (
        [*anchors, ["close"]] if last else [*anchors[:4], ["close"]]
    )
    if last:
        expected = ["225.00", "50.00", "225.00", "225.00", "50.00", "225.00"]
        assert by_touch(admin, deal, "full_path") == expected
    else:
        expected = ["300.00", "50.00", "300.00", "300.00", "50.00"]
        assert by_touch(admin, deal, "w") == expected


def test_time_decay_at_14_7_and_0_days(admin: Client) -> None:
    """R77: 1/7, 2/7, 4/7."""
    by, of = running(admin), buyer(admin)
    deal = opened(admin, of, 50)
    for days in (14, 7, 0):
        touch(admin, of, by, days)
    sign(admin, deal, "7.00")
    assert by_touch(admin, deal, "time_decay") == ["1.00", "2.00", "4.00"]


@pytest.mark.parametrize("model", RULES)
def test_one_touch_gets_all(admin: Client, model: str) -> None:
    """R77: by every rule."""
    of = buyer(admin)
    deal = opened(admin, of, 50, running(admin))
    sign(admin, deal)
    assert by_touch(admin, deal, model) == ["1000.00"]


def test_touches_after_the_win_do_not_count_and_equal_instants_go_by_position(
    admin: Client,
) -> None:
    of = buyer(admin)
    one, other = running(admin), running(admin)
    deal = opened(admin, of, 50)
    for by in (other, one):
        touch(admin, of, by, 3)
    sign(admin, deal)
    touch(admin, of, running(admin), -1)
    touch(admin, of, running(admin), 90)  # the look-back is open at its beginning
    touches = admin.read(f"/v1/attribution/deals/{deal}")["touches"]
    assert [row["campaign_id"] for row in touches] == [other, one]
    assert by_touch(admin, deal, "u") == ["500.00", "500.00"]


def test_a_deal_that_is_not_won_has_no_credits(admin: Client) -> None:
    deal = opened(admin, buyer(admin), 10, running(admin))
    answer = admin.read(f"/v1/attribution/deals/{deal}")
    assert (answer["amount"], answer["touches"]) == (None, [])
    assert answer["definition"] == {"attribution": "1"}
    unknown = admin.get(f"/v1/attribution/deals/{buyer(admin)[:-4]}0000")
    assert unknown.status_code == 404


# ---- a company ----


@contextmanager
def company(start_product: Callable[..., Product]) -> Iterator[tuple[Client, dict[str, str]]]:
    """The paths G→win, G→win, M→win, G→M→win, G→nothing, each win of 10,000; one deal open, one
    won without a touch for 5,000, one lost without any."""
    with start_product().client() as client:
        ids = {
            "G": running(client, name="G", channel="web", region="north"),
            "M": running(client, name="M", channel="letter", region="south"),
        }
        for path in ("G", "G", "M", "GM", ""):
            of = buyer(client)
            deal = opened(client, of, 50)
            for number, name in enumerate(path):
                touch(client, of, ids[name], 40 - number)
            sign(client, deal, "10000.00" if path else "5000.00")
        touch(client, buyer(client), ids["G"], 40)
        of = buyer(client)
        opened(client, of, 30)
        touch(client, of, ids["M"], 20)
        lose(client, opened(client, buyer(client), 30))
        client.done(f"/v1/campaigns/{ids['G']}/costs", {"amount": amount("1000.00")})
        yield client, {id_: name for name, id_ in ids.items()}


@pytest.fixture(scope="module")
def paths(start_product: Callable[..., Product]) -> Iterator[tuple[Client, dict[str, str]]]:
    with company(start_product) as made:
        yield made


def credits(answer: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    return {names[row["campaign_id"]]: row["credit"]["value"] for row in answer["campaigns"]}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("first", {"G": "30000.00", "M": "10000.00"}),
        ("last", {"G": "20000.00", "M": "20000.00"}),
        ("linear", {"G": "25000.00", "M": "15000.00"}),
        ("markov", {"G": "24000.00", "M": "16000.00"}),
        ("shapley", {"G": "11666.67", "M": "28333.33"}),
    ],
)
def test_credits_of_campaigns(
    paths: tuple[Client, dict[str, str]], model: str, expected: dict[str, str]
) -> None:
    """R77: markov 2.4 and 1.6, shapley 1.1667 and 2.8333 of 4."""
    client, names = paths
    answer = client.read("/v1/attribution", model=model)
    assert credits(answer, names) == expected
    assert answer["revenue"] == amount("45000.00")
    assert answer["unattributed"] == amount("5000.00")
    rows = {names[row["campaign_id"]]: row for row in answer["campaigns"]}
    assert rows["M"]["return"] is None
    assert Decimal(rows["G"]["return"]) == Decimal(expected["G"]) / 1000 - 1


def test_a_data_driven_model_says_what_it_was_fitted_to(
    paths: tuple[Client, dict[str, str]],
) -> None:
    """R77: removal effects 0.75 and 0.5."""
    client, names = paths
    fit = client.read("/v1/attribution", model="markov")["fit"]
    effects = {names[id_]: effect for id_, effect in fit.pop("removal_effects").items()}
    assert effects == {"G": "0.75", "M": "0.5"}
    assert fit == {"paths": 5, "wins": 4, "orders": 0}
    assert client.read("/v1/attribution", model="linear")["fit"] is None


def test_all_models_side_by_side(paths: tuple[Client, dict[str, str]]) -> None:
    """R77: attributed + unattributed = won revenue."""
    client, names = paths
    answer = client.read("/v1/attribution/comparison")
    assert [row["model"] for row in answer["models"]] == MODELS
    for row in answer["models"]:
        alone = client.read("/v1/attribution", model=row["model"])
        assert credits(row, names) == credits(alone, names)
        parts = [*credits(row, names).values(), row["unattributed"]["value"]]
        assert sum(map(Decimal, parts)) == Decimal(row["revenue"]["value"]) == 45000


@pytest.mark.parametrize("group", ["channel", "region", "size_band"])
def test_groups_sum_to_the_revenue(paths: tuple[Client, dict[str, str]], group: str) -> None:
    client, _ = paths
    for model in MODELS:
        answer = client.read("/v1/attribution", model=model, group=group)
        credit = sum(Decimal(row["credit"]["value"]) for row in answer["groups"])
        assert credit + 5000 == 45000
    if group == "channel":
        assert [row["value"] for row in answer["groups"]] == ["web", "letter"]
        assert [row["cost"]["value"] for row in answer["groups"]] == ["1000.00", "0.00"]


def test_days_are_half_open_and_before_the_beginning_there_is_nothing(
    paths: tuple[Client, dict[str, str]],
) -> None:
    client, _ = paths
    signed = CLOSE.date()
    for model in ("last", "markov", "shapley"):
        only = {"model": model, "from": signed, "to": signed + timedelta(days=1)}
        assert client.read("/v1/attribution", **only)["revenue"]["value"] == "45000.00"
        for none in ({"to": signed}, {"from": signed + timedelta(days=1)}):
            answer = client.read("/v1/attribution", model=model, **none)
            assert (answer["revenue"]["value"], answer["campaigns"]) == ("0.00", [])
        early = client.read("/v1/attribution", model=model, as_of="1999-01-01T00:00:00Z")
        assert (early["revenue"]["value"], early["campaigns"]) == ("0.00", [])


@pytest.mark.parametrize(
    ("model", "revenue", "unattributed", "m"),
    [
        ("first", "45000.00", "25000.00", "20000.00"),
        ("linear", "45000.00", "25000.00", "20000.00"),
        ("shapley", "45000.00", "25000.00", "20000.00"),
        ("markov", "15000.00", "5000.00", "10000.00"),
    ],
)
def test_without_a_campaign(
    paths: tuple[Client, dict[str, str]], model: str, revenue: str, unattributed: str, m: str
) -> None:
    client, names = paths
    ids = {name: id_ for id_, name in names.items()}
    answer = client.read("/v1/attribution/what-if", model=model, remove=ids["G"])
    assert answer["revenue_before"] == amount("45000.00")
    assert answer["revenue_after"] == amount(revenue)
    assert answer["unattributed_after"] == amount(unattributed)
    after = {names[row["campaign_id"]]: row["after"]["value"] for row in answer["campaigns"]}
    assert after == {"G": "0.00", "M": m}
    assert answer["removal_effect"] == ("0.75" if model == "markov" else None)


@pytest.mark.parametrize(
    "query",
    ["model=magic", "group=colour", "from=2026-02-01&to=2026-01-01", "currency=XXQ", "color=red"],
)
@pytest.mark.parametrize("path", ["", "/comparison", "/what-if"])
def test_wrong_questions(admin: Client, path: str, query: str) -> None:
    response = admin.get(f"/v1/attribution{path}?remove={buyer(admin)}&{query}")
    assert response.status_code == 422


def test_the_removal_of_nothing(admin: Client) -> None:
    assert admin.get("/v1/attribution/what-if").status_code == 422
    response = admin.get("/v1/attribution/what-if", params={"remove": buyer(admin)})
    assert response.status_code == 404


def test_three_currencies_are_grouped_or_converted(
    start_product: Callable[..., Product],
) -> None:
    with start_product().client() as client:
        by, of = running(client), buyer(client)
        touch(client, of, by, 10)
        for currency, value in (("CNY", "100.00"), ("EUR", "10.00"), ("USD", "3.00")):
            deal = opened(client, of, 50, amount=amount("1.00", currency))
            sign(client, deal, value, currency)
        alone = opened(client, buyer(client), 50, amount=amount("1.00", "EUR"))
        sign(client, alone, "0.01", "EUR")
        rate = {"from": "EUR", "to": "CNY", "rate": "7.85", "on": CLOSE.date().isoformat()}
        client.done("/v1/exchange-rates", rate)
        grouped = client.read("/v1/attribution")
        assert grouped["revenue"] == amount("100.00")
        assert grouped["other_currencies"] == [
            {"deals": 2, "amount": amount("10.01", "EUR")},
            {"deals": 1, "amount": amount("3.00", "USD")},
        ]
        for model in MODELS:
            answer = client.read("/v1/attribution", model=model, convert=True)
            assert answer["revenue"] == amount("178.58")  # 100 + 7.85 × 10.01
            assert answer["unattributed"] == amount("0.08")
            assert answer["campaigns"][0]["credit"] == amount("178.50")
            assert [row["amount"]["currency"] for row in answer["other_currencies"]] == ["USD"]
            assert [row["rate"] for row in answer["rates"]] == ["7.85"]


# ---- campaigns ----


@pytest.fixture(scope="module")
def season(start_product: Callable[..., Product]) -> Iterator[tuple[Client, Product]]:
    """Three campaigns of 2026, of different places, methods, sizes and returns; the customers they
    reached."""
    product = start_product()
    with product.client() as client:
        today = CLOSE.date()
        made = {}
        for name, channel, region, came, cost, value in (
            ("crane day", "conference", "north", 300, "100.00", "500.00"),
            ("mailing", "letter", "south", 20, "50.00", "60.00"),
            ("calls", "phone", "south", 20, None, "40.00"),
        ):
            made[name] = running(
                client,
                name=name,
                channel=channel,
                region=region,
                product="crane" if channel == "conference" else "winch",
                starts_on=(today - timedelta(days=20)).isoformat(),
                ends_on=(today + timedelta(days=2)).isoformat(),
                budget=amount("80.00"),
                plan={
                    "attendees": 100,
                    "responses": 3,
                    "deals": 1,
                    "contracts": 2,
                    "revenue": amount("450.00"),
                },
            )
            path = f"/v1/campaigns/{made[name]}"
            client.done(f"{path}/attendance", {"attendees": came})
            if cost is not None:
                client.done(f"{path}/costs", {"amount": amount(cost)})
            of = buyer(client, region=region)
            touch(client, of, made[name], 15)
            sign(client, opened(client, of, 10, made[name]), value)
        quiet = buyer(client, region="north")
        client.done(f"/v1/customers/{quiet}/orders", {"order_id": "1", "amount": amount("70.00")})
        yield client, product


def named(client: Client, name: str) -> dict[str, Any]:
    rows = client.read("/v1/campaigns/performance")["campaigns"]
    return next(row for row in rows if row["name"] == name)


def test_plan_against_actual_each_difference(season: tuple[Client, Product]) -> None:
    """R37: plan against actual."""
    client, _ = season
    row = named(client, "crane day")
    assert row["plan"] == {
        "attendees": 100, "responses": 3, "deals": 1, "contracts": 2, "revenue": amount("450.00"),
    }  # fmt: skip
    assert (row["attendees"], row["responses"], row["deals"], row["contracts"]) == (300, 1, 1, 1)
    assert row["differences"] == {
        "attendees": 200, "responses": -2, "deals": 0, "contracts": -1, "revenue": amount("50.00"),
        "cost": amount("20.00"),
    }  # fmt: skip
    assert (row["return"], row["output_over_input"]) == ("4", "5")
    free = named(client, "calls")
    assert (free["return"], free["output_over_input"]) == (None, None)
    read = client.read(f"/v1/campaigns/{row['campaign_id']}")
    assert (read["attendees"], read["product"], read["plan"]) == (300, "crane", row["plan"])


def test_the_annual_plan(season: tuple[Client, Product]) -> None:
    """R36: budget and cost by year."""
    client, _ = season
    years = client.read("/v1/campaigns/performance")["annual_plan"]
    assert sum(year["campaigns"] for year in years) == 3
    assert sum(Decimal(year["budget"]["value"]) for year in years) == 240


def test_the_effect_by_period_and_the_best(season: tuple[Client, Product]) -> None:
    """R38: deals and contracts for each, and the best by return."""
    client, _ = season
    (year,) = client.read("/v1/campaigns/effect", period="year", model="linear")["periods"]
    assert (year["campaigns"], year["deals"], year["contracts"]) == (3, 3, 3)
    assert (year["deals_per_campaign"], year["contracts_per_campaign"]) == ("1", "1")
    assert year["cost"] == amount("150.00")
    assert year["credit"] == amount("600.00")
    assert (year["return"], year["output_over_input"]) == ("3", "4")
    assert year["best"] == {"region": "north", "method": "conference", "size_band": "large"}


@pytest.mark.parametrize(
    ("by", "column"), [("region", "region"), ("method", "channel"), ("product", "product")]
)
def test_rankings_can_be_recomputed_from_bi(
    season: tuple[Client, Product], by: str, column: str
) -> None:
    """R38: by SQL."""
    client, product = season
    ranking = client.read("/v1/campaigns/ranking", by=by, model="linear")["ranking"]
    connection = connect(product.database_url, search_path=["bi"])
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                f"""WITH credit AS (
                        SELECT campaign_id, sum(credit) AS credit FROM fact_credit
                        WHERE model = 'linear' AND currency = 'CNY' GROUP BY campaign_id)
                    SELECT {column}, round((sum(credit) - sum(cost)) / nullif(sum(cost), 0), 6)
                    FROM dim_campaign LEFT JOIN credit USING (campaign_id)
                    WHERE status IN ('running', 'completed')
                    GROUP BY 1 ORDER BY 2 DESC NULLS LAST"""
            )
            expected = cursor.fetchall()
    finally:
        connection.close()
    found = [(row["value"], row["return"] and Decimal(row["return"])) for row in ranking]
    assert found == expected
    assert [row["rank"] for row in ranking] == list(range(1, len(expected) + 1))


def test_a_place_and_a_time_are_chosen_for_a_product(season: tuple[Client, Product]) -> None:
    """R39: by rank."""
    client, _ = season
    places = client.read("/v1/campaigns/ranking", by="region", product="winch")["ranking"]
    assert [(row["value"], row["campaigns"]) for row in places] == [("south", 2)]
    months = client.read("/v1/campaigns/ranking", by="month", product="crane", region="north")
    month = (CLOSE.date() - timedelta(days=20)).month
    assert [row["value"] for row in months["ranking"]] == [f"{month:02d}"]
    assert client.read("/v1/campaigns/ranking", product="nothing")["ranking"] == []


def test_customers_are_invited_by_level_and_volume(season: tuple[Client, Product]) -> None:
    """R39: whom to invite."""
    client, _ = season
    answer = client.read("/v1/campaigns/invitations", level="new", min_volume="50")
    volumes = [row["volume"]["value"] for row in answer["invitations"]]
    assert volumes == ["500.00", "70.00", "60.00"]
    assert answer["customers"] == 3
    first = client.read("/v1/campaigns/invitations", level="new", min_volume="50", limit=1)
    assert (first["customers"], len(first["invitations"])) == (3, 1)
    assert client.read("/v1/campaigns/invitations", level="stable")["customers"] == 0


def test_what_a_campaign_did_to_those_it_reached(season: tuple[Client, Product]) -> None:
    """R39: coverage, cost, output over input, week by week."""
    client, _ = season
    id_ = named(client, "crane day")["campaign_id"]
    answer = client.read(f"/v1/campaigns/{id_}/effect", model="linear")
    assert (answer["reached"], answer["customers"], answer["coverage"]) == (1, 2, "0.5")
    assert (answer["sales"], answer["sales_before"]) == (amount("500.00"), amount("0.00"))
    assert answer["growth"] is None
    assert (answer["return"], answer["output_over_input"]) == ("4", "5")
    weeks = answer["weeks"]
    assert [week["responses"] for week in weeks] == [1, 0, 0, 0]
    assert [week["deals"] for week in weeks] == [0, 1, 0, 0]
    assert [week["amount"]["value"] for week in weeks] == ["0.00", "0.00", "500.00", "0.00"]
    assert client.get(f"/v1/campaigns/{id_[:-4]}0000/effect").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "invitations?level=gold", "invitations?min_volume=-1", "invitations?min_volume=1e3",
        "invitations?limit=0", "ranking?by=luck", "effect?period=week", "performance?model=magic",
    ],
)  # fmt: skip
def test_wrong_questions_about_campaigns(admin: Client, query: str) -> None:
    assert admin.get(f"/v1/campaigns/{query}").status_code == 422
