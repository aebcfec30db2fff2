"""Credits are exact, explicit about what nobody earned, and follow what is known."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from domain.campaign import Campaign
from domain.values import ExternalId, Money
from projections import attribution
from projections.attribution import Asked, Attribution, Fits, Group, Model
from projections.reading import Moment, fetch
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import START, Story, named, yuan
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

NOW = Moment(datetime(2100, 1, 1, tzinfo=UTC), latest=True)
A, B, C = named("A"), named("B"), named("C")


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def won(
    touches: list[tuple[UUID, float]], amount: str = "100.00", at: float = 200
) -> tuple[Story, UUID]:
    """One customer with touches on these days, and a deal won on day `at`."""
    story = Story()
    for name in ("A", "B", "C"):
        story.campaign(name)
    acme = story.customer("acme")
    for campaign, touched in touches:
        story.respond(acme, campaign, day(touched))
    deal = story.deal("deal", acme, yuan(amount), day(1))
    story.sign(deal, yuan(amount), day(at))
    return story, acme


def ask(
    models: Models,
    model: Model,
    moment: Moment = NOW,
    *,
    group: Group = Group.CAMPAIGN,
    **asked: Any,
) -> Attribution:
    found: Attribution = models.ask(
        attribution.attribution,
        moment,
        model=model,
        asked=Asked(**{"currency": "CNY", **asked}),
        fits=Fits(),
        group=group,
    )
    assert found.revenue == found.unattributed + sum(one.credit for one in found.campaigns)
    return found


def credits(models: Models, model: Model, moment: Moment = NOW) -> dict[UUID | None, Decimal]:
    """Those that are not 0."""
    found = ask(models, model, moment)
    result: dict[UUID | None, Decimal] = {
        one.campaign_id: one.credit for one in found.campaigns if one.credit
    }
    if found.unattributed:
        result[None] = found.unattributed
    return result


def test_first_last_linear(models: Models) -> None:
    story, _ = won([(A, 150), (B, 160), (A, 170)])
    models.project(story)
    assert credits(models, Model.FIRST) == {A: 100}
    assert credits(models, Model.LAST) == {A: 100}
    assert credits(models, Model.LINEAR) == {A: Decimal("66.67"), B: Decimal("33.33")}


def test_the_window_is_open_at_its_start_and_closed_at_its_end(models: Models) -> None:
    story, _ = won([(A, 110), (B, 110.001), (C, 200)])
    models.project(story)
    assert credits(models, Model.FIRST) == {B: 100}
    assert credits(models, Model.LAST) == {C: 100}


def test_a_touch_at_the_very_instant_of_the_close_counts_whenever_it_was_told(
    models: Models,
) -> None:
    story, acme = won([(A, 150)])
    story.respond(acme, B, day(200))
    models.project(story)
    assert credits(models, Model.LAST) == {B: 100}
    assert credits(models, Model.LAST, Moment(day(300), len(story.events) - 1)) == {A: 100}


def test_equal_instants_go_by_position(models: Models) -> None:
    story, _ = won([(B, 150), (A, 150), (C, 150)])
    models.project(story)
    assert credits(models, Model.FIRST) == {B: 100}
    assert credits(models, Model.LAST) == {C: 100}


def test_the_campaign_of_the_opening_is_a_touch(models: Models) -> None:
    story = Story()
    story.campaign("A")
    acme = story.customer("acme")
    deal = story.deal("deal", acme, yuan("10.00"), day(1), campaign_id=A)
    story.sign(deal, yuan("10.00"), day(2))
    models.project(story)
    assert credits(models, Model.LINEAR) == {A: 10}


def test_what_nobody_touched_is_unattributed(models: Models) -> None:
    story, acme = won([])
    deal = story.deal("old", acme, yuan("7.00"), day(1), campaign_id=A)
    story.sign(deal, yuan("7.00"), day(1))
    models.project(story)
    found = ask(models, Model.FIRST)
    assert (found.revenue, found.unattributed) == (107, 100)
    assert [(one.campaign_id, one.credit) for one in found.campaigns] == [(A, 7)]


def test_a_late_touch_changes_the_credits_from_its_position_on(models: Models) -> None:
    story, acme = won([(B, 180)])
    before = len(story.events)
    story.respond(acme, A, day(150))
    models.project(story)
    assert credits(models, Model.FIRST) == {A: 100}
    assert credits(models, Model.FIRST, Moment(day(300), before)) == {B: 100}
    assert credits(models, Model.LINEAR) == {A: 50, B: 50}
    assert credits(models, Model.LINEAR, Moment(day(199))) == {}  # not won yet


def test_win_dates_are_half_open_and_other_currencies_stand_aside(models: Models) -> None:
    story, acme = won([(A, 150)])
    dollars = Money(Decimal("3.00"), "USD")
    other = story.deal("usd", acme, dollars, day(1))
    story.sign(other, dollars, day(200))
    models.project(story)
    signed = day(200).date()

    def revenue(start: date | None, end: date | None) -> Decimal:
        return ask(models, Model.LAST, start=start, end=end).revenue

    assert revenue(signed, None) == 100
    assert revenue(None, signed) == 0
    assert revenue(signed, signed + timedelta(1)) == 100
    found = ask(models, Model.LAST)
    assert [(o.currency, o.count, o.amount) for o in found.other_currencies] == [("USD", 1, 3)]


def test_return_is_on_the_booked_cost_and_null_without(models: Models) -> None:
    story, _ = won([(A, 150), (B, 160)])
    story.cost(A, yuan("20.00"), day(10))
    story.cost(A, yuan("5.00"), day(400))
    models.project(story)
    found = ask(models, Model.LINEAR)
    by_id = {one.campaign_id: one for one in found.campaigns}
    assert (by_id[A].cost, by_id[A].return_) == (25, Decimal(1))
    assert (by_id[B].cost, by_id[B].return_) == (0, None)
    early = ask(models, Model.LINEAR, Moment(day(300)))
    assert {one.campaign_id: one.cost for one in early.campaigns}[A] == 20


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_attributed_and_unattributed_are_the_revenue_to_the_cent(models: Models, seed: int) -> None:
    story = random_story(seed, 300, customers=6)
    models.project(story)
    for currency in ("CNY", "JPY"):
        revenues = {ask(models, model, currency=currency).revenue for model in Model}
        assert len(revenues) == 1
        assert currency == "JPY" or revenues != {0}
    uneven = models.run(
        "SELECT deal_id, model FROM credit_history"
        " WHERE known_to = 9223372036854775807 GROUP BY 1, 2"
        " HAVING sum(credit) <> (SELECT amount FROM touch_fact AS won"
        "  WHERE won.deal_id = credit_history.deal_id AND won.kind = 'contract-signed'"
        "  ORDER BY occurred_at, position LIMIT 1)"
    )
    assert uneven == []


def test_performance_puts_plan_beside_actual(models: Models) -> None:
    story, acme = won([(A, 150), (A, 160), (B, 120)])
    deal = story.deal("from A", acme, yuan("40.00"), day(1), campaign_id=A)
    story.sign(deal, yuan("30.00"), day(300))
    story.deal("open from A", acme, yuan("40.00"), day(301), campaign_id=A)
    story.cost(A, yuan("1200.00"), day(2))
    models.project(story)
    found = {
        one.campaign_id: one for one in models.ask(attribution.performance, NOW, model=Model.LAST)
    }
    a = found[A]
    assert (a.responses, a.deals, a.contracts, a.contract_amount) == (2, 2, 1, 30)
    assert (a.budget, a.cost, a.remaining, a.credit) == (1000, 1200, -200, 100)
    assert a.return_ == Decimal("-0.916667")
    assert (found[B].responses, found[B].return_, found[C].responses) == (1, None, 0)
    behind = Moment(day(-1), latest=True)  # the clock of who asks
    assert a in models.ask(attribution.performance, behind, model=Model.LAST)
    then = {one.campaign_id: one for one in models.ask(attribution.performance, Moment(day(155)))}[
        A
    ]
    assert (then.responses, then.deals, then.contracts) == (1, 1, 0)


def test_campaigns_and_the_annual_plan(models: Models) -> None:
    story = Story()
    spring = story.campaign(
        "spring",
        starts_on=date(2024, 3, 1),
        ends_on=date(2024, 4, 1),
        region="north",
        external_id=ExternalId("plan", "1"),
    )
    story.campaign("autumn", starts_on=date(2024, 9, 1), budget=yuan("500.00"))
    story.campaign("next", starts_on=date(2025, 1, 1))
    dropped = story.campaign("dropped", starts_on=date(2024, 5, 1))
    story.tell(spring, Campaign.Submitted, day(1))
    story.tell(spring, Campaign.Approved, day(2), approved_by="boss")
    story.tell(spring, Campaign.Started, day(3))
    story.cost(spring, yuan("12.50"), day(4))
    story.tell(dropped, Campaign.Submitted, day(1))
    story.tell(dropped, Campaign.Rejected, day(2))
    models.project(story)
    row = models.ask(attribution.campaign, spring, NOW)
    assert (row.status, row.cost, row.version, row.region) == (
        "running",
        Decimal("12.50"),
        5,
        "north",
    )
    assert models.ask(attribution.campaign, spring, Moment(day(2))).status == "approved"
    assert models.ask(attribution.campaign, spring, Moment(day(2))).cost == 0
    plan = models.ask(attribution.annual_plan, NOW)
    assert [(p.year, p.campaigns, p.budget, p.cost) for p in plan] == [
        (2024, 2, 1500, Decimal("12.50")),
        (2025, 1, 1000, 0),
    ]
    for sort in attribution.SORTS:
        seen, after = [], None
        while True:
            page = models.ask(attribution.campaigns, NOW, sort=sort, limit=1, after=after)
            seen += [row.id for row in page.rows]
            after = page.next
            if after is None:
                break
        assert len(set(seen)) == 4
    running = models.ask(attribution.campaigns, NOW, filters={"status": "running"}).rows
    assert [row.id for row in running] == [spring]
    assert len(models.ask(attribution.campaigns, NOW, search="AUT").rows) == 1


def test_weeks_of_a_campaign_in_the_days_of_the_zone(models: Models) -> None:
    """A touch just before midnight in UTC is of the next day in Shanghai; those of days before the
    first or after the last are left out, as are days that are still to come."""
    story = Story()
    spring = story.campaign("spring", starts_on=date(2024, 3, 4), ends_on=date(2024, 3, 20))
    acme = story.customer("acme")
    for at in (
        datetime(2024, 3, 3, 15, 59, tzinfo=UTC),
        datetime(2024, 3, 3, 16, 1, tzinfo=UTC),
        datetime(2024, 3, 10, 16, 0, tzinfo=UTC),
        datetime(2024, 3, 20, 16, 0, tzinfo=UTC),
    ):
        story.respond(acme, spring, at)
    deal = story.deal("deal", acme, yuan("9.00"), datetime(2024, 3, 18, tzinfo=UTC),
                      campaign_id=spring)  # fmt: skip
    signed = datetime(2024, 3, 19, tzinfo=UTC)
    story.sign(deal, yuan("9.00"), signed, signed_on=date(2024, 3, 20))
    models.project(story)

    def weeks(moment: Moment) -> list[tuple[int, ...]]:
        [campaign] = models.ask(attribution.performance, moment, campaign_id=spring)
        found = models.ask(attribution.reach, moment, campaign, ZoneInfo("Asia/Shanghai")).weeks
        assert [week.start for week in found] == [
            date(2024, 3, 4) + timedelta(days=7 * number) for number in range(len(found))
        ]
        return [(week.responses, week.deals, week.contracts) for week in found]

    assert weeks(NOW) == [(1, 0, 0), (1, 0, 0), (0, 1, 1)]
    assert weeks(Moment(datetime(2024, 3, 17, 16, 0, tzinfo=UTC))) == [
        (1, 0, 0), (1, 0, 0), (0, 0, 0),
    ]  # fmt: skip
    assert weeks(Moment(datetime(2024, 3, 3, 16, 0, tzinfo=UTC))) == [(0, 0, 0)]
    assert weeks(Moment(datetime(2024, 3, 3, 15, 0, tzinfo=UTC))) == []


def test_weeks_of_a_campaign_that_touched_many_cost_no_row_each(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Touches are counted by the database: what is read grows with days, not with customers."""
    story = Story()
    spring = story.campaign("spring", starts_on=date(2024, 1, 1), ends_on=date(2999, 12, 31))
    for number in range(60):
        story.respond(story.customer(f"customer {number}"), spring, day(number % 3))
    models.project(story)
    [campaign] = models.ask(attribution.performance, NOW, campaign_id=spring)
    read = []

    def counted(connection: Any, query: str, parameters: Any) -> list[dict[str, Any]]:
        rows = fetch(connection, query, parameters)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(sys.modules["projections.attribution.reach"], "fetch", counted)
    found = models.ask(attribution.reach, NOW, campaign, ZoneInfo("UTC"))
    assert sum(week.responses for week in found.weeks) == 60
    assert sum(read) < 10
    assert len(found.weeks) == 520
