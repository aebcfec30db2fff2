"""What was learned is the same for all who ask on a day, and what the stays say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from domain.definitions import ForecastDefinition
from projections.funnel import Fits, FunnelProjection, cells
from projections.funnel.counting import Counts, Tally
from projections.funnel.fits import Fit
from projections.funnel.history import history, minutes
from projections.funnel.open_deals import pipelines_known
from projections.projector import Projector
from projections.reading import Connection, Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import PIPELINE, START, Story, named, yuan
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOON = datetime(2024, 6, 1, 4, tzinfo=UTC)
"""Noon in Shanghai."""
MIDNIGHT = NOON - timedelta(hours=12)


def projected(models: Models, story: Story) -> Projector:
    projector = models.projector(FunnelProjection(), story, bi_schema=None)
    while projector.step():
        pass
    return projector


def sold(deals: int = 30) -> Story:
    """Deals that were opened a day each and won after twenty."""
    story = Story()
    story.pipeline()
    customer = story.customer("acme")
    for number in range(deals):
        opened = START + timedelta(days=number)
        deal = story.deal(f"deal {number}", customer, yuan("100.00"), opened, stage="bid")
        story.sign(deal, yuan("100.00"), opened + timedelta(days=20))
    return story


def fit(models: Models, fits: Fits, moment: Moment, **options: Any) -> Fit:
    def ask(connection: Connection) -> Fit:
        definition = options.pop("definition", ForecastDefinition())
        known = pipelines_known(connection, moment)
        return fits.fit(connection, moment, PIPELINE, known, definition, SHANGHAI)

    found: Fit = models.ask(ask)
    return found


def now(at: datetime = NOON) -> Moment:
    return Moment(at, latest=True)


def test_what_happens_on_the_day_makes_no_other_model(models: Models) -> None:
    story, fits = sold(), Fits()
    projector = projected(models, story)
    first = fit(models, fits, now())
    assert (first.sample.until, first.sample.ended) == (MIDNIGHT, 30)
    deal = story.deal("new", named("acme"), yuan("7.00"), MIDNIGHT, stage="bid")
    story.sign(deal, yuan("7.00"), NOON)
    projector.step()
    assert fit(models, fits, now()) is first
    assert fit(models, fits, now(NOON + timedelta(hours=11))) is first
    tomorrow = fit(models, fits, now(NOON + timedelta(hours=13)))
    assert tomorrow.sample.ended == 31
    assert fit(models, Fits(), now()).sample == first.sample


def test_what_is_recorded_late_does(models: Models) -> None:
    story, fits = sold(), Fits()
    deal = story.deal("late", named("acme"), yuan("7.00"), START, stage="bid")
    projector = projected(models, story)
    first = fit(models, fits, now())
    before = Moment(NOON, known_at=len(story.events))
    story.sign(deal, yuan("7.00"), MIDNIGHT - timedelta(minutes=1))
    projector.step()
    second = fit(models, fits, now())
    assert (first.sample.ended, second.sample.ended) == (30, 31)
    assert fit(models, fits, now()) is second
    assert fit(models, fits, before).sample == first.sample
    assert fit(models, fits, Moment(NOON, known_at=len(story.events))).sample == second.sample


def test_a_rebuild_and_another_definition_do(models: Models) -> None:
    story, fits = sold(), Fits()
    projector = models.projector(FunnelProjection(), story)
    while projector.step():
        pass
    first = fit(models, fits, now())
    heavy = ForecastDefinition(prior_weight=Decimal(99))
    assert fit(models, fits, now(), definition=heavy) is not first
    assert fit(models, fits, now()) is first
    models.rebuild(FunnelProjection(), story).run()
    again = fit(models, fits, now())
    assert again is not first
    assert again.sample == first.sample


@pytest.mark.parametrize("ahead", [0, 1])
def test_only_what_all_partitions_have_reached_is_learned(models: Models, ahead: int) -> None:
    story = sold()
    owners = [
        models.projector(FunnelProjection(), story, bi_schema=None, partitions=2, owned=[number])
        for number in range(2)
    ]
    for owner in owners:
        owner.prepare()
    while owners[ahead].step():
        pass
    assert not fit(models, Fits(), now()).sample.used
    while owners[1 - ahead].step():
        pass
    assert fit(models, Fits(), now()).sample.ended == 30


def counted(models: Models, until: datetime, known_at: int, **options: Any) -> Counts:
    found: Counts = models.ask(
        cells.counts, PIPELINE, until=until, known_at=known_at, stages=["bid"],
        half_life_days=Decimal(90), **options,
    )  # fmt: skip
    return found


def tallied(models: Models, until: datetime, known_at: int) -> Counts:
    past = models.ask(history, PIPELINE, until=until, positions=[known_at])
    tally = Tally(past, ["bid"], Decimal(90))
    tally.add(past.seen(minutes(until), 0), minutes(until))
    return tally.counts()


@pytest.mark.parametrize("seed", range(8))
def test_the_database_counts_what_a_tally_of_the_history_does(models: Models, seed: int) -> None:
    story, random = random_story(seed, 250, customers=5), Random(seed)
    projected(models, story)
    for days in (30, 200, 500, 2000):
        until = START + timedelta(days=days, minutes=random.randint(-99, 99))
        known_at = random.randint(100, len(story.events))
        found, wanted = (of(models, until, known_at) for of in (counted, tallied))
        order = [found.stages.index(stage) for stage in wanted.stages if stage in found.stages]
        assert [found.sample[place] for place in order] == [
            row for row in wanted.sample if row.stage in found.stages
        ]
        assert found.ended == wanted.ended
        places = [wanted.stages.index(found.stages[place]) for place in order]
        for name in ("exposed", "won", "lost", "paused"):
            assert getattr(found, name)[order] == pytest.approx(
                getattr(wanted, name)[places], abs=1e-6
            )
        assert found.moved[np.ix_(order, order)] == pytest.approx(
            wanted.moved[np.ix_(places, places)], abs=1e-6
        )
        for name in ("suspension_exposed", "resumed", "given_up"):
            assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=1e-6)


def test_of_a_long_log_a_part_of_the_deals_is_learned_from(models: Models) -> None:
    assert [cells.one_in(p) for p in (0, cells.LARGE, cells.LARGE + 1, 9 * cells.LARGE)] == [
        1, 1, 2, 16,
    ]  # fmt: skip
    story = sold(60)
    projected(models, story)
    deals = [named(f"deal {number}") for number in range(60)]
    for share in (1, 2, 4, 8, 16):
        found = counted(models, NOON, len(story.events), one_in=share)
        last = [int.from_bytes(deal.bytes[12:], "big") for deal in deals]
        assert found.ended == sum(octets < 2**32 // share for octets in last)
