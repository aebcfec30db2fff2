"""Forecasts, their past, the waterfall, exchange rates and overdue visits, through the API."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.pipeline import DEFAULT_PIPELINE_ID
from tests.e2e.api.making import amount, customer, deal
from tests.e2e.api.running import Client, Product

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def ago(days: float) -> str:
    return (TODAY - timedelta(days=days)).isoformat()


def day(days: float) -> str:
    return ago(days)[:10]


@pytest.fixture(scope="module")
def sales(start_product: Callable[..., Product]) -> Iterator[Client]:
    """Two hundred days: a deal every five, won after twenty or lost after forty."""
    with start_product().client() as client:
        north = customer(client, occurred_at=ago(300), region="north", source="fair")
        south = customer(client, occurred_at=ago(300), region="south")
        for number in range(40):
            opened = 200 - 5 * number
            made = deal(
                client, customer_id=(north, south)[number % 2], occurred_at=ago(opened),
                stage="negotiation", owner=f"rep-{number % 3}", amount=amount("1000.00"),
            )  # fmt: skip
            if number % 3 and opened > 20:
                body = {"amount": amount("900.00"), "signed_on": day(opened - 20)}
                client.done(f"/v1/opportunities/{made}/contract", body)
            elif not number % 3 and opened > 40:
                lost = {"cause": "price", "competitor": "none", "occurred_at": ago(opened - 40)}
                client.done(f"/v1/opportunities/{made}/loss", lost)
        yield client


@pytest.mark.parametrize("timing", ["half_elapsed", "full_duration", "aged", "learned"])
def test_every_timing_has_months_within_intervals_and_categories(
    sales: Client, timing: str
) -> None:
    answer = sales.read("/v1/forecast", timing=timing, months=3, by="calendar")
    assert answer["definition"] == {"forecast": "1", "pipeline": "1"}
    assert [len(month["intervals"]) for month in answer["months"]] == [3, 3, 3]
    for sums in (*answer["months"], {**answer, "expected": answer["total"]}):
        lows = [Decimal(one["low"]["value"]) for one in sums["intervals"]]
        highs = [Decimal(one["high"]["value"]) for one in sums["intervals"]]
        assert sorted(lows, reverse=True) == lows
        assert sorted(highs) == highs
        assert lows[0] <= Decimal(sums["median"]["value"]) <= highs[0]
        parts = sum(Decimal(sums[name]["value"]) for name in ("commit", "best_case", "pipeline"))
        assert abs(parts - Decimal(sums["expected"]["value"])) <= Decimal("0.02")
    assert sum(one["deals"] for one in answer["categories"]) == answer["deals"] > 0
    (sample,) = answer["samples"] or [None]
    assert (sample is not None) == (timing == "learned")
    if sample:
        assert (sample["used"], sample["one_in"]) == (True, 1)
        until = datetime.fromisoformat(sample["learned_until"])
        assert timedelta(0) <= datetime.now(UTC) - until < timedelta(days=2)
        assert sample["ended"] == sum(stage["ended"] for stage in sample["stages"]) > 20


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("owner", ["rep-0", "rep-1", "rep-2"]),
        ("region", ["north", "south"]),
        ("source", ["fair", None]),
    ],
)
def test_groups_sum_to_the_whole(sales: Client, group: str, names: list[Any]) -> None:
    answer = sales.read("/v1/forecast", group=group)
    assert [one["group"] for one in answer["groups"]] == names
    parts = sum(Decimal(one["total"]["value"]) for one in answer["groups"])
    assert parts == Decimal(answer["total"]["value"])


def test_all_pipelines_are_in_the_forecast_by_pipeline(sales: Client) -> None:
    answer = sales.read("/v1/forecast", group="pipeline")
    assert answer["pipeline_id"] is None
    assert len(answer["groups"]) == 1


@pytest.mark.parametrize(
    ("path", "query", "definition"),
    [
        pytest.param("/v1/funnel", {}, {"pipeline": "1"}, id="funnel"),
        pytest.param("/v1/forecast", {"group": "pipeline"}, {"forecast": "1"}, id="all-pipelines"),
        pytest.param("/v1/forecast/backtest", {"months": 1}, {"forecast": "1"}, id="backtest"),
        pytest.param("/v1/forecast/waterfall", {"from": ago(9)}, {}, id="waterfall"),
        pytest.param(
            "/v1/forecast/waterfall",
            {"from": ago(9), "pipeline_id": str(DEFAULT_PIPELINE_ID)}, {"pipeline": "1"},
            id="waterfall-of-a-pipeline",
        ),
        pytest.param("/v1/win-rates", {}, {}, id="win-rates"),
        pytest.param("/v1/opportunities/overdue", {}, {}, id="overdue"),
        pytest.param(
            "/v1/opportunities/overdue", {"pipeline_id": str(DEFAULT_PIPELINE_ID)},
            {"pipeline": "1"}, id="overdue-of-a-pipeline",
        ),
    ],
)  # fmt: skip
def test_an_answer_names_the_definition_that_it_was_made_by(
    sales: Client, path: str, query: dict[str, Any], definition: dict[str, str]
) -> None:
    assert sales.read(path, **query)["definition"] == definition


def test_a_backtest_tells_each_method_against_what_came(sales: Client) -> None:
    answer = sales.read("/v1/forecast/backtest", basis="effective", months=3, horizon=1)
    assert (answer["basis"], len(answer["month_ends"])) == ("effective", 3)
    methods = ["half_elapsed", "full_duration", "aged", "learned", "naive"]
    assert [score["method"] for score in answer["scores"]] == methods
    for end in answer["month_ends"]:
        assert [one["method"] for one in end["forecasts"]] == methods
        assert end["deals"] > 0
        assert Decimal(end["open"]["value"]) <= Decimal(end["all"]["value"])
    learned, naive = answer["scores"][3], answer["scores"][4]
    assert learned["brier"] is not None
    assert (naive["brier"], naive["coverage"]) == (None, None)


def test_what_was_recorded_just_now_was_not_known_at_the_ends_of_months(sales: Client) -> None:
    answer = sales.read("/v1/forecast/backtest", basis="known", months=3)
    assert [end["deals"] for end in answer["month_ends"]] == [0, 0, 0]
    assert {end["known_at"] for end in answer["month_ends"]} == {0}


def test_the_waterfall_adds_up(sales: Client) -> None:
    answer = sales.read("/v1/forecast/waterfall", **{"from": ago(100), "to": ago(50)})
    opening, closing = answer["opening"], answer["closing"]
    changes = {one["kind"]: one for one in answer["changes"]}
    for name in ("won", "lost", "new"):
        assert changes[name]["times"] > 0
    value = Decimal(opening["amount"]["value"]) + sum(
        Decimal(one["amount"]["value"]) for one in changes.values()
    )
    assert value == Decimal(closing["amount"]["value"])
    assert opening["deals"] + sum(one["deals"] for one in changes.values()) == closing["deals"]
    funnel = sales.read("/v1/funnel", as_of=ago(50))
    assert closing["deals"] == sum(stage["deals"] for stage in funnel["stages"])


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        pytest.param("/v1/forecast", {"timing": "tomorrow"}, 422, id="timing"),
        pytest.param("/v1/forecast", {"group": "floor"}, 422, id="group"),
        pytest.param("/v1/forecast", {"currency": "ABC"}, 422, id="currency"),
        pytest.param("/v1/forecast", {"months": 0}, 422, id="months"),
        pytest.param("/v1/forecast", {"pipeline_id": str(uuid.UUID(int=7))}, 404, id="pipeline"),
        pytest.param("/v1/forecast/backtest", {"basis": "felt"}, 422, id="basis"),
        pytest.param("/v1/forecast/backtest", {"horizon": 99}, 422, id="horizon"),
        pytest.param(
            "/v1/forecast/backtest", {"pipeline_id": str(uuid.UUID(int=7))}, 404, id="tested"
        ),
        pytest.param("/v1/forecast/waterfall", {}, 422, id="no-from"),
        pytest.param(
            "/v1/forecast/waterfall",
            {"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, 422, id="dates",
        ),
        pytest.param(
            "/v1/forecast/waterfall",
            {"from": "2026-02-01T00:00:00Z", "close_from": "2026-02-01",
             "close_to": "2026-01-01"}, 422, id="window",
        ),
        pytest.param(
            "/v1/forecast/waterfall",
            {"from": "2026-02-01T00:00:00Z", "pipeline_id": str(uuid.UUID(int=7))}, 404,
            id="waterfall",
        ),
        pytest.param("/v1/exchange-rates", {"from_currency": "ABC"}, 422, id="rate"),
    ],
)  # fmt: skip
def test_bad_questions_are_refused(
    sales: Client, path: str, query: dict[str, Any], status: int
) -> None:
    assert sales.get(path, params=query).status_code == status


def test_before_the_first_event_there_is_nothing(sales: Client) -> None:
    for timing in ("aged", "learned"):
        answer = sales.read("/v1/forecast", as_of="2001-01-01T00:00:00Z", timing=timing)
        assert (answer["deals"], answer["total"]["value"]) == (0, "0.00")
    answer = sales.read("/v1/forecast/backtest", as_of="2001-01-01T00:00:00Z", basis="effective")
    assert {end["deals"] for end in answer["month_ends"]} == {0}
    assert answer["scores"][0]["open"] == {"wape": None, "bias": None, "accuracy": None}


def test_sums_are_converted_by_the_rates_on_record(admin: Client) -> None:
    before = Decimal(admin.read("/v1/forecast", months=24)["total"]["value"])
    deal(admin, amount=amount("100.00", "EUR"), stage="contract")
    deal(admin, amount=amount("50.00", "CHF"), stage="contract")
    rate = {"from": "EUR", "to": "CNY", "rate": "7.8", "on": day(1)}
    admin.done("/v1/exchange-rates", rate)
    plain = admin.read("/v1/forecast", months=24)
    assert Decimal(plain["total"]["value"]) == before
    assert {one["amount"]["currency"] for one in plain["other_currencies"]} >= {"EUR", "CHF"}
    assert plain["rates"] == []
    answer = admin.read("/v1/forecast", months=24, convert="true")
    assert Decimal(answer["total"]["value"]) == before + 780
    assert answer["rates"] == [rate]
    assert "EUR" not in {one["amount"]["currency"] for one in answer["other_currencies"]}
    funnel = admin.read("/v1/funnel", convert="true")
    assert funnel["rates"] == [rate]
    assert admin.read("/v1/exchange-rates", from_currency="EUR")["items"] == [rate]
    assert admin.read("/v1/exchange-rates", as_of=ago(5))["items"] == []


def test_a_deal_is_overdue_until_it_is_visited(admin: Client) -> None:
    """R43: calls do not count."""
    pipeline = admin.done(
        "/v1/pipelines",
        {
            "name": f"visited {uuid.uuid4().hex}",
            "stages": [
                {"name": "often", "chance_to_next": "0.5", "duration_months": "1",
                 "visits_per_week": 2},
                {"name": "never", "chance_to_next": "0.5", "duration_months": "1"},
            ],
            "occurred_at": ago(30),
        },
    )["id"]  # fmt: skip
    owner = customer(admin, occurred_at=ago(30))
    made = deal(admin, customer_id=owner, pipeline_id=pipeline, occurred_at=ago(10))
    deal(admin, customer_id=owner, pipeline_id=pipeline, occurred_at=ago(3))
    deal(admin, customer_id=owner, pipeline_id=pipeline, stage="never", occurred_at=ago(10))

    def overdue(**query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = admin.read(
            "/v1/opportunities/overdue", pipeline_id=pipeline, **query
        )["items"]
        return found

    (one,) = overdue(as_of=ago(0))
    assert (one["opportunity_id"], one["stage"], one["days_overdue"]) == (made, "often", "6.5")
    assert one["last_visit_at"] is None
    visited = {"kind": "visit", "result": "met", "occurred_at": ago(4)}
    admin.done(f"/v1/opportunities/{made}/activities", {**visited, "kind": "call"})
    assert len(overdue(as_of=ago(0))) == 1
    admin.done(f"/v1/opportunities/{made}/activities", visited)
    (one,) = overdue(as_of=ago(0))
    assert one["days_overdue"] == "0.5"
    assert overdue(as_of=ago(1)) == []
    assert len(overdue(as_of=ago(5))) == 1


def test_visits_are_due_once_twice_and_three_times_a_week(admin: Client) -> None:
    """R43: ten days without a visit are 3, 6.5 and 7 2/3 days too long."""
    stages = [
        {
            "name": f"stage {visits}",
            "chance_to_next": "0.5",
            "duration_months": "1",
            "visits_per_week": visits,
        }
        for visits in (1, 2, 3)
    ]
    name = f"paced {uuid.uuid4().hex}"
    pipeline = admin.done(
        "/v1/pipelines", {"name": name, "stages": stages, "occurred_at": ago(30)}
    )["id"]
    owner = customer(admin, occurred_at=ago(30))
    for stage in stages:
        deal(
            admin, customer_id=owner, pipeline_id=pipeline, stage=stage["name"], occurred_at=ago(10)
        )

    def overdue(at: float) -> list[tuple[int, str]]:
        asked = {"pipeline_id": pipeline, "as_of": ago(at)}
        items = admin.read("/v1/opportunities/overdue", **asked)["items"]
        return [(item["visits_per_week"], item["days_overdue"]) for item in items]

    assert overdue(0) == [(3, "7.666667"), (2, "6.5"), (1, "3")]
    assert overdue(4) == [(3, "3.666667"), (2, "2.5")]
    assert overdue(7.6) == [(3, "0.066667")]
    assert overdue(8) == []


def test_the_time_spent_in_a_stage_counts_where_it_is_known(admin: Client) -> None:
    """R42: `aged` leaves max(duration - age, 0) of the stage; the other two ignore the age."""
    stages = [
        {"name": "prospect", "chance_to_next": "0.5", "duration_months": "2"},
        {"name": "bid", "chance_to_next": "0.8", "duration_months": "1"},
        {"name": "negotiation", "chance_to_next": "0.9", "duration_months": "1"},
        {"name": "contract", "chance_to_next": "1", "duration_months": "0"},
    ]
    name = f"aged {uuid.uuid4().hex}"
    pipeline = admin.done(
        "/v1/pipelines", {"name": name, "stages": stages, "occurred_at": ago(200)}
    )["id"]
    owner = customer(admin, occurred_at=ago(200))
    # 40 days: less than 1 of 2 months left, and 2 more: month 3. 100 days: none left: month 2.
    for days in (40, 100):
        opened = {"pipeline_id": pipeline, "occurred_at": ago(days)}
        deal(admin, customer_id=owner, amount=amount("500000.00"), **opened)
    expected = {
        "aged": ["0.00", "180000.00", "180000.00", "0.00"],
        "half_elapsed": ["0.00", "0.00", "360000.00", "0.00"],
        "full_duration": ["0.00", "0.00", "0.00", "360000.00"],
    }
    for timing, months in expected.items():
        answer = admin.read(
            "/v1/forecast", pipeline_id=pipeline, timing=timing, months=4, as_of=ago(0)
        )
        assert [month["expected"]["value"] for month in answer["months"]] == months
