"""Where customers stand, at any date, as known at any date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from domain.customer import Customer
from domain.values import ChurnCause, Level, Silence
from projections import lifecycle
from projections.lifecycle import VALUES, Classification
from projections.reading import Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import START, Story, named, yuan
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

NOW = Moment(datetime(2100, 1, 1, tzinfo=UTC), latest=True)
TYPE, PATH = Classification.TYPE, Classification.PATH
IDENTIFICATION, LEVEL = Classification.IDENTIFICATION, Classification.LEVEL


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def stands(models: Models, name: str, moment: Moment = NOW) -> dict[str, str]:
    found = models.ask(lifecycle.standing, named(name), moment)
    return {one.classification.value: one.value for one in found}


def churn(story: Story, customer: Any, at: datetime) -> None:
    story.tell(customer, Customer.Churned, at, cause=ChurnCause.PRICE)


def level(story: Story, customer: Any, value: Level, at: datetime) -> None:
    story.tell(customer, Customer.LevelChanged, at, level=value, previous=None)


def test_the_whole_way_and_back(models: Models) -> None:
    story = Story()
    acme = story.customer("acme")
    story.respond(acme, named("campaign"), day(1))
    deal = story.deal("deal", acme, yuan("1.00"), day(2))
    story.sign(deal, yuan("1.00"), day(3))
    level(story, acme, Level.STABLE, day(4))
    story.order(acme, day(5))
    churn(story, acme, day(6))
    story.tell(acme, Customer.WonBack, day(7))
    models.project(story)
    seen = [tuple(stands(models, "acme", Moment(day(n))).values()) for n in range(8)]
    assert seen == [
        ("prospect", "prospect", "prospect", "none"),
        ("responder", "prospect", "prospect", "none"),
        ("responder", "opportunity", "sales_opportunity", "none"),
        ("relationship", "order", "order", "new"),
        ("relationship", "order", "order", "stable"),
        ("relationship", "repeat", "order", "stable"),
        ("lost", "repeat", "order", "none"),
        ("relationship", "repeat", "order", "new"),
    ]
    moves = models.ask(lifecycle.transitions, NOW, classification=LEVEL, start=START, end=day(100))
    assert moves.stable_to_lost == 1
    assert [(m.from_value, m.to_value, m.moves) for m in moves.moves] == [
        ("none", "new", 2),
        ("new", "stable", 1),
        ("stable", "none", 1),
    ]
    cause = models.run("SELECT cause FROM lifecycle_move WHERE to_value = 'lost'")
    assert cause == [("price",)]


def test_active_and_passive_losses_are_told_apart(models: Models) -> None:
    story = Story()
    acme, zeta = story.customer("acme"), story.customer("zeta")
    for one in (acme, zeta):
        story.order(one, day(1))
    churn(story, acme, day(2))
    silence = Silence(rule="silence/1:10", since=day(1), days=10, event_id=named("order"))
    story.tell(zeta, Customer.Churned, day(11), cause=ChurnCause.SILENCE, silence=silence)
    models.project(story)
    assert [stands(models, name)["type"] for name in ("acme", "zeta")] == ["lost", "lost"]
    rows = models.run(
        "SELECT customer_id, cause FROM customer_standing WHERE value = 'lost' ORDER BY cause"
    )
    assert [(str(id_), cause) for id_, cause in rows] == [
        (str(acme), "price"),
        (str(zeta), "silence"),
    ]


def test_all_six_levels_are_reached(models: Models) -> None:
    story = Story()
    acme = story.customer("acme")
    story.order(acme, day(1))
    for number, value in enumerate(Level, 2):
        level(story, acme, value, day(number))
    models.project(story)
    seen = {stands(models, "acme", Moment(day(n)))["level"] for n in range(9)}
    assert seen == set(VALUES[LEVEL])


def test_a_contract_counts_once_and_an_order_after_a_loss_begins_anew(models: Models) -> None:
    story = Story()
    acme = story.customer("acme")
    deal = story.deal("deal", acme, yuan("1.00"), day(1))
    story.sign(deal, yuan("1.00"), day(2))
    story.sign(deal, yuan("1.00"), day(3))  # no command would: still it is one order
    models.project(story)
    assert stands(models, "acme")["path"] == "order"
    churn(story, acme, day(4))
    story.order(acme, day(5))
    models.project(story)
    assert stands(models, "acme") == {
        "type": "relationship",
        "path": "repeat",
        "identification": "order",
        "level": "new",
    }


def test_levels_are_ignored_outside_a_relationship(models: Models) -> None:
    story = Story()
    acme = story.customer("acme")
    level(story, acme, Level.STABLE, day(1))
    models.project(story)
    assert stands(models, "acme")["level"] == "none"


def test_who_is_not_identified_stays_so_until_it_is(models: Models) -> None:
    story = Story()
    who = story.customer("who", identified=False)
    story.deal("deal", who, yuan("1.00"), day(1))
    story.tell(who, Customer.ProfileChanged, day(2), identified=True)
    models.project(story)
    seen = [stands(models, "who", Moment(day(n)))["identification"] for n in range(3)]
    assert seen == ["to_be_identified", "to_be_identified", "sales_opportunity"]


def test_facts_from_before_the_registration_open_the_first_value(models: Models) -> None:
    story = Story()
    acme = story.customer("acme", day(10))
    story.deal("deal", acme, yuan("1.00"), day(0))
    models.project(story)
    assert stands(models, "acme", Moment(day(5)))["path"] == "opportunity"
    assert stands(models, "acme", Moment(day(-1))) == {}
    assert stands(models, "acme", Moment(day(5), known_at=1)) == {}
    found = models.ask(lifecycle.distribution, Moment(day(5)), classification=TYPE)
    assert found.customers == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_the_distribution_always_sums_to_the_customers(models: Models, seed: int) -> None:
    story = random_story(seed, 200, customers=12)
    models.project(story)
    end = len(story.events)
    for as_of in range(0, 900, 90):
        for known_at in (None, end // 2, end // 4):
            moment = Moment(day(as_of), known_at)
            sums = set()
            for classification in Classification:
                found = models.ask(lifecycle.distribution, moment, classification=classification)
                assert [one.value for one in found.distribution] == list(VALUES[classification])
                assert found.customers == sum(one.customers for one in found.distribution)
                sums.add(found.customers)
            assert len(sums) == 1


def test_the_rows_of_the_matrix_sum_to_the_departures(models: Models) -> None:
    story = random_story(3, 300, customers=8)
    models.project(story)
    for classification in Classification:
        found = models.ask(
            lifecycle.transitions, NOW, classification=classification, start=day(0), end=day(20000)
        )
        for one in found.departures:
            out = sum(move.moves for move in found.moves if move.from_value == one.value)
            assert out == one.departures
        by_view = models.run(
            "SELECT from_value, to_value, count(*) FROM lifecycle_move WHERE classification = %s"
            " AND from_value <> to_value GROUP BY 1, 2",
            classification.value,
        )
        assert {(m.from_value, m.to_value, m.moves) for m in found.moves} == set(by_view)
    paths = models.ask(
        lifecycle.transitions, NOW, classification=PATH, start=day(0), end=day(20000)
    )
    order = list(VALUES[PATH])
    assert all(order.index(m.from_value) < order.index(m.to_value) for m in paths.moves)


def test_time_spent_counts_the_first_value_and_the_open_ones(models: Models) -> None:
    story = Story()
    for number, days in enumerate((2, 4, 9)):
        customer = story.customer(f"c{number}", day(0))
        story.respond(customer, named("campaign"), day(days))
    story.customer("quiet", day(0))
    models.project(story)
    found = models.ask(lifecycle.durations, Moment(day(20)), classification=TYPE)
    prospect, responder = found[0], found[1]
    assert (prospect.value, prospect.periods, prospect.closed, prospect.open) == (
        "prospect",
        4,
        3,
        1,
    )
    assert (prospect.mean_days, prospect.median_days) == (5, 4)
    assert (responder.periods, responder.closed, responder.open) == (3, 0, 3)
    assert responder.mean_days is None
    early = models.ask(lifecycle.durations, Moment(day(4)), classification=TYPE)[0]
    assert (early.periods, early.closed, early.mean_days) == (4, 2, Decimal(3))
    assert early.open == 2
    assert [one.value for one in found] == list(VALUES[TYPE])


def test_a_loss_found_to_lie_before_another_is_no_second_one(models: Models) -> None:
    story = Story()
    acme = story.customer("acme")
    story.order(acme, day(1))
    churn(story, acme, day(5))
    story.tell(acme, Customer.WonBack, day(6))
    story.tell(acme, Customer.Churned, day(3), cause=ChurnCause.COMPETITOR)
    models.project(story)
    span = {"start": START, "end": day(100)}
    lost = models.ask(lifecycle.losses, NOW, **span).rows
    assert [(one.lost_at, one.cause, one.level) for one in lost] == [(day(3), "competitor", "new")]
    (cause,) = models.ask(lifecycle.loss_causes, NOW, **span)
    assert (cause.cause, cause.losses) == ("competitor", 1)
    moved = models.ask(lifecycle.transitions, NOW, classification=TYPE, **span)
    assert sum(move.moves for move in moved.moves if move.to_value == "lost") == 1
    assert models.run("SELECT from_value FROM lifecycle_move WHERE to_value = 'lost'") == [
        ("relationship",)
    ]


def deliver(story: Story, customer: Any, at: datetime, order_id: str | None = None) -> None:
    number = str(len(story.events))
    story.tell(customer, Customer.Delivered, at, delivery_id=number, order_id=order_id)


def test_a_user_begins_with_the_first_delivery(models: Models) -> None:
    story = Story()
    acme = story.customer("acme")
    story.deal("deal", acme, yuan("1.00"), day(1))
    story.order(acme, day(2))
    deliver(story, acme, day(4), "3")
    deliver(story, acme, day(6))
    story.order(acme, day(7))
    churn(story, acme, day(8))
    before = len(story.events)
    deliver(story, acme, day(3))  # told last, and the first of all
    models.project(story)
    seen = [stands(models, "acme", Moment(day(n)))["identification"] for n in range(10)]
    assert seen == ["prospect", "sales_opportunity", "order", *["user"] * 7]
    assert stands(models, "acme", Moment(day(3), before))["identification"] == "order"
    assert stands(models, "acme", Moment(day(4), before))["identification"] == "user"
    assert stands(models, "acme")["path"] == "repeat"
    stays = models.run(
        "SELECT value, entered_at FROM fact_lifecycle_period"
        " WHERE classification = 'identification' ORDER BY entered_at"
    )
    assert stays == [
        ("prospect", START),
        ("sales_opportunity", day(1)),
        ("order", day(2)),
        ("user", day(3)),
    ]
    rows = models.run(
        "SELECT customer_id, delivery_id, order_id, delivered_at, delivered_on FROM fact_delivery"
        " ORDER BY delivered_at"
    )
    assert rows == [
        (acme, "7", None, day(3), day(3).date()),
        (acme, "3", "3", day(4), day(4).date()),
        (acme, "4", None, day(6), day(6).date()),
    ]


def test_a_delivery_without_an_order_before_it(models: Models) -> None:
    """An order told of a later day does not take the user back."""
    story = Story()
    acme, nobody = story.customer("acme"), story.customer("nobody", identified=False)
    deliver(story, acme, day(1))
    story.order(acme, day(2))
    deliver(story, nobody, day(1))
    story.tell(nobody, Customer.ProfileChanged, day(3), identified=True)
    models.project(story)
    assert [stands(models, "acme", Moment(day(n)))["identification"] for n in range(3)] == [
        "prospect", "user", "user",
    ]  # fmt: skip
    assert stands(models, "acme", Moment(day(1)))["path"] == "prospect"
    assert [stands(models, "nobody", Moment(day(n)))["identification"] for n in range(4)] == [
        "to_be_identified", "to_be_identified", "to_be_identified", "user",
    ]  # fmt: skip
    for n in range(4):
        found = models.ask(lifecycle.distribution, Moment(day(n)), classification=IDENTIFICATION)
        assert sum(one.customers for one in found.distribution) == found.customers == 2
