"""What happened to the open amount between two moments: the sums are exact, whatever happened."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.opportunity import Opportunity
from projections import funnel
from projections.funnel import FunnelProjection, Waterfall
from projections.reading import Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import PIPELINE, START, Story, named, yuan
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def waterfall(
    models: Models, start: float, end: float, known_at: int | None = None, **options: Any
) -> Waterfall:
    asked = {"pipeline_id": PIPELINE, "currency": "CNY", **options}
    found: Waterfall = models.ask(
        funnel.waterfall, Moment(day(end), known_at), start=day(start), end=day(end), **asked
    )
    return found


def changes(found: Waterfall) -> dict[str, tuple[Any, ...]]:
    return {c.kind: (c.times, c.deals, c.amount) for c in found.changes if c.times}


def told() -> Story:
    story = Story()
    story.pipeline()
    customer = story.customer("acme")
    for name, opened in (("a", 0), ("b", 0), ("c", 0), ("d", 0), ("e", 12), ("f", 13)):
        close = date(2024, 3, 1) if name in "ab" else None
        story.deal(name, customer, yuan("100.00"), day(opened), expected_close=close)
    change(story, "a", "100.00", "130.00", 11)
    change(story, "a", "130.00", "120.00", 12)
    story.of_deal(named("b"), Opportunity.Suspended, day(11), approved_by=None)
    story.of_deal(named("b"), Opportunity.Resumed, day(14))
    story.of_deal(named("c"), Opportunity.Lost, day(15), cause="price", competitor="none")
    story.of_deal(named("d"), Opportunity.Terminated, day(15), approved_by=None)
    story.sign(named("e"), yuan("90.00"), day(16))
    story.of_deal(
        named("a"), Opportunity.ExpectedCloseChanged, day(17), previous=date(2024, 3, 1),
        expected_close=date(2024, 5, 1),
    )  # fmt: skip
    story.of_deal(
        named("f"), Opportunity.ExpectedCloseChanged, day(18), previous=None,
        expected_close=date(2024, 3, 31),
    )  # fmt: skip
    return story


def change(story: Story, deal: str, previous: str, amount: str, at: float) -> None:
    story.of_deal(
        named(deal), Opportunity.AmountChanged, day(at), previous=yuan(previous),
        amount=yuan(amount),
    )  # fmt: skip


def test_every_kind_of_change_has_its_place(models: Models) -> None:
    models.project(told())
    found = waterfall(models, 10, 20)
    assert (found.opening.deals, found.opening.amount) == (4, 400)
    assert changes(found) == {
        "new": (2, 2, 200),
        "reopened": (1, 1, 100),
        "raised": (1, 0, 30),
        "lowered": (1, 0, -10),
        "suspended": (1, -1, -100),
        "won": (1, -1, -100),
        "lost": (1, -1, -100),
        "terminated": (1, -1, -100),
    }
    assert (found.closing.deals, found.closing.amount) == (3, 320)


def test_deals_move_into_and_out_of_a_window_of_expected_closes(models: Models) -> None:
    models.project(told())
    march = {"close_from": date(2024, 3, 1), "close_to": date(2024, 4, 1)}
    found = waterfall(models, 10, 20, **march)
    assert (found.opening.deals, found.opening.amount) == (2, 200)
    assert changes(found) == {
        "reopened": (1, 1, 100),
        "raised": (1, 0, 30),
        "moved_in": (1, 1, 100),
        "lowered": (1, 0, -10),
        "moved_out": (1, -1, -120),
        "suspended": (1, -1, -100),
    }
    assert (found.closing.deals, found.closing.amount) == (2, 200)


def test_a_deal_won_as_it_was_opened_came_and_went(models: Models) -> None:
    story = Story()
    story.pipeline()
    deal = story.deal("quick", story.customer("acme"), yuan("5.00"), day(1))
    story.sign(deal, yuan("5.00"), day(1))
    models.project(story)
    assert changes(waterfall(models, 0, 2)) == {"new": (1, 1, 5), "won": (1, -1, -5)}
    assert changes(waterfall(models, 1, 2)) == {}


def test_the_boundaries_belong_to_the_end(models: Models) -> None:
    models.project(told())
    assert changes(waterfall(models, 11, 12)) == {
        "new": (1, 1, 100),
        "lowered": (1, 0, -10),
    }
    found = waterfall(models, 12, 12)
    assert changes(found) == {}
    assert found.opening.amount == found.closing.amount == 420


def test_an_unknown_pipeline_has_none_and_before_everything_there_is_nothing(
    models: Models,
) -> None:
    models.project(told())
    found = models.ask(
        funnel.waterfall, Moment(day(1)), start=day(0), end=day(1), pipeline_id=named("none"),
        currency="CNY",
    )  # fmt: skip
    assert found is None
    assert waterfall(models, -20, -10).closing.deals == 0


def retold(models: Models, story: Story) -> None:
    """The funnel's read model over this story and none before it."""
    for table in (*FunnelProjection().tables(), *FunnelProjection().sums()):
        models.run(f"DROP TABLE IF EXISTS {table} CASCADE")
    for shared in ("position", "origin", "applied", "parked"):
        models.run(f"DELETE FROM {shared}")
    projector = models.projector(FunnelProjection(), story, bi_schema=None)
    while projector.step():
        pass


DAYS = st.integers(-5, 400)
WINDOW = st.none() | st.integers(1, 6).map(lambda month: date(2024, month, 1))


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 10**6),
    late=st.sampled_from([0.0, 0.4, 0.9]),
    closes=st.lists(st.tuples(DAYS, WINDOW), max_size=40),
    asked=st.lists(
        st.tuples(
            st.tuples(DAYS, DAYS).map(sorted), st.none() | st.floats(0, 1),
            st.tuples(WINDOW, WINDOW),
        ),
        min_size=1, max_size=8,
    ),
)  # fmt: skip
def test_opening_and_changes_are_the_closing_over_any_history(
    models: Models,
    seed: int,
    late: float,
    closes: list[tuple[int, date | None]],
    asked: list[tuple[list[int], float | None, tuple[date | None, date | None]]],
) -> None:
    story = random_story(seed, 120, customers=5, late=late)
    opened = [e.stream_id for e in story.events if isinstance(e.event, Opportunity.Created)]
    for number, (at, close) in enumerate(closes):
        if opened:
            story.of_deal(
                opened[number % len(opened)], Opportunity.ExpectedCloseChanged,
                day(max(at, 0)), previous=None, expected_close=close,
            )  # fmt: skip
    retold(models, story)
    for (start, end), known, (close_from, close_to) in asked:
        known_at = None if known is None else 1 + int(known * (len(story.events) - 1))
        for currency in ("CNY", "JPY"):
            found = waterfall(
                models, start, end, known_at, currency=currency, pipeline_id=None,
                close_from=close_from, close_to=close_to,
            )  # fmt: skip
            amount = found.opening.amount + sum(c.amount for c in found.changes)
            deals = found.opening.deals + sum(c.deals for c in found.changes)
            assert (amount, deals) == (found.closing.amount, found.closing.deals)
            if close_from or close_to:
                continue
            for at, side in ((start, found.opening), (end, found.closing)):
                seen = models.ask(
                    funnel.funnel, Moment(day(at), known_at), pipeline_id=PIPELINE,
                    currency=currency,
                )  # fmt: skip
                assert side.amount == sum(stage.amount for stage in seen.stages)
                assert side.deals == sum(stage.deals for stage in seen.stages)
