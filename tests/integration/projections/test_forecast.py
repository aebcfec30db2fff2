"""The forecast: the worked example (R42), its timings, groups, currencies and intervals."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from domain.definitions import ForecastDefinition
from domain.exchange_rate import ExchangeRate, exchange_rate_id
from domain.opportunity import Opportunity
from domain.values import Money
from projections import funnel
from projections.funnel import Forecast, Grouping, MonthsBy, Timing
from projections.reading import Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import PIPELINE, START, Story, named, yuan

pytestmark = pytest.mark.database

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOW = Moment(datetime(2024, 6, 1, tzinfo=UTC), latest=True)


def worked_example(**fields: Any) -> Story:
    """Section A: one deal a stage."""
    story = Story()
    story.pipeline()
    customer = story.customer("acme", region="north", source="fair")
    for stage, amount in (("prospect", "500000"), ("bid", "250000"), ("negotiation", "200000")):
        story.deal(f"deal in {stage}", customer, yuan(f"{amount}.00"), stage=stage, **fields)
    return story


def forecast(models: Models, moment: Moment = NOW, **options: Any) -> Forecast:
    asked = {"pipeline_id": PIPELINE, "currency": "CNY", "timezone": SHANGHAI, **options}
    found: Forecast = models.ask(funnel.forecast, moment, **asked)
    return found


def expected(found: Forecast) -> list[Decimal]:
    return [month.sums.expected for month in found.outlook.months]


@pytest.mark.parametrize(
    ("timing", "months"),
    [
        pytest.param(Timing.HALF_ELAPSED, (1, 2, 3), id="half-elapsed"),
        pytest.param(Timing.FULL_DURATION, (1, 2, 4), id="full-duration"),
    ],
)
def test_the_worked_example(models: Models, timing: Timing, months: tuple[int, ...]) -> None:
    models.project(worked_example())
    found = forecast(models, timing=timing)
    sds = dict(zip(months, (60000, 112250, 240000), strict=True))
    for month in found.outlook.months:
        assert month.sums.expected == (180000 if month.month in months else 0)
        assert abs(month.sums.sd - sds.get(month.month, 0)) < Decimal("0.5")
    assert found.outlook.total.expected == 540000
    assert found.outlook.total.sd.quantize(Decimal(1)) == 271662
    assert found.outlook.beyond == 0
    first = found.outlook.months[0]
    assert (first.start, first.end) == (date(2024, 6, 1), date(2024, 7, 1))


def test_the_categories_of_the_worked_example(models: Models) -> None:
    models.project(worked_example())
    outlook = forecast(models).outlook
    assert [(c.category, c.deals, c.amount, c.expected) for c in outlook.categories] == [
        ("commit", 1, 200000, 180000),
        ("best_case", 1, 250000, 180000),
        ("pipeline", 1, 500000, 180000),
    ]
    assert [(m.sums.commit, m.sums.best_case, m.sums.pipeline) for m in outlook.months[:3]] == [
        (180000, 0, 0),
        (0, 180000, 0),
        (0, 0, 180000),
    ]
    bold = ForecastDefinition(commit_chance=Decimal("0.36"), best_case_chance=Decimal("0.36"))
    assert forecast(models, definition=bold).outlook.total.commit == 540000


def test_the_intervals_of_three_deals_are_those_of_all_eight_outcomes(models: Models) -> None:
    models.project(worked_example())
    outlook = forecast(models).outlook
    # 0 with 0.0179, 200 with 0.1613, 250 with 0.0461, 450 with 0.4147, 500 with 0.0101, …
    assert outlook.total.median == 450000
    assert [(i.level, i.low, i.high) for i in outlook.total.intervals] == [
        (0.5, 450000, 750000),
        (0.8, 200000, 950000),
        (0.95, 200000, 950000),
    ]
    # Won with 0.9: the lower tenth ends exactly at nothing.
    assert outlook.months[0].sums.median == 200000
    assert [(i.low, i.high) for i in outlook.months[0].sums.intervals] == [
        (200000, 200000),
        (0, 200000),
        (0, 200000),
    ]


@pytest.mark.parametrize(
    ("days", "months"),
    [
        pytest.param(0, [180000, 180000, 0, 180000], id="just-entered"),
        pytest.param(10, [180000, 180000, 0, 180000], id="ten-days"),
        pytest.param(31, [360000, 0, 180000, 0], id="a-month"),
        pytest.param(62, [360000, 180000, 0, 0], id="two-months"),
        pytest.param(600, [360000, 180000, 0, 0], id="far-too-long"),
    ],
)
def test_with_the_age_known_only_what_is_left_of_the_stage_counts(
    models: Models, days: int, months: list[int]
) -> None:
    models.project(worked_example())
    at = Moment(START + timedelta(days=days))
    assert expected(forecast(models, at, timing=Timing.AGED, months=4)) == months


def test_what_falls_later_is_beyond(models: Models) -> None:
    models.project(worked_example())
    outlook = forecast(models, months=2).outlook
    assert (outlook.total.expected, outlook.beyond) == (360000, 180000)
    assert outlook.total.sd < 200000


def test_a_deal_in_the_last_stage_counts_whole_in_month_one(models: Models) -> None:
    story = worked_example()
    story.deal("sure", named("acme"), yuan("1000.00"), stage="contract")
    models.project(story)
    for timing in (Timing.HALF_ELAPSED, Timing.FULL_DURATION):
        assert expected(forecast(models, timing=timing))[0] == 181000
    assert expected(forecast(models, Moment(START), timing=Timing.AGED))[0] == 181000


def test_calendar_months_are_those_of_the_time_zone(models: Models) -> None:
    models.project(worked_example())
    # 20:00 UTC on 30 April is 1 May in Shanghai; half a month on is 16 May.
    moment = Moment(datetime(2024, 4, 30, 20, tzinfo=UTC))
    found = forecast(models, moment, by=MonthsBy.CALENDAR, months=4)
    assert [month.start for month in found.outlook.months] == [
        date(2024, month, 1) for month in (5, 6, 7, 8)
    ]
    assert expected(found) == [180000, 180000, 0, 180000]


def test_what_was_signed_in_a_month_is_closed_and_not_expected(models: Models) -> None:
    story = worked_example()
    story.sign(named("deal in bid"), yuan("240000.00"), datetime(2024, 5, 10, tzinfo=UTC))
    models.project(story)
    moment = Moment(datetime(2024, 5, 20, tzinfo=UTC))
    found = forecast(models, moment, by=MonthsBy.CALENDAR).outlook
    assert (found.months[0].sums.closed, found.total.closed) == (240000, 240000)
    assert found.total.expected == 360000
    assert forecast(models, moment).outlook.months[0].sums.closed == 0
    earlier = Moment(datetime(2024, 5, 9, tzinfo=UTC))
    assert forecast(models, earlier, by=MonthsBy.CALENDAR).outlook.total.closed == 0


def test_suspended_deals_and_other_currencies_are_not_in_the_sums(models: Models) -> None:
    story = worked_example()
    story.deal("dollars", named("acme"), Money(Decimal("100.00"), "USD"), stage="bid")
    story.of_deal(
        named("deal in bid"), Opportunity.Suspended, START + timedelta(1), approved_by=None
    )
    models.project(story)
    found = forecast(models)
    assert found.outlook.total.expected == 360000
    assert [(o.currency, o.deals, o.weighted) for o in found.other_currencies] == [
        ("USD", 1, Decimal("72.00"))
    ]


def quote(story: Story, from_: str, to: str, rate: str, on: date) -> None:
    story.tell(
        exchange_rate_id(from_, to), ExchangeRate.RateRecorded, START + timedelta(days=200),
        from_currency=from_, to_currency=to, rate=Decimal(rate), on=on,
    )  # fmt: skip


def test_other_currencies_are_converted_by_the_latest_rate_known_of_a_day_up_to_then(
    models: Models,
) -> None:
    story = worked_example()
    story.deal("dollars", named("acme"), Money(Decimal("100.00"), "USD"), stage="bid")
    story.deal("yen", named("acme"), Money(Decimal(1000), "JPY"), stage="bid")
    story.deal("pounds", named("acme"), Money(Decimal("1.00"), "GBP"), stage="bid")
    quote(story, "USD", "CNY", "7.00", date(2024, 1, 1))
    quote(story, "USD", "CNY", "8.00", date(2024, 6, 2))  # after the day
    quote(story, "CNY", "JPY", "20", date(2024, 5, 1))
    models.project(story)
    found = forecast(models, convert=True)
    assert found.outlook.total.expected == 540000 + 504 + 36
    assert [o.currency for o in found.other_currencies] == ["GBP"]
    assert [(r.from_currency, r.to_currency, r.rate) for r in found.rates] == [
        ("CNY", "JPY", 20),
        ("USD", "CNY", 7),
    ]
    quote(story, "USD", "CNY", "7.50", date(2024, 1, 1))  # a correction
    models.project(story)
    assert forecast(models, convert=True).outlook.total.expected == 540000 + 540 + 36
    before = Moment(NOW.as_of, known_at=len(story.events) - 1)
    assert forecast(models, before, convert=True).outlook.total.expected == 540000 + 504 + 36
    assert forecast(models).outlook.total.expected == 540000
    later = Moment(NOW.as_of + timedelta(days=2))
    converted = models.ask(funnel.conversion, later, "CNY", SHANGHAI)
    assert converted.factor("USD") == 8
    shown = models.ask(
        funnel.funnel, NOW, pipeline_id=PIPELINE, currency="CNY",
        converted=models.ask(funnel.conversion, NOW, "CNY", SHANGHAI),
    )  # fmt: skip
    assert shown.stages[1].amount == 250000 + 750 + 50
    page = models.ask(funnel.rates, later, timezone=SHANGHAI, limit=2)
    assert [(rate.on, rate.rate) for rate in page.rows] == [
        (date(2024, 6, 2), 8),
        (date(2024, 5, 1), 20),
    ]
    page = models.ask(funnel.rates, later, timezone=SHANGHAI, after=page.next)
    assert [rate.rate for rate in page.rows] == [Decimal("7.50")]


def test_the_groups_sum_to_the_whole(models: Models) -> None:
    story = worked_example(owner="ann")
    other = story.customer("globex", region="south")
    story.deal("another", other, yuan("100000.00"), stage="negotiation", owner="bob")
    story.deal("nobody's", other, yuan("100000.00"), stage="contract")
    models.project(story)
    whole = forecast(models).outlook
    for grouping, sums in (
        (Grouping.OWNER, [("ann", 540000), ("bob", 90000), (None, 100000)]),
        (Grouping.REGION, [("north", 540000), ("south", 190000)]),
        (Grouping.SOURCE, [("fair", 540000), (None, 190000)]),
        (Grouping.PIPELINE, [(str(PIPELINE), 730000)]),
    ):
        found = forecast(models, grouping=grouping)
        assert [(name, part.total.expected) for name, part in found.groups] == sums
        assert found.outlook == whole
        for month in range(6):
            parts = [part.months[month].sums.expected for _, part in found.groups]
            assert sum(parts) == whole.months[month].sums.expected
    everything = forecast(models, grouping=Grouping.PIPELINE, pipeline_id=None)
    assert everything.outlook.total == whole.total


def test_by_the_teams_of_the_owners_as_they_were(models: Models) -> None:
    """ann moves on day 20; that she had been nowhere from day 10 on is told last."""
    story = worked_example(owner="ann")
    other = named("acme")
    story.deal("another", other, yuan("100000.00"), stage="negotiation", owner="bob")
    story.deal("a stranger's", other, yuan("100000.00"), stage="contract", owner="eve")
    story.deal("nobody's", other, yuan("10000.00"), stage="contract")
    story.member("ann", "north", START)
    story.member("bob", "south", START)
    story.member("ann", "south", START + timedelta(days=20))
    before = len(story.events)
    story.member("ann", None, START + timedelta(days=10))
    models.project(story)

    def groups(days: float, known_at: int | None = None) -> list[tuple[str | None, Decimal]]:
        moment = Moment(START + timedelta(days=days), known_at)
        found = forecast(models, moment, grouping=Grouping.TEAM)
        assert found.outlook == forecast(models, moment).outlook
        for month in range(6):
            parts = [part.months[month].sums.expected for _, part in found.groups]
            assert sum(parts) == found.outlook.months[month].sums.expected
        assert sum(part.deals for _, part in found.groups) == found.outlook.deals
        return [(name, part.total.expected) for name, part in found.groups]

    north = [("north", 540000), ("south", 90000), (None, 110000)]
    assert groups(5) == north
    assert groups(15) == [("south", 90000), (None, 650000)]
    assert groups(15, before) == north
    assert groups(25) == groups(25, before) == [("south", 630000), (None, 110000)]
    assert groups(25, before - 3) == [(None, 740000)]


def test_the_won_deals_of_a_team(models: Models) -> None:
    story = worked_example(owner="ann")
    story.member("ann", "north", START)
    story.sign(named("deal in bid"), yuan("90.00"), START + timedelta(days=2))
    models.project(story)
    moment = Moment(START + timedelta(days=3))
    ((name, part),) = forecast(models, moment, grouping=Grouping.TEAM, by=MonthsBy.CALENDAR).groups
    assert (name, part.total.closed) == ("north", 90)


def test_who_is_in_which_team(models: Models) -> None:
    story = Story()
    for owner, team in (("ann", "north"), ("bob", None), ("cid", "south"), ("a\tb", "x_%")):
        story.member(owner, team)
    customer = story.customer("acme")
    deal = story.deal("deal", customer, yuan("1.00"), owner="eve")
    story.of_deal(deal, Opportunity.Transferred, START, from_owner="eve", to_owner="ann")
    before = len(story.events)
    later = START + timedelta(days=9)
    story.member("ann", "south", later)
    models.project(story)

    def listed(moment: Moment = NOW, **asked: Any) -> list[tuple[str, str | None]]:
        page = models.ask(funnel.members, moment, **asked)
        return [(row.owner, row.team) for row in page.rows]

    now = [("a\tb", "x_%"), ("ann", "south"), ("bob", None), ("cid", "south")]
    assert listed() == now
    assert listed(Moment(START)) == listed(Moment(later, before)) == [
        ("a\tb", "x_%"), ("ann", "north"), ("bob", None), ("cid", "south"),
    ]  # fmt: skip
    assert listed(Moment(START - timedelta(days=1))) == []
    assert listed(filters={"team": "south"}) == [("ann", "south"), ("cid", "south")]
    assert listed(filters={"owner": "bob"}) == [("bob", None)]
    assert listed(search="_%") == now[:1]
    first = models.ask(funnel.members, NOW, limit=3)
    rest = models.ask(funnel.members, NOW, after=first.next, limit=3)
    assert [row.owner for row in (*first.rows, *rest.rows)] == [owner for owner, _ in now]
    assert models.run("SELECT owner, team, team_since FROM dim_owner ORDER BY owner") == [
        ("a\tb", "x_%", START),
        ("ann", "south", later),
        ("bob", None, START),
        ("cid", "south", START),
        ("eve", None, None),
    ]
    history = models.run("SELECT team, known_to FROM owner_history WHERE owner = 'ann'")
    assert len(history) == 3
    assert ("north", before + 1) in history


def test_an_unknown_pipeline_has_no_forecast_and_an_empty_one_is_empty(models: Models) -> None:
    story = Story()
    story.pipeline()
    models.project(story)
    for timing in Timing:
        found = forecast(models, timing=timing)
        assert found.outlook.total.expected == found.outlook.total.sd == 0
        assert found.outlook.total.median == 0
        assert models.ask(
            funnel.forecast, NOW, pipeline_id=named("none"), currency="CNY", timezone=SHANGHAI,
            timing=timing,
        ) is None  # fmt: skip
    long_ago = Moment(START - timedelta(days=4000))
    assert forecast(models, long_ago).outlook.deals == 0


def learnt(deals: int = 40) -> Story:
    """Deals that were won from `bid` after 30 days, or lost after 60, half and half; and one that
    has been there for 100."""
    story = Story()
    story.pipeline()
    customer = story.customer("acme")
    for number in range(deals):
        deal = story.deal(f"deal {number}", customer, yuan("100.00"), stage="bid")
        if number % 2:
            story.sign(deal, yuan("100.00"), START + timedelta(days=30, hours=1))
        else:
            story.of_deal(
                deal, Opportunity.Lost, START + timedelta(days=60, hours=1), cause="price",
                competitor="none",
            )  # fmt: skip
    story.deal("old", customer, yuan("100.00"), START, stage="bid")
    story.deal("new", customer, yuan("100.00"), START + timedelta(days=100), stage="bid")
    return story


def test_an_old_deal_counts_for_less_than_a_new_one(models: Models) -> None:
    models.project(learnt())
    light = ForecastDefinition(prior_weight=Decimal("0.001"))
    at = Moment(START + timedelta(days=100))
    found = forecast(models, at, timing=Timing.LEARNED, definition=light, months=3, grouping=None)
    (sample,) = found.samples
    assert (sample.used, sample.ended) == (True, 40)
    assert {row.stage: row.won for row in sample.stages}["bid"] == 20
    # Of the new one half, less those that last on; of the old one next to nothing.
    assert 40 < found.outlook.total.expected < 51
    day_50 = Moment(START + timedelta(days=50))
    early = forecast(models, day_50, timing=Timing.LEARNED, definition=light)
    # On day 50 the losses are still to come: all that is seen is that nobody wins any more.
    assert early.outlook.total.expected < 10
    definition = forecast(models, at, timing=Timing.AGED, months=3)
    assert definition.outlook.total.expected == Decimal("144.00")


def test_small_samples_are_drawn_to_the_definition(models: Models) -> None:
    models.project(learnt(4))
    at = Moment(START + timedelta(days=100))
    total = [
        forecast(
            models, at, timing=Timing.LEARNED, months=24,
            definition=ForecastDefinition(prior_weight=Decimal(weight)),
        ).outlook.total.expected
        for weight in (1, 10, 1_000_000)
    ]  # fmt: skip
    assert total[0] < total[1] < total[2]
    assert abs(total[2] - 144) < Decimal("0.5")


def test_without_history_the_definition_is_used_and_the_answer_says_so(models: Models) -> None:
    models.project(worked_example())
    at = Moment(START + timedelta(days=10))
    learned = forecast(models, at, timing=Timing.LEARNED)
    assert learned.outlook == forecast(models, at, timing=Timing.AGED).outlook
    assert [(sample.used, sample.ended) for sample in learned.samples] == [(False, 0)]


def test_what_happened_later_or_was_not_known_is_not_learned(models: Models) -> None:
    story = learnt()
    late = story.deal("late", named("acme"), yuan("7.00"), START, stage="bid")
    known_at = len(story.events)
    story.sign(late, yuan("7.00"), START + timedelta(days=1))
    models.project(story)
    early = forecast(models, Moment(START + timedelta(days=20)), timing=Timing.LEARNED)
    assert early.samples[0].ended == 1
    known = Moment(START + timedelta(days=20), known_at=known_at)
    assert forecast(models, known, timing=Timing.LEARNED).samples[0].used is False
