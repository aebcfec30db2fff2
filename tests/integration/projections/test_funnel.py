"""The funnel's questions, with the worked example of the weighted funnel."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.opportunity import Opportunity
from domain.pipeline import Pipeline
from domain.values import Money, Personal, Stage
from projections import funnel
from projections.reading import Moment, UnknownField
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import PIPELINE, START, Story, named, yuan

pytestmark = pytest.mark.database

NOW = Moment(datetime(2024, 6, 1, tzinfo=UTC), latest=True)


def worked_example() -> Story:
    """Section A: one deal a stage."""
    story = Story()
    story.pipeline()
    customer = story.customer("acme")
    for stage, amount in (("prospect", "500000"), ("bid", "250000"), ("negotiation", "200000")):
        story.deal(f"deal in {stage}", customer, yuan(f"{amount}.00"), stage=stage)
    return story


def test_the_funnel_of_the_worked_example(models: Models) -> None:
    models.project(worked_example())
    found = models.ask(funnel.funnel, NOW, pipeline_id=PIPELINE, currency="CNY")
    assert [(s.stage, s.deals, s.amount, s.weighted) for s in found.stages] == [
        ("prospect", 1, Decimal("500000.00"), Decimal("180000.00")),
        ("bid", 1, Decimal("250000.00"), Decimal("180000.00")),
        ("negotiation", 1, Decimal("200000.00"), Decimal("180000.00")),
        ("contract", 0, Decimal("0.00"), Decimal("0.00")),
    ]
    assert found.other_currencies == []


def test_suspended_deals_and_other_currencies_stand_beside_the_sums(models: Models) -> None:
    story = worked_example()
    story.deal("dollars", named("acme"), Money(Decimal("100.00"), "USD"), stage="bid")
    story.of_deal(
        named("deal in bid"), Opportunity.Suspended, START + timedelta(1), approved_by=None
    )
    models.project(story)
    found = models.ask(funnel.funnel, NOW, pipeline_id=PIPELINE, currency="CNY")
    bid = found.stages[1]
    assert (bid.deals, bid.amount, bid.suspended) == (0, 0, 1)
    assert [(o.currency, o.deals, o.weighted) for o in found.other_currencies] == [
        ("USD", 1, Decimal("72.00"))
    ]


def test_an_unknown_pipeline_has_no_funnel(models: Models) -> None:
    models.project(worked_example())
    unknown = named("no pipeline")
    assert models.ask(funnel.funnel, NOW, pipeline_id=unknown, currency="CNY") is None
    assert models.ask(funnel.pipeline, unknown, NOW) is None


def test_a_running_deal_keeps_its_revision(models: Models) -> None:
    story = worked_example()
    story.tell(
        PIPELINE,
        Pipeline.Revised,
        START + timedelta(1),
        revision=2,
        stages=(
            Stage("prospect", Decimal("0.1"), Decimal(1)),
            Stage("bid", Decimal(1), Decimal(1)),
        ),
        approvals=("suspend",),
    )
    models.project(story)
    found = models.ask(funnel.funnel, NOW, pipeline_id=PIPELINE, currency="CNY")
    assert [(s.stage, s.weighted) for s in found.stages] == [
        ("prospect", 180000),
        ("bid", 180000),
        ("negotiation", 180000),
    ]
    row = models.ask(funnel.pipeline, PIPELINE, NOW)
    assert (row.revision, row.version, row.approvals, len(row.stages)) == (2, 2, ["suspend"], 2)
    before = models.ask(funnel.pipeline, PIPELINE, Moment(START, known_at=2))
    assert (before.revision, before.version, before.stages[0].chance_to_win) == (
        1,
        1,
        Decimal("0.36"),
    )
    assert len(models.ask(funnel.pipelines, NOW).rows) == 1


def test_stage_visits_are_numbered_and_told_apart(models: Models) -> None:
    story = Story()
    story.pipeline()
    deal = story.deal("d", story.customer("acme"), yuan("10.00"))
    story.advance(deal, "bid", START + timedelta(days=10))
    story.advance(deal, "prospect", START + timedelta(days=12), back=True)
    story.advance(deal, "bid", START + timedelta(days=20))
    story.sign(deal, yuan("9.00"), START + timedelta(days=30))
    models.project(story)
    seen = models.ask(funnel.visits, deal, NOW)
    assert [(v.visit, v.stage, v.ended) for v in seen] == [
        (1, "prospect", "advanced"),
        (2, "bid", "moved-back"),
        (3, "prospect", "advanced"),
        (4, "bid", "won"),
    ]
    then = models.ask(funnel.visits, deal, Moment(START + timedelta(days=11)))
    assert [(v.stage, v.left_at, v.ended) for v in then] == [
        ("prospect", START + timedelta(days=10), "advanced"),
        ("bid", None, None),
    ]
    row = models.ask(funnel.deal, deal, NOW)
    assert (row.status, row.won_amount, row.version, row.stage) == ("won", 9, 5, "bid")
    assert row.entered_at == START + timedelta(days=20)


def test_a_back_dated_change_is_true_then_and_known_only_now(models: Models) -> None:
    story = Story()
    deal = story.deal("d", story.customer("acme"), yuan("10.00"))
    story.of_deal(
        deal,
        Opportunity.AmountChanged,
        START + timedelta(days=10),
        previous=yuan("10.00"),
        amount=yuan("30.00"),
    )
    story.of_deal(
        deal,
        Opportunity.AmountChanged,
        START + timedelta(days=5),
        previous=yuan("30.00"),
        amount=yuan("20.00"),
    )
    models.project(story)

    def amount(day: int, known_at: int | None) -> Any:
        moment = Moment(START + timedelta(days=day), known_at)
        return models.ask(funnel.deal, deal, moment).amount

    assert [amount(day, None) for day in (1, 5, 9, 10, 11)] == [10, 20, 20, 30, 30]
    assert [amount(day, 3) for day in (1, 5, 9, 10, 11)] == [10, 10, 10, 30, 30]
    assert models.ask(funnel.deal, deal, Moment(START, known_at=1)) is None
    assert models.ask(funnel.deal, deal, Moment(START - timedelta(1))) is None
    assert models.ask(funnel.deal, deal, NOW).version == 3
    assert models.ask(funnel.deal, deal, Moment(NOW.as_of, known_at=3)).version == 2


def test_lists_filter_search_sort_and_page(models: Models) -> None:
    story = Story()
    customer = story.customer("acme")
    for number in range(25):
        story.deal(
            f"deal {number:02} 100%_sure\\" if number == 7 else f"deal {number:02}",
            customer,
            yuan(f"{(number * 7) % 10}.00"),
            owner="ann" if number % 2 else None,
            expected_close=date(2024, 1, 1) if number < 3 else None,
        )
    models.project(story)
    for sort in funnel.SORTS:
        for descending in (False, True):
            seen, after = [], None
            while True:
                page = models.ask(
                    funnel.deals, NOW, sort=sort, descending=descending, after=after, limit=4
                )
                seen += [row.id for row in page.rows]
                assert len(page.rows) <= 4
                after = page.next
                if after is None:
                    break
            assert len(seen) == len(set(seen)) == 25
    by_amount = models.ask(funnel.deals, NOW, sort="amount").rows
    assert [row.amount for row in by_amount] == sorted(row.amount for row in by_amount)
    mine = models.ask(funnel.deals, NOW, filters={"owner": "ann", "status": "open"}).rows
    assert len(mine) == 12
    assert len(models.ask(funnel.deals, NOW, search="100%_SURE\\").rows) == 1
    assert models.ask(funnel.deals, NOW, search="1%0").rows == []
    with pytest.raises(UnknownField):
        models.ask(funnel.deals, NOW, sort="deal_id; DROP TABLE deal_period")
    with pytest.raises(UnknownField):
        models.ask(funnel.deals, NOW, filters={"1=1 --": 1})


def test_win_rate_by_competitor(models: Models) -> None:
    story = Story()
    customer = story.customer("acme")
    for name, competitor in (("a", "Globex"), ("b", "Globex"), ("c", "none")):
        deal = story.deal(name, customer, yuan("1.00"))
        story.of_deal(deal, Opportunity.Lost, START, cause="price", competitor=competitor)
    won = story.deal("w", customer, yuan("1.00"))
    story.of_deal(
        won,
        Opportunity.Reviewed,
        START,
        summary=Personal(customer, None, "1.sealed"),
        competitor="Globex",
    )
    story.sign(won, yuan("1.00"), START)
    models.project(story)
    rates = models.ask(funnel.win_rates, NOW)
    assert [(r.competitor, r.won, r.lost, r.rate) for r in rates] == [
        ("Globex", 1, 2, Decimal("0.333333")),
        ("none", 0, 1, 0),
    ]
    assert models.run("SELECT * FROM win_rate_by_competitor ORDER BY 1") == [
        ("Globex", 1, 2, Decimal("0.333333")),
        ("none", 0, 1, 0),
    ]


def test_the_figures_can_be_recomputed_from_bi(models: Models) -> None:
    models.project(worked_example())
    rows = models.run("SELECT stage, deals, amount, weighted FROM funnel ORDER BY amount")
    assert rows == [
        ("negotiation", 1, 200000, 180000),
        ("bid", 1, 250000, 180000),
        ("prospect", 1, 500000, 180000),
    ]
