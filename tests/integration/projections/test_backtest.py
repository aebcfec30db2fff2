"""Past forecasts against what came: reckoned by hand, and as known at the time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from domain.definitions import ForecastDefinition
from domain.opportunity import Opportunity
from infra.postgres import Pool
from projections import funnel
from projections.funnel import Backtest, MonthEnd, PastForecast
from projections.reading import Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.logged import write_log
from tests.integration.projections.story import PIPELINE, START, Story, named, yuan

pytestmark = pytest.mark.database

UTC_ZONE = ZoneInfo("UTC")


def at(month: int, day: int = 15) -> datetime:
    return datetime(2024, month, day, 12, tzinfo=UTC)


def told() -> Story:
    """In `negotiation` (0.9, one month): one deal of January won in February, one of February lost
    in April; one opened and won in March."""
    story = Story()
    story.pipeline()
    customer = story.customer("acme")
    story.deal("january", customer, yuan("100.00"), at(1), stage="negotiation")
    story.deal("february", customer, yuan("1000.00"), at(2, 10), stage="negotiation")
    story.sign(named("january"), yuan("90.00"), at(2))
    story.deal("march", customer, yuan("30.00"), at(3, 5), stage="negotiation")
    story.sign(named("march"), yuan("30.00"), at(3, 6))
    story.of_deal(named("february"), Opportunity.Lost, at(4), cause="price", competitor="none")
    return story


def backtest(models: Models, **options: Any) -> Backtest:
    moment = options.pop("moment", Moment(datetime(2024, 6, 10, tzinfo=UTC)))
    horizon = options.pop("horizon", 1)
    ends = options.pop(
        "ends", funnel.month_ends(moment.as_of, UTC_ZONE, options.pop("months", 3), horizon)
    )
    asked = {
        "pipeline_id": PIPELINE, "currency": "CNY", "timezone": UTC_ZONE,
        "definition": ForecastDefinition(), "ends": ends, "horizon": horizon, **options,
    }  # fmt: skip
    found: Backtest = models.ask(funnel.backtest, moment, **asked)
    return found


def by_method(tested: PastForecast) -> dict[str, float]:
    return {one.method: one.expected for one in tested.forecasts}


def test_month_ends_are_those_whose_horizon_is_over() -> None:
    ends = funnel.month_ends(datetime(2024, 6, 10, tzinfo=UTC), UTC_ZONE, 3, 2)
    assert [(end.start, end.end) for end in ends] == [
        (date(2024, 2, 1), date(2024, 4, 1)),
        (date(2024, 3, 1), date(2024, 5, 1)),
        (date(2024, 4, 1), date(2024, 6, 1)),
    ]
    assert len(funnel.month_ends(datetime(1900, 3, 1, tzinfo=UTC), UTC_ZONE, 60, 1)) == 1


def test_each_month_end_knows_its_open_deals_and_what_came(models: Models) -> None:
    models.project(told())
    found = backtest(models, months=4)
    assert [one.month_end.start.month for one in found.month_ends] == [2, 3, 4, 5]
    assert [(one.deals, one.open, one.all) for one in found.month_ends] == [
        (1, 90, 90),
        (1, 0, 30),
        (1, 0, 0),
        (0, 0, 0),
    ]
    february, march, april, may = map(by_method, found.month_ends)
    # Half of the stage's month is left; the full month ends on 1 March, beyond the horizon.
    assert (february["half_elapsed"], february["full_duration"]) == (90, 0)
    assert (february["aged"], march["aged"]) == (90, 900)
    assert february["learned"] == february["aged"]  # nothing had ended yet
    assert march["half_elapsed"] == 900
    assert 0 < march["learned"] < 900
    assert [month["naive"] for month in (february, march, april, may)] == [0, 30, 40, 40]


def test_the_scores_are_those_of_their_definitions(models: Models) -> None:
    models.project(told())
    found = backtest(models, months=4)
    half = next(score for score in found.scores if score.method == "half_elapsed")
    # Forecast 90, 900, 900, 0; came 90, 0, 0, 0 from these deals, 90, 30, 0, 0 from all.
    assert half.open.wape == pytest.approx(1800 / 90)
    assert half.open.bias == pytest.approx(1800 / 90)
    assert half.open.accuracy == pytest.approx(1)
    assert half.all.wape == pytest.approx((870 + 900) / 120)
    assert half.all.accuracy == pytest.approx(0.5)
    assert half.brier == pytest.approx((0.01 + 0.81 + 0.81) / 3)
    # 100 with 0.9, where 90 came: within the intervals that begin at nothing; 1,000 with 0.9.
    assert half.coverage == [0.25, 1.0, 1.0]
    naive = found.scores[-1]
    assert (naive.method, naive.coverage, naive.brier) == ("naive", None, None)


def known(ends: list[MonthEnd], story: Story, pool: Pool, log: str) -> list[MonthEnd]:
    """The ends with what the log says was recorded up to them."""
    write_log(pool, log, story)
    found = []
    with pool.connection() as connection, connection.cursor() as cursor:
        for end in ends:
            cursor.execute("SELECT position_at(%s)", [end.at - timedelta(microseconds=1)])
            (position,) = cursor.fetchone() or (None,)
            found.append(replace(end, known_at=position))
    return found


def test_a_forecast_as_known_rests_on_nothing_that_was_recorded_later(
    models: Models, database_url: str, fresh_schemas: dict[str, str]
) -> None:
    """The history is written under a controlled clock: recorded when it happened, but for one
    deal of January that was recorded in March, and a win of February that was in April."""
    story = told()
    story.deal("late", named("acme"), yuan("500.00"), at(1, 20), stage="negotiation")
    *before, lost, late = story.events
    story.events = [
        *before,
        replace(late, position=lost.position, recorded_at=at(3, 20)),
        replace(lost, position=late.position),
    ]
    story.sign(named("late"), yuan("500.00"), at(2, 20))
    story.events[-1] = replace(story.events[-1], recorded_at=at(4, 20))
    models.project(story)
    moment = Moment(datetime(2024, 6, 10, tzinfo=UTC))
    ends = funnel.month_ends(moment.as_of, UTC_ZONE, 4, 1)
    effective = backtest(models, moment=moment, ends=ends)
    assert [(one.deals, one.open, one.all) for one in effective.month_ends] == [
        (2, 590, 590),
        (1, 0, 30),
        (1, 0, 0),
        (0, 0, 0),
    ]
    log = fresh_schemas["log"]
    with Pool(database_url, size=1, search_path=[log]) as pool:
        ends = known(ends, story, pool, log)
    then = backtest(models, moment=moment, ends=ends)
    # Not known in January, still open in March: known to be open on 1 April, though won long ago.
    assert [(one.deals, one.open, one.all) for one in then.month_ends] == [
        (1, 90, 590),
        (1, 0, 30),
        (2, 0, 0),
        (0, 0, 0),
    ]
    assert [by_method(one)["naive"] for one in then.month_ends][2] == 40
    assert [by_method(one)["naive"] for one in effective.month_ends][2] == pytest.approx(620 / 3)
    # Whoever asks as of an earlier knowledge hears of nothing that came after it.
    earlier = backtest(models, moment=Moment(moment.as_of, known_at=ends[1].known_at), ends=ends)
    assert [one.deals for one in earlier.month_ends] == [1, 1, 1, 1]


def test_learned_learns_nothing_from_later_months(models: Models) -> None:
    story = told()
    models.project(story)
    before = [one.forecasts for one in backtest(models, months=4).month_ends]
    for number in range(30):
        deal = story.deal(
            f"later {number}", named("acme"), yuan("10.00"), at(5, 2), stage="negotiation"
        )
        story.sign(deal, yuan("10.00"), at(5, 20))
    models.project(story)
    after = [one.forecasts for one in backtest(models, months=4).month_ends]
    assert after == before


def test_learned_at_a_month_end_is_the_forecast_learned_then(models: Models) -> None:
    """The backtest's chances are those the forecast gives at that moment."""
    story = told()
    for number in range(40):
        opened = START + timedelta(days=3 * number)
        deal = story.deal(f"more {number}", named("acme"), yuan("10.00"), opened, stage="bid")
        if number % 3:
            story.advance(deal, "negotiation", opened + timedelta(days=20))
            story.sign(deal, yuan("10.00"), opened + timedelta(days=33))
    models.project(story)
    found = backtest(models, months=3, horizon=2)
    for one in found.month_ends:
        for timing in funnel.Timing:
            then = models.ask(
                funnel.forecast, Moment(one.month_end.at), pipeline_id=PIPELINE, currency="CNY",
                timezone=UTC_ZONE, timing=timing, by=funnel.MonthsBy.CALENDAR, months=2,
            )  # fmt: skip
            total = float(then.outlook.total.expected)
            assert by_method(one)[timing.value] == pytest.approx(total, abs=0.02)
