"""Paths out of the tables; data-driven models on them; removal; definitions of one's own."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from domain.definitions import AttributionDefinition
from domain.opportunity import Opportunity
from projections import attribution
from projections.attribution import Asked, AttributionProjection, Fits, Model
from projections.attribution.paths import Paths, paths
from projections.catalogue import PROJECTIONS
from projections.projector import RebuildNeeded
from projections.reading import Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import START, Story, named, yuan
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

NOW = Moment(datetime(2100, 1, 1, tzinfo=UTC), latest=True)
A, B = named("A"), named("B")


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def told(models: Models, moment: Moment = NOW, **options: Any) -> dict[str, tuple[int, int]]:
    """The sequences of campaigns, as text, with how many of them were won and ended otherwise."""
    found: Paths = models.ask(paths, moment, **{"look_back_days": 90, **options})
    names = {A: "A", B: "B"}
    touched = [names[found.campaigns[place]] for place in found.touches]
    firsts = found.starts.tolist()
    counts: dict[str, tuple[int, int]] = {}
    for start, end, won, lost in zip(
        firsts, [*firsts[1:], None], found.won.tolist(), found.lost.tolist(), strict=False
    ):
        before = counts.get("".join(touched[start:end]), (0, 0))
        counts["".join(touched[start:end])] = before[0] + won, before[1] + lost
    return counts


@pytest.fixture
def story() -> Story:
    """A→B→win, A→lost, B→nothing; one deal open, one terminated, one won after 90 days."""
    story = Story()
    for name in ("A", "B"):
        story.campaign(name)
    deals = {}
    for name in ("won", "lost", "open", "terminated", "late"):
        customer = story.customer(name)
        story.respond(customer, A, day(10))
        deals[name] = story.deal(f"deal {name}", customer, yuan("10.00"), day(20))
        if name == "won":
            story.respond(customer, B, day(30))
    story.sign(deals["won"], yuan("10.00"), day(40))
    story.respond(named("won"), A, day(41))  # after the win
    story.of_deal(deals["lost"], Opportunity.Lost, day(50), cause="price", competitor="none")
    story.of_deal(deals["terminated"], Opportunity.Terminated, day(50), approved_by=None)
    story.sign(deals["late"], yuan("10.00"), day(100))
    idle = story.customer("idle")
    story.respond(idle, B, day(60))
    return story


def test_paths_are_of_deals_that_ended_and_of_customers_without_any(
    models: Models, story: Story
) -> None:
    models.project(story)
    assert told(models) == {"AB": (1, 0), "A": (0, 1), "B": (0, 1)}
    assert told(models, look_back_days=91) == {"AB": (1, 0), "A": (1, 1), "B": (0, 1)}
    assert told(models, Moment(day(45))) == {"AB": (1, 0)}
    assert told(models, Moment(day(45), 5)) == {}


def test_paths_of_some_days(models: Models, story: Story) -> None:
    models.project(story)

    def ended(start: float | None, end: float | None) -> dict[str, tuple[int, int]]:
        first = None if start is None else day(start).date()
        return told(models, start=first, end=None if end is None else day(end).date())

    assert ended(None, 40) == {}
    assert ended(40, 41) == {"AB": (1, 0)}
    assert ended(41, 60) == {"A": (0, 1)}
    assert ended(60, None) == {"B": (0, 1)}


def test_equal_instants_go_by_position(models: Models) -> None:
    story = Story()
    customer = story.customer("acme")
    for campaign in (B, A, B):
        story.respond(customer, campaign, day(1))
    models.project(story)
    assert told(models) == {"BAB": (0, 1)}


def test_fits_are_kept_until_something_is_recorded(models: Models, story: Story) -> None:
    models.project(story)
    fits = Fits()

    def ask(moment: Moment = NOW, **asked: Any) -> attribution.Attribution:
        found: attribution.Attribution = models.ask(
            attribution.attribution,
            moment,
            model=Model.MARKOV,
            asked=Asked("CNY", **asked),
            fits=fits,
        )
        return found

    first = ask().fit
    assert ask(Moment(datetime(2101, 1, 1, tzinfo=UTC), latest=True)).fit is first
    assert ask(start=date(2020, 1, 1)).fit is not first
    assert ask(Moment(day(45))).fit is not first
    assert ask(definition=AttributionDefinition(look_back_days=91)).fit is not first
    story.respond(named("idle"), A, day(61))
    models.project(story)
    second = ask().fit
    assert second is not None
    assert second is not first
    assert second.paths == 3


def test_the_present_is_all_that_is_recorded_whatever_time_the_asker_has(
    models: Models, story: Story
) -> None:
    """A clock that is behind hides nothing, and nothing that it saw is kept for others."""
    models.project(story)
    fits = Fits()
    behind = Moment(day(-1), latest=True)

    def ask(moment: Moment) -> attribution.Attribution:
        found: attribution.Attribution = models.ask(
            attribution.attribution, moment, model=Model.MARKOV, asked=Asked("CNY"), fits=fits
        )
        return found

    seen = ask(behind)
    assert seen.fit is not None
    assert seen.fit.paths == 3
    assert ask(NOW) == seen
    assert models.ask(attribution.performance, behind) == models.ask(attribution.performance, NOW)


def removed(models: Models, model: Model, campaign: UUID, **asked: Any) -> Any:
    return models.ask(
        attribution.what_if,
        NOW,
        campaign=campaign,
        model=model,
        asked=Asked(**{"currency": "CNY", **asked}),
        fits=Fits(),
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_what_if_is_the_story_told_without_the_campaign(models: Models, seed: int) -> None:
    story = random_story(seed, 200, customers=4)
    models.project(story)
    campaign = named("campaign 0")
    found = {model: removed(models, model, campaign) for model in attribution.RULES}
    for event in story.events:
        if getattr(event.event, "campaign_id", None) == campaign:
            # Nobody will ask for this campaign, but the deal was opened all the same.
            object.__setattr__(event.event, "campaign_id", None)
    kept = [
        event
        for event in story.events
        if not (
            event.topic == "crm.customer.campaign-responded" and event.event.campaign_id is None
        )
    ]
    for table in ("position", "applied"):
        models.run(f"DELETE FROM {table} WHERE projection LIKE 'attribution/%%'")
    for table in PROJECTIONS["attribution"].tables():
        models.run(f"DELETE FROM {table}")
    refilled = models.projector(PROJECTIONS["attribution"], Renumbered(kept, len(story.events)))
    while refilled.step():
        pass
    for model in attribution.RULES:
        answer = models.ask(
            attribution.attribution, NOW, model=model, asked=Asked("CNY"), fits=Fits()
        )
        credits = {one.campaign_id: one.credit for one in answer.campaigns if one.credit}
        after = {key: value for key, value in found[model].after.items() if value}
        assert after.pop(None, Decimal(0)) == answer.unattributed
        assert after == credits, model
        assert sum(found[model].before.values()) == sum(found[model].after.values())


class Renumbered:
    """A feed of some of a story's events, at the positions that they had."""

    def __init__(self, events: list[Any], end: int) -> None:
        self._events = events
        self._story = Story()
        self._end = end

    def read(self, after: int, limit: int) -> Any:
        batch = [event for event in self._events if event.position > after][:limit]
        through = batch[-1].position if len(batch) == limit else self._end
        return type(self._story.read(0, 0))(batch, through, self.head())

    def head(self) -> Any:
        return type(self._story.head())(self._end, self._story.epoch)


def test_another_definition_is_another_read_model(models: Models, story: Story) -> None:
    models.project(story)
    own = AttributionProjection(AttributionDefinition(version=2, look_back_days=91))
    assert PROJECTIONS["attribution"].id == "attribution/2"
    assert own.id.startswith("attribution/2:2-")
    with pytest.raises(RebuildNeeded):
        models.projector(own, story).step()
    assert models.rebuild(own, story).run().position == len(story.events)
    answer = models.ask(
        attribution.attribution, NOW, model=Model.LAST, asked=Asked("CNY"), fits=Fits()
    )
    assert (answer.revenue, answer.unattributed) == (20, 0)
    with pytest.raises(RebuildNeeded):  # and back
        models.projector(AttributionProjection(), story).step()


def test_a_view_of_an_earlier_version_does_not_keep_the_tables(
    models: Models, story: Story
) -> None:
    models.project(story)
    models.run(
        f'CREATE VIEW "{models.bi}".former AS SELECT credit_period.deal_id FROM credit_period'
    )
    assert models.rebuild(PROJECTIONS["attribution"], story).run().same
    assert models.run("SELECT to_regclass('former') IS NULL") == [(True,)]


def test_the_star_has_unique_keys_and_whole_references(models: Models) -> None:
    models.project(random_story(8, 300, customers=6))
    for view, key in (
        ("dim_campaign", "campaign_id"),
        ("fact_touch", "touch"),
        ("fact_credit", "deal_id, model, touch"),
    ):
        assert models.run(f"SELECT {key} FROM {view} GROUP BY {key} HAVING count(*) > 1") == []
        assert models.run(f"SELECT count(*) > 0 FROM {view}") == [(True,)]
    for view in ("fact_touch", "fact_credit"):
        assert (
            models.run(
                f"SELECT FROM {view} LEFT JOIN dim_campaign USING (campaign_id)"
                " WHERE campaign_id IS NOT NULL AND dim_campaign.name IS NULL"
            )
            == []
        )
    assert (
        models.run(
            "SELECT FROM fact_credit LEFT JOIN fact_touch USING (touch)"
            " WHERE fact_credit.touch > 0 AND fact_touch.kind IS NULL"
        )
        == []
    )
